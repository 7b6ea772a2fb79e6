//! Gate 0.
use planaria_tests::model::{Bounds, Planted, explore, walk};
#[test]
fn a() {
    for b in [
        Bounds {
            copies: 2,
            uids: 2,
            crashes: 1,
            promotions: 1,
            cuts: 1,
            merges: 0,
            flushes: 0,
            ..Bounds::PLAIN
        },
        Bounds {
            copies: 2,
            uids: 2,
            crashes: 0,
            promotions: 0,
            cuts: 1,
            merges: 1,
            flushes: 2,
            ..Bounds::PLAIN
        },
        Bounds {
            copies: 2,
            uids: 2,
            crashes: 0,
            promotions: 1,
            cuts: 1,
            merges: 0,
            flushes: 1,
            ..Bounds::PLAIN
        },
        Bounds {
            copies: 3,
            uids: 1,
            crashes: 0,
            promotions: 1,
            cuts: 1,
            merges: 0,
            flushes: 0,
            ..Bounds::PLAIN
        },
    ] {
        let t = std::time::Instant::now();
        match explore(&b, None) {
            Ok(e) => eprintln!("{b:?} {e:?} {:?}", t.elapsed()),
            Err(c) => panic!("{c}"),
        }
    }
}
#[test]
fn w() {
    let b = Bounds {
        copies: 3,
        uids: 6,
        ..Bounds::PLAIN
    };
    let t = std::time::Instant::now();
    let mut n = 0;
    for seed in 0..3000 {
        match walk(&b, seed, 120, None) {
            Ok(e) => n += e,
            Err(c) => panic!("{seed} {c}"),
        }
    }
    eprintln!("walks {n} {:?}", t.elapsed());
    for p in Planted::ALL {
        let mut got = None;
        for seed in 0..4000 {
            if let Err(c) = walk(&b, seed, 120, Some(p)) {
                got = Some((seed, c.steps.len(), c.violation.invariant));
                break;
            }
        }
        eprintln!("{p:?} {got:?} {:?}", t.elapsed());
    }
}

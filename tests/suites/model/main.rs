//! Gate 0.
use planaria_tests::model::{Bounds, explore};
#[test]
fn a() {
    match explore(
        &Bounds {
            copies: 2,
            uids: 2,
            crashes: 1,
            promotions: 1,
            cuts: 1,
            merges: 1,
            flushes: 1,
            ..Bounds::PLAIN
        },
        None,
    ) {
        Ok(e) => eprintln!("{e:?}"),
        Err(c) => panic!("{c}"),
    }
}

use std::path::PathBuf;

use super::{Mutator, TARGETS};

/// Changed inputs for each target and each file of its corpus.
const ROUNDS: usize = 400;

fn corpus(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target)
}

fn inputs(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let mut paths: Vec<_> =
        std::fs::read_dir(corpus(target)).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

fn seed() -> u64 {
    std::env::var("PLANARIA_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

#[test]
fn every_target_stands_its_corpus() {
    for (name, target) in TARGETS {
        let inputs = inputs(name);
        assert!(!inputs.is_empty(), "{name} has no corpus");
        for (path, bytes) in inputs {
            println!("{}", path.display());
            target(&bytes);
        }
    }
}

/// Reproduce a failure with `PLANARIA_SEED` as printed; another value looks elsewhere.
#[test]
fn every_target_stands_changed_inputs() {
    let seed = seed();
    for (name, target) in TARGETS {
        let mut mutator = Mutator::new(seed);
        for (path, bytes) in inputs(name) {
            // A database takes a thousand times as long as a decoder.
            let rounds = if matches!(name, "operations" | "kept") { ROUNDS / 40 } else { ROUNDS };
            for round in 0..rounds {
                println!("PLANARIA_SEED={seed}, {}, round {round}", path.display());
                target(&mutator.change(&bytes));
            }
        }
    }
}

#[test]
fn every_target_stands_noise() {
    let seed = seed();
    for (name, target) in TARGETS {
        let mut mutator = Mutator::new(seed);
        for round in 0..100 {
            println!("PLANARIA_SEED={seed}, {name}, round {round}");
            let noise: Vec<u8> = (0..mutator.below(300)).map(|_| mutator.below(256) as u8).collect();
            target(&noise);
        }
    }
}

/// Writes a sound input of each format into the corpus, after a change of formats: with `PLANARIA_CORPUS=write`.
#[test]
fn the_corpus_can_be_written_anew() {
    let samples = super::samples().unwrap();
    for (name, _) in TARGETS {
        assert!(samples.iter().any(|(sample, _)| *sample == name), "{name} has no sample");
    }
    if std::env::var("PLANARIA_CORPUS").as_deref() == Ok("write") {
        for (number, (name, bytes)) in samples.iter().enumerate() {
            std::fs::create_dir_all(corpus(name)).unwrap();
            std::fs::write(corpus(name).join(format!("sample-{number}")), bytes).unwrap();
        }
    }
}

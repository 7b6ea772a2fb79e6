//! The entry point of libFuzzer for the target of the same name.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| planaria_fuzz::kept(bytes));

#[cfg(not(fuzzing))]
fn main() {
    eprintln!("build with cargo fuzz");
}

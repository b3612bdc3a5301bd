//! `cargo +nightly fuzz run control_data`: the body is in `src/fuzzing.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pgherd::fuzzing::run("control_data", data));

//! `cargo +nightly fuzz run config`: the body is in `src/fuzzing.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pgherd::fuzzing::run("config", data));

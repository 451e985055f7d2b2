//! libFuzzer's way into [`hobnob_fuzz::greeting`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hobnob_fuzz::greeting::run(data));

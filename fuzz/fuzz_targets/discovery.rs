//! libFuzzer's way into [`hobnob_fuzz::discovery`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hobnob_fuzz::discovery::run(data));

//! libFuzzer's way into [`hobnob_fuzz::fragment`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hobnob_fuzz::fragment::run(data));

//! libFuzzer's way into [`hobnob_fuzz::frame`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hobnob_fuzz::frame::run(data));

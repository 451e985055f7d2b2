//! libFuzzer's way into [`hobnob_fuzz::session`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hobnob_fuzz::session::run(data));

//! libFuzzer's way into [`hobnob_fuzz::entry`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hobnob_fuzz::entry::run(data));

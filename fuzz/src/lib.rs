//! Entry points for bytes that strangers choose. Each takes any bytes, and panics where something is not as it must be:
//! libFuzzer looks for such bytes, and `crates/proto/tests/fuzz_corpus.rs` runs those that are kept, on any compiler.
//!
//! An entry point reads no clock and draws nothing: the same bytes do the same again.

pub mod discovery;
pub mod entry;
pub mod fragment;
pub mod frame;
pub mod greeting;
mod script;
pub mod session;

/// An entry point.
pub type Run = fn(&[u8]);

/// All of them, by the names of their corpora.
pub const ALL: [(&str, Run); 6] = [
    ("discovery", discovery::run),
    ("entry", entry::run),
    ("fragment", fragment::run),
    ("frame", frame::run),
    ("greeting", greeting::run),
    ("session", session::run),
];

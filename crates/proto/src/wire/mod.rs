//! What goes over the wire: packets, the frames in them, and fragments of frames that are too large.

mod beat_line;
pub mod fragment;
pub mod frame;
pub mod greeting;
pub mod import;
mod lines;
pub mod number;
pub mod packet;
mod read;
mod reader;
mod records;
pub mod then;
pub mod vectors;

pub use frame::Frame;
pub use greeting::Greeting;

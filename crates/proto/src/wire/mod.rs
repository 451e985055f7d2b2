//! What goes over the wire: packets, the frames in them, and fragments of frames that are too large.

pub mod fragment;
pub mod frame;
pub mod greeting;
pub mod import;
pub mod number;
pub mod packet;
mod records;
pub mod then;
pub mod vectors;

pub use frame::Frame;
pub use greeting::Greeting;

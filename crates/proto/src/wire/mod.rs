//! What goes over the wire: packets, the frames in them, and fragments of frames that are too large.

pub mod frame;

pub use frame::Frame;

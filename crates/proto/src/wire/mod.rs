//! What goes over the wire: packets, the frames in them, and fragments of frames that are too large.

pub mod fragment;
pub mod frame;
pub mod packet;

pub use frame::Frame;

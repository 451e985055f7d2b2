//! Delivery: how entries of a room get to whoever follows it.

pub mod receiver;

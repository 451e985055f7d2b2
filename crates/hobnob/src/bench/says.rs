//! What all clients of the bench say alike.

use std::time::Duration;

use hobnob_proto::{
    hlc::Hlc,
    ids::{DeviceId, PersonName, RoomName},
    log::entry::MESSAGE,
    wire::{
        Frame,
        frame::{Hi, Post},
    },
};

/// What is not answered is said again after this.
pub(super) const AGAIN: Duration = Duration::from_millis(500);

/// Who it is: `tag` tells it from others. `session` is the number of its hi.
pub(super) fn hi(tag: &str, device: DeviceId, session: u64) -> Frame {
    let name: PersonName = format!("bench{tag}").parse().expect("letters and digits are a name");
    Frame::Hi(Hi { name, device, session, via: "bench".to_owned(), movable: false, standby: None })
}

/// A message; all below `oldest` are settled.
pub(super) fn post(room: &RoomName, (seq, oldest): (u64, u64), body: &str) -> Frame {
    Frame::Post(Post {
        room: room.clone(),
        seq,
        oldest,
        shown: Hlc::default(),
        kind: MESSAGE.to_owned(),
        body: body.to_owned(),
        detour: 0,
        author: None,
    })
}

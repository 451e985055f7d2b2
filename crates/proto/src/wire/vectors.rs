//! Version vectors in frames: split so that each frame fits a packet.

use std::cmp::Reverse;

use sha2::{Digest as _, Sha256};

use super::frame::{Fence, Frame, Vectors};
use crate::{
    ids::{Origin, RoomName},
    limits,
    log::VersionVector,
};

/// Bytes of a frame around its vectors.
const FRAME_BYTES: usize = 40;
/// Bytes of a join or of its answer around the vectors: a room's name may take 128 bytes twice over.
const JOIN_BYTES: usize = 300;
/// Bytes of a handoff around its vector: there is a fence too.
const HANDOFF_BYTES: usize = 500;

/// Bytes of one origin's part of a vector in JSON: `"id.boot":seq,`.
fn part_bytes(origin: Origin, seq: u64) -> usize {
    origin.to_string().len() + seq.to_string().len() + 4
}

/// The answer to a join: [`Frame::Joined`] as often as it takes, at least once. Each names some origins with both their
/// start and their head, so that whoever has heard of all origins knows all.
pub fn joined(room: &RoomName, start: &VersionVector, heads: &VersionVector) -> Vec<Frame> {
    let origins = u32::try_from(heads.origins()).unwrap_or(u32::MAX);
    let parts = parts(start, heads, JOIN_BYTES).into_iter();
    parts.map(|(start, heads)| Frame::Joined { room: room.clone(), start, heads, origins }).collect()
}

/// What a home tells the next: [`Frame::Handoff`] as often as it takes, at least once. Whoever has heard of all origins
/// knows all.
pub fn handoff(room: &RoomName, fence: Fence, heads: &VersionVector) -> Vec<Frame> {
    let origins = u32::try_from(heads.origins()).unwrap_or(u32::MAX);
    let parts = parts(&VersionVector::default(), heads, HANDOFF_BYTES).into_iter();
    parts.map(|(_, heads)| Frame::Handoff { room: room.clone(), fence, heads, origins }).collect()
}

/// Two vectors in parts, at least one, that each leave so many bytes of a frame for what stands around them. A part has the
/// same origins in both.
fn parts(start: &VersionVector, heads: &VersionVector, around: usize) -> Vec<(VersionVector, VersionVector)> {
    let mut parts = vec![(VersionVector::default(), VersionVector::default())];
    let mut bytes = around;
    for (origin, head) in heads.iter() {
        let first = start.get(origin);
        let cost = part_bytes(origin, head) + if first > 0 { part_bytes(origin, first) } else { 0 };
        if bytes + cost > limits::FRAME_BYTES_MAX {
            parts.push(<_>::default());
            bytes = around;
        }
        bytes += cost;
        if let Some((start, heads)) = parts.last_mut() {
            start.raise(origin, first);
            heads.raise(origin, head);
        }
    }
    parts
}

/// As much of a vector as fits a join. What a join leaves out comes again, and is known for what it is; so the largest
/// parts go first.
pub fn fitting(vector: &VersionVector) -> VersionVector {
    let mut parts: Vec<_> = vector.iter().collect();
    parts.sort_unstable_by_key(|(origin, seq)| (Reverse(*seq), *origin));
    let mut left = limits::FRAME_BYTES_MAX - JOIN_BYTES;
    let fits = |(origin, seq): &(Origin, u64)| {
        let cost = part_bytes(*origin, *seq);
        let fits = cost <= left;
        left = left.saturating_sub(cost);
        fits
    };
    parts.into_iter().take_while(fits).collect()
}

/// Lines of frames that say all these vectors. One that is too long for a frame goes over several, each a part of it:
/// whoever hears them takes the higher for each origin.
pub fn lines(
    vectors: impl IntoIterator<Item = (RoomName, VersionVector)>,
    wrap: impl Fn(Vectors) -> Frame,
) -> Vec<String> {
    let (mut lines, mut rooms, mut bytes) = (Vec::new(), Vectors::new(), FRAME_BYTES);
    let mut full = |rooms: &mut Vectors| lines.push(wrap(std::mem::take(rooms)).to_line());
    for (name, vector) in vectors {
        // A character of a name may need an escape.
        let name_bytes = 2 * name.as_str().len() + 8;
        if bytes + name_bytes > limits::FRAME_BYTES_MAX && !rooms.is_empty() {
            full(&mut rooms);
            bytes = FRAME_BYTES;
        }
        bytes += name_bytes;
        rooms.insert(name.clone(), VersionVector::default());
        for (origin, seq) in vector.iter() {
            let part = part_bytes(origin, seq);
            if bytes + part > limits::FRAME_BYTES_MAX {
                full(&mut rooms);
                bytes = FRAME_BYTES + name_bytes;
            }
            bytes += part;
            rooms.entry(name.clone()).or_default().raise(origin, seq);
        }
    }
    if !rooms.is_empty() {
        full(&mut rooms);
    }
    lines
}

/// 53 bits that stand for a room and what is held of it.
pub fn digest(name: &RoomName, held: &VersionVector) -> u64 {
    let mut hash = Sha256::new();
    hash.update(name.as_str());
    for (origin, seq) in held.iter() {
        hash.update(origin.id.0.to_be_bytes());
        hash.update(origin.boot.0.to_be_bytes());
        hash.update(seq.to_be_bytes());
    }
    let mut first = [0; 8];
    first.copy_from_slice(&hash.finalize()[..8]);
    u64::from_be_bytes(first) >> 11
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ids::{Boot, ServerId},
        wire::frame::Epoch,
    };

    fn origin(boot: u64) -> Origin {
        Origin { id: ServerId(16), boot: Boot((1 << 52) - boot - 1) }
    }

    #[test]
    fn vectors_of_any_length_go_in_lines_that_fit() {
        fn check(rooms: u64, origins: u64, expected: usize) {
            let vector: VersionVector = (0..origins).map(|boot| (origin(boot), 1 << 40)).collect();
            let names = (0..rooms).map(|n| format!("{n}{}", "\"".repeat(29)).parse::<RoomName>().unwrap());
            let lines = lines(names.map(|name| (name, vector.clone())), |rooms| Frame::Cursor { rooms });
            let mut told = Vectors::new();
            for line in &lines {
                assert!(line.len() <= limits::FRAME_BYTES_MAX, "{line}");
                let Some(Frame::Cursor { rooms }) = Frame::from_line(line.as_bytes()) else { panic!("{line}") };
                for (room, part) in rooms {
                    told.entry(room).or_default().merge(&part);
                }
            }
            assert!(told.len() as u64 == rooms && told.values().all(|part| *part == vector));
            assert_eq!(lines.len(), expected, "{rooms} rooms, {origins} origins");
        }
        check(0, 0, 0);
        check(1, 3, 1);
        check(1, 300, 10);
        check(20, 0, 2);
        check(20, 1, 2);
    }

    #[test]
    fn what_fits_are_the_largest_parts() {
        let vector: VersionVector = (1..200).map(|boot| (origin(boot), boot)).collect();
        let part = fitting(&vector);
        assert!(
            part.origins() > 20 && serde_json::to_string(&part).unwrap().len() < limits::FRAME_BYTES_MAX - JOIN_BYTES
        );
        assert_eq!(part.get(origin(199)), 199);
    }

    #[test]
    fn the_answer_to_a_join_names_every_origin_in_frames_that_fit() {
        fn check(origins: u64, started: bool, expected: usize) {
            let name: RoomName = format!("x{}", "\"".repeat(limits::NAME_CHARS_MAX - 1)).parse().unwrap();
            let heads: VersionVector = (0..origins).map(|boot| (origin(boot), u64::MAX - boot)).collect();
            let start = if started { heads.clone() } else { VersionVector::default() };
            let frames = joined(&name, &start, &heads);
            assert_eq!(frames.len(), expected, "{origins} origins");
            let mut told = (VersionVector::default(), VersionVector::default());
            for frame in frames {
                let line = frame.to_line();
                assert!(line.len() <= limits::FRAME_BYTES_MAX, "{line}");
                let Frame::Joined { room, start, heads, origins: count } = frame else { panic!("{line}") };
                assert_eq!((room, u64::from(count)), (name.clone(), origins));
                told.0.merge(&start);
                told.1.merge(&heads);
            }
            assert_eq!(told, (start, heads));
        }
        check(0, true, 1);
        check(19, false, 1);
        check(40, true, 4);
        check(1_000, false, 50);
    }

    #[test]
    fn a_handoff_names_every_origin_in_frames_that_fit() {
        let name: RoomName = format!("x{}", "\"".repeat(limits::NAME_CHARS_MAX - 1)).parse().unwrap();
        let leader = Epoch { term: u64::MAX >> 11, leader: ServerId(u32::MAX), boot: Boot((1 << 52) - 1) };
        let fence = Fence { epoch: leader, n: u64::MAX >> 11, home: origin(0) };
        for origins in [0, 10, 1_000] {
            let heads: VersionVector = (0..origins).map(|boot| (origin(boot), u64::MAX - boot)).collect();
            let mut told = VersionVector::default();
            for frame in handoff(&name, fence, &heads) {
                let line = frame.to_line();
                assert!(line.len() <= limits::FRAME_BYTES_MAX, "{line}");
                let Frame::Handoff { room, heads, origins: count, .. } = frame else { panic!("{line}") };
                assert_eq!((room, u64::from(count)), (name.clone(), origins));
                told.merge(&heads);
            }
            assert_eq!(told, heads);
        }
    }
}

//! Lists as several frames that each stand alone.

use serde::Serialize;

use crate::limits;

/// Bytes that a frame needs around its list, at the longest: type, epoch, version and number of the part.
pub(super) const AROUND_BYTES: usize = 200;
/// Bytes that one item may have, so that it fits a frame by itself.
pub(super) const ITEM_BYTES_MAX: usize = limits::FRAME_BYTES_MAX - AROUND_BYTES;

/// Bytes that an item takes in a list, its comma included.
pub(super) fn item_bytes(item: &impl Serialize) -> usize {
    serde_json::to_vec(item).expect("items have string keys and no failing parts").len() + 1
}

/// `items` in their order, as lists that each fit a frame. At least one list, so that "nothing" can be said too; an
/// item that fits no frame is left out.
pub(super) fn chunks<T: Serialize>(items: impl IntoIterator<Item = T>) -> Vec<Vec<T>> {
    let (mut chunks, mut used) = (vec![Vec::new()], 0);
    for item in items {
        let bytes = item_bytes(&item);
        if bytes > ITEM_BYTES_MAX {
            debug_assert!(false, "what enters the directory fits a frame");
            continue;
        }
        if used + bytes > ITEM_BYTES_MAX {
            chunks.push(Vec::new());
            used = 0;
        }
        used += bytes;
        if let Some(last) = chunks.last_mut() {
            last.push(item);
        }
    }
    chunks
}

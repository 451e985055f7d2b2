//! Numbers as they come in: JSON carries no integer of 2^53 or more in this protocol (RFC 8259, section 6: larger ones do
//! not survive every reader). So nothing that a stranger says can make a sum of a few such numbers overflow.
//!
//! For `#[serde(deserialize_with = "..")]`. A number beyond its bound makes the whole frame unreadable.

use serde::{Deserialize, Deserializer, de::Error as _};

use crate::{ids::Origin, wire::import::Outcome};

/// All integers in JSON are below this.
pub const BOUND: u64 = 1 << 53;
/// All boots are below this.
pub const BOOT_BOUND: u64 = 1 << 52;
/// Parts of a list are numbered below this; a list of all rooms or clients has fewer.
const PARTS_MAX: u32 = 1 << 16;

/// Whether it need not be said. For `#[serde(skip_serializing_if = "..")]`.
pub fn is_zero<N: Default + PartialEq>(number: &N) -> bool {
    *number == N::default()
}

/// A number below `bound`.
pub fn below<'de, D: Deserializer<'de>>(deserializer: D, bound: u64) -> Result<u64, D::Error> {
    let number = u64::deserialize(deserializer)?;
    if number < bound { Ok(number) } else { Err(D::Error::custom("this number is too large")) }
}

/// A number below [`BOUND`].
pub fn safe<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    below(deserializer, BOUND)
}

/// A boot, below [`BOOT_BOUND`].
pub fn boot<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    below(deserializer, BOOT_BOUND)
}

/// The number of a part.
pub fn part<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let part = u32::deserialize(deserializer)?;
    if part < PARTS_MAX { Ok(part) } else { Err(D::Error::custom("no list has so many parts")) }
}

/// Ranges of a log: origin, first seq, last seq.
pub fn ranges<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(Origin, u64, u64)>, D::Error> {
    let ranges = Vec::<(Origin, Safe, Safe)>::deserialize(deserializer)?;
    Ok(ranges.into_iter().map(|(origin, first, last)| (origin, first.0, last.0)).collect())
}

/// Spans of lines of an import: first, last, and what became of them.
pub fn spans<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(u64, u64, Outcome)>, D::Error> {
    let spans = Vec::<(Safe, Safe, Outcome)>::deserialize(deserializer)?;
    Ok(spans.into_iter().map(|(first, last, outcome)| (first.0, last.0, outcome)).collect())
}

/// A number below [`BOUND`], where there is no field to say so at.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(transparent)]
pub struct Safe(#[serde(deserialize_with = "safe")] pub u64);

#[cfg(test)]
mod tests {
    use crate::{hlc::Hlc, ids::Boot, log::VersionVector, wire::Frame};

    #[test]
    fn a_number_that_is_too_large_makes_a_frame_unreadable() {
        fn check(line: &str, bound: u64) {
            let says = |n: u64| Frame::from_line(line.replace('N', &n.to_string()).as_bytes()).is_some();
            assert!(says(0) && says(bound - 1), "{line}");
            assert!(!says(bound) && !says(u64::MAX), "{line}");
        }
        let safe = 1 << 53;
        check(r#"{"t":"ping","n":N}"#, safe);
        check(r#"{"t":"join","room":"a","from":{"since":N}}"#, safe);
        check(r#"{"t":"pull","room":"a","id":1,"want":[[[1,1],1,N]],"max":1}"#, safe);
        check(r#"{"t":"post","room":"a","seq":N,"oldest":1,"kind":"message","body":""}"#, safe);
        check(r#"{"t":"post","room":"a","seq":1,"oldest":N,"kind":"message","body":""}"#, safe);
        check(r#"{"t":"import","n":N,"what":{"room":"a"}}"#, safe);
        check(r#"{"t":"import","n":1,"what":{"room":"a"},"floor":N}"#, safe);
        check(r#"{"t":"imported","lines":[[N,1,"kept"]]}"#, safe);
        check(r#"{"t":"imported","lines":[[1,N,"kept"]]}"#, safe);
        check(r#"{"t":"cursor","rooms":{"a":{"1.1":N}}}"#, safe);
        check(r#"{"t":"cursor","rooms":{"a":{"1.N":1}}}"#, 1 << 52);
        check(r#"{"t":"election","say":"election","term":N}"#, safe);
        check(r#"{"t":"election","say":"coordinator","epoch":{"term":N,"leader":1,"boot":1}}"#, safe);
        check(r#"{"t":"election","say":"coordinator","epoch":{"term":1,"leader":1,"boot":N}}"#, 1 << 52);
        let sync_rep = r#"{"t":"sync_rep","epoch":{"term":1,"leader":1,"boot":1},"part":N,"last":true,"rooms":[]}"#;
        check(sync_rep, 1 << 16);
        check(r#"{"t":"clients","version":1,"change":"all","part":N,"last":true,"clients":[]}"#, 1 << 16);
        check(r#"{"t":"clients","version":N,"change":"all","part":0,"last":true,"clients":[]}"#, safe);
        check(r#"{"t":"fragment","of":{"post":["a",N]},"at":0,"len":1,"sum":1,"piece":"a"}"#, safe);
    }

    #[test]
    fn a_timestamp_has_room_for_later_ones() {
        let last = (1_u64 << 53) - (1 << 20) - 1;
        assert!(serde_json::from_str::<Hlc>(&format!("[{last},{}]", u32::MAX)).is_ok());
        assert!(serde_json::from_str::<Hlc>(&format!("[{},0]", last + 1)).is_err());
        assert!(serde_json::from_str::<Boot>("4503599627370496").is_err());
        assert!(serde_json::from_str::<VersionVector>(r#"{"1.1":9007199254740992}"#).is_err());
    }
}

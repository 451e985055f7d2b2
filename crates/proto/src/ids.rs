//! Names of things: servers, boots, clusters, people, devices and rooms, each a type of its own.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::{limits, rng::Rng, text, wire::number};

/// A server's id, from 1: what `--id` says, and what the Bully election compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ServerId(pub u32);

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One run of a server: 32 bits of seconds and 20 random bits, so it is new at each start and never repeated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Boot(#[serde(deserialize_with = "number::boot")] pub u64);

impl Boot {
    /// A boot at `wall_secs` seconds since 1970 (whatever the clock says), later than `last`.
    pub fn new(wall_secs: u64, last: Option<Self>, rng: &mut Rng) -> Self {
        let secs = last.map_or(wall_secs, |last| wall_secs.max((last.0 >> 20) + 1));
        Self((secs & 0xffff_ffff) << 20 | u64::from(rng.u32() & 0xf_ffff))
    }
}

/// A single writer of log entries: a server in one of its boots. On the wire `[id, boot]`, as a key `"id.boot"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// Which server.
    pub id: ServerId,
    /// Which of its runs.
    pub boot: Boot,
}

impl Origin {
    /// Before every origin.
    pub const MIN: Self = Self { id: ServerId(0), boot: Boot(0) };
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.id.0, self.boot.0)
    }
}

impl FromStr for Origin {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let (id, boot) = text.split_once('.').ok_or(InvalidId)?;
        let (id, boot) = (id.parse().map_err(|_| InvalidId)?, boot.parse().map_err(|_| InvalidId)?);
        if boot >= number::BOOT_BOUND {
            return Err(InvalidId);
        }
        Ok(Self { id: ServerId(id), boot: Boot(boot) })
    }
}

impl Serialize for Origin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.id, self.boot).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Origin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (id, boot) = <(ServerId, Boot)>::deserialize(deserializer)?;
        Ok(Self { id, boot })
    }
}

/// A text that is no id.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("this is not an id")]
pub struct InvalidId;

/// Implements text forms (`Display`, `FromStr`, serde) over a pair of functions.
macro_rules! text_id {
    ($name:ident, $show:expr, $read:expr) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&$show(self.0))
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                $read(text).map(Self).ok_or(InvalidId)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                std::borrow::Cow::<str>::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }
    };
}

/// A cluster's id: 128 random bits, made by its first server. As text 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClusterId(pub u128);
text_id!(ClusterId, |id| format!("{id:032x}"), |text: &str| (text.len() == 32)
    .then(|| u128::from_str_radix(text, 16).ok())
    .flatten());

/// A person: the first 128 bits of the SHA-256 of their public key. As text 22 characters of base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PersonId(pub [u8; 16]);
text_id!(PersonId, |id: [u8; 16]| text::encode(&id), text::decode);

/// A running client process of a person: 64 random bits. As text 11 characters of base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeviceId(pub u64);
text_id!(DeviceId, |id: u64| text::encode(&id.to_be_bytes()), |text| text::decode(text).map(u64::from_be_bytes));

/// Why a name of a room, a person or a cluster cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// Nothing is left once spaces (and a leading `#`) are dropped, or quotation marks alone.
    #[error("it is empty: type at least one character")]
    Empty,
    /// It has more characters than [`limits::NAME_CHARS_MAX`].
    #[error("it is too long: use at most {} characters", limits::NAME_CHARS_MAX)]
    TooLong,
    /// It has control characters or spaces.
    #[error("it has a space, a comma or a control character in it: use letters, digits, - and _")]
    BadCharacter,
}

/// Defines a validated name.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $clean:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub struct $name(std::sync::Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, InvalidName> {
                let clean: fn(&str) -> &str = $clean;
                let text = clean(text.trim());
                if text.chars().all(|c| matches!(c, '"' | '\'')) {
                    Err(InvalidName::Empty)
                } else if text.chars().count() > limits::NAME_CHARS_MAX {
                    Err(InvalidName::TooLong)
                } else if text.chars().any(|c| c.is_control() || c.is_whitespace() || c == ',') {
                    Err(InvalidName::BadCharacter)
                } else {
                    Ok(Self(text.into()))
                }
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                std::borrow::Cow::<str>::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }
    };
}

name! {
    /// A room's name, without the leading `#` that people like to type.
    RoomName, |text| text.strip_prefix('#').unwrap_or(text)
}
name! {
    /// The name that a person is shown under.
    PersonName, |text| text
}
name! {
    /// A cluster's name for people.
    ClusterName, |text| text
}

impl RoomName {
    /// The room that always exists, where a bare start lands.
    pub fn lobby() -> Self {
        Self("lobby".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_is_later_than_the_last_even_if_the_clock_stands_still() {
        let mut rng = Rng::from_seed([0; 32]);
        let first = Boot::new(1_000, None, &mut rng);
        let second = Boot::new(0, Some(first), &mut rng);
        assert!(second > first);
        assert!(second.0 < 1 << 52);
    }

    #[test]
    fn names_say_what_is_wrong_with_them() {
        fn check(text: &str, expected: Result<&str, InvalidName>) {
            let name = text.parse::<RoomName>();
            assert_eq!(name.as_ref().map(RoomName::as_str).map_err(|why| *why), expected, "{text:?}");
        }
        check("#tea", Ok("tea"));
        check(" tea ", Ok("tea"));
        check("", Err(InvalidName::Empty));
        check("\"\"", Err(InvalidName::Empty));
        check("#", Err(InvalidName::Empty));
        check(&"x".repeat(33), Err(InvalidName::TooLong));
        check("a b", Err(InvalidName::BadCharacter));
        check("a\u{7}b", Err(InvalidName::BadCharacter));
    }

    #[test]
    fn ids_survive_their_text() {
        fn check<T: FromStr + ToString + PartialEq + fmt::Debug>(id: &T) {
            assert_eq!(id.to_string().parse::<T>().ok().as_ref(), Some(id));
        }
        check(&ClusterId(7));
        check(&PersonId([9; 16]));
        check(&DeviceId(u64::MAX));
        check(&Origin { id: ServerId(3), boot: Boot(1 << 51) });
    }
}

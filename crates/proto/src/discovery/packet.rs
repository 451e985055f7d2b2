//! The datagrams of discovery: HELLO, FIND and HERE, each one JSON object.
//!
//! ```text
//! {"hobnob":1,"t":"hello","cluster":"<32 hex>","name":"hobnob","id":1,"boot":..,"port":5001,"key":"<base64>",
//!  "open":true,"empty":true,"age":12,"servers":3,"suite":"aesgcm","ids":[1,2],"nonce":"..","pad":"..","tag":".."}
//! {"hobnob":1,"t":"find","name":"hobnob","nonce":"..","pad":".."}
//! {"hobnob":1,"t":"here", the facts of a hello ,"nonce":"<of the find>","tag":".."}
//! ```
//!
//! The tag is HMAC-SHA256, cut to 16 bytes, over all that stands before `,"tag":"`, under
//! [`discovery_key`](crate::session::keys::discovery_key); it is the last field and nothing may follow it. A tag proves
//! that the sender knows the secret (of an open cluster: the name) and no more: it may be a replay. What asks is padded
//! to [`BYTES`], and no answer is longer, so that nobody can use a server to flood somebody else.

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::{
    ids::{Boot, ClusterId, ClusterName, ServerId},
    limits,
    rng::Rng,
    session::keys::Suite,
    text,
};

/// Bytes of every HELLO and FIND; no HERE is longer.
pub const BYTES: usize = 600;
/// The version of the protocol that this is.
pub const VERSION: u32 = 1;
/// Seconds at which the age of a cluster stops to be counted: older is older.
pub const AGE_SECS_MAX: u32 = 3_600;
/// Ids of members that a packet names at most; the lowest, since the lowest free one is what a newcomer looks for.
pub const IDS_MAX: usize = 64;

/// How a HELLO of [`VERSION`] begins that we write.
const HELLO_START: &[u8] = br#"{"hobnob":1,"t":"hello","#;
/// What stands before the tag.
const TAG_FIELD: &[u8] = b",\"tag\":\"";
/// What stands after the tag.
const TAG_END: &[u8] = b"\"}";
/// Characters of a tag: 16 bytes in base64.
const TAG_CHARS: usize = 22;

/// What a server tells of itself and its cluster. Of a server that was heard: claims, until a session has proved them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Its cluster.
    pub cluster: ClusterId,
    /// The cluster's name for people.
    pub name: ClusterName,
    /// Its id; `None` while it has not chosen one.
    pub id: Option<ServerId>,
    /// Its boot.
    pub boot: Boot,
    /// The port of its session socket.
    pub port: u16,
    /// The public key of its cluster.
    pub key: [u8; 32],
    /// Whether the cluster has no secret.
    pub open: bool,
    /// Whether its log holds no entry of a person.
    pub empty: bool,
    /// Seconds since its cluster was founded, at most [`AGE_SECS_MAX`].
    pub age_secs: u32,
    /// How many servers are up, as far as it hears.
    pub servers: u32,
    /// The suite that it would rather have.
    pub suite: Suite,
    /// Ids of members, up or down.
    pub ids: Vec<ServerId>,
}

/// Ties an answer to its question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nonce(pub [u8; 8]);

impl Nonce {
    /// A new one.
    pub fn random(rng: &mut Rng) -> Self {
        let mut bytes = [0; 8];
        rng.fill(&mut bytes);
        Self(bytes)
    }
}

/// A datagram of discovery that was understood. Its tag has not been looked at: see [`verify`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    /// A server tells of itself.
    Hello {
        /// What it says.
        facts: Facts,
    },
    /// Somebody looks for servers.
    Find {
        /// The cluster that it looks for, where it has one in mind.
        name: Option<ClusterName>,
        /// To be echoed.
        nonce: Nonce,
    },
    /// A server answers [`Packet::Find`].
    Here {
        /// What it says.
        facts: Facts,
        /// Of the question.
        nonce: Nonce,
    },
}

/// Why a datagram was dropped. Nothing was changed by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It has more bytes than a datagram of ours ever has.
    #[error("the datagram is too long")]
    Long,
    /// It is not JSON, or a field is missing or out of its bounds.
    #[error("the datagram is not JSON of the right shape")]
    Json,
    /// It is of another version of the protocol.
    #[error("the datagram is of another version")]
    Version,
    /// Its type is unknown.
    #[error("the datagram is of an unknown type")]
    Type,
    /// Its tag is not one of our secret.
    #[error("the datagram has another secret's tag")]
    Tag,
    /// It answers a question that was not asked.
    #[error("the datagram answers nothing that was asked")]
    Nonce,
}

impl Error {
    /// The name of its counter in `status`.
    pub const fn counter(self) -> &'static str {
        match self {
            Self::Long => "discovery_long",
            Self::Json => "discovery_json",
            Self::Version => "discovery_version",
            Self::Type => "discovery_type",
            Self::Tag => "discovery_tag",
            Self::Nonce => "discovery_nonce",
        }
    }
}

/// Whether a datagram claims to be of discovery, and not of a session: its first byte is `{`.
pub fn is_discovery(datagram: &[u8]) -> bool {
    datagram.first() == Some(&b'{')
}

/// A HELLO of [`BYTES`] bytes, tagged under `key`.
pub fn hello(facts: &Facts, nonce: Nonce, key: &[u8; 32]) -> Vec<u8> {
    tell("hello", facts, nonce, key, true)
}

/// A HERE of at most [`BYTES`] bytes, tagged under `key`. `nonce` is that of the FIND.
pub fn here(facts: &Facts, nonce: Nonce, key: &[u8; 32]) -> Vec<u8> {
    tell("here", facts, nonce, key, false)
}

/// A FIND of [`BYTES`] bytes. It has no tag: whoever looks for a cluster may not have its secret.
pub fn find(name: Option<&ClusterName>, nonce: Nonce) -> Vec<u8> {
    let nonce = text::encode(&nonce.0);
    let mut wire = WireFind { hobnob: VERSION, t: "find", name, nonce: &nonce, pad: String::new() };
    let unpadded = to_json(&wire).len();
    wire.pad = " ".repeat(BYTES.saturating_sub(unpadded));
    to_json(&wire)
}

/// Understands a datagram. The tag is not looked at, so that a client can list clusters that it cannot prove.
pub fn parse(datagram: &[u8]) -> Result<Packet, Error> {
    if datagram.len() > limits::DATAGRAM_BYTES_MAX {
        return Err(Error::Long);
    }
    // As we write it, and all that is heard again and again: read once, and not twice.
    if datagram.starts_with(HELLO_START) {
        return Ok(Packet::Hello { facts: parse_facts(datagram)?.0 });
    }
    let head: Head = serde_json::from_slice(datagram).map_err(|_| Error::Json)?;
    if head.hobnob != VERSION {
        return Err(Error::Version);
    }
    match &*head.t {
        "hello" => Ok(Packet::Hello { facts: parse_facts(datagram)?.0 }),
        "here" => parse_facts(datagram).map(|(facts, nonce)| Packet::Here { facts, nonce }),
        "find" => {
            let find: HeardFind = serde_json::from_slice(datagram).map_err(|_| Error::Json)?;
            Ok(Packet::Find { name: find.name, nonce: parse_nonce(&find.nonce)? })
        }
        _ => Err(Error::Type),
    }
}

/// Whether a HELLO or a HERE has the tag that `key` makes.
pub fn verify(datagram: &[u8], key: &[u8; 32]) -> bool {
    // The tag has a fixed length and ends the datagram: so no field can be smuggled in behind what it covers.
    let Some(at) = datagram.len().checked_sub(TAG_FIELD.len() + TAG_CHARS + TAG_END.len()) else { return false };
    let (told, rest) = datagram.split_at(at);
    let Some(tag) = rest.strip_prefix(TAG_FIELD).and_then(|rest| rest.strip_suffix(TAG_END)) else { return false };
    let Some(tag) = std::str::from_utf8(tag).ok().and_then(text::decode::<16>) else { return false };
    mac(told, key).verify_truncated_left(&tag).is_ok()
}

/// The fields that tell what the others are.
#[derive(Deserialize)]
struct Head {
    hobnob: u32,
    t: String,
}

#[derive(Serialize)]
struct WireFind<'a> {
    hobnob: u32,
    t: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a ClusterName>,
    nonce: &'a str,
    pad: String,
}

#[derive(Deserialize)]
struct HeardFind {
    #[serde(default)]
    name: Option<ClusterName>,
    nonce: String,
}

#[derive(Serialize)]
struct WireFacts<'a> {
    hobnob: u32,
    t: &'static str,
    cluster: ClusterId,
    name: &'a ClusterName,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<ServerId>,
    boot: Boot,
    port: u16,
    key: String,
    open: bool,
    empty: bool,
    age: u32,
    servers: u32,
    suite: Suite,
    ids: &'a [ServerId],
    nonce: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pad: Option<String>,
}

#[derive(Deserialize)]
struct HeardFacts {
    cluster: ClusterId,
    name: ClusterName,
    #[serde(default)]
    id: Option<ServerId>,
    boot: Boot,
    port: u16,
    key: String,
    open: bool,
    empty: bool,
    age: u32,
    servers: u32,
    suite: Suite,
    #[serde(default)]
    ids: Vec<ServerId>,
    nonce: String,
}

/// Facts as a tagged datagram; as many ids as fit.
fn tell(t: &'static str, facts: &Facts, nonce: Nonce, key: &[u8; 32], padded: bool) -> Vec<u8> {
    let mut ids = facts.ids.clone();
    ids.sort_unstable();
    ids.truncate(IDS_MAX);
    loop {
        let mut wire = WireFacts {
            hobnob: VERSION,
            t,
            cluster: facts.cluster,
            name: &facts.name,
            id: facts.id,
            boot: facts.boot,
            port: facts.port,
            key: text::encode(&facts.key),
            open: facts.open,
            empty: facts.empty,
            age: facts.age_secs.min(AGE_SECS_MAX),
            servers: facts.servers,
            suite: facts.suite,
            ids: &ids,
            nonce: text::encode(&nonce.0),
            pad: padded.then(String::new),
        };
        let unpadded = seal(to_json(&wire), key);
        if unpadded.len() > BYTES {
            // All but the ids fits at its longest, so this ends.
            ids.pop().expect("the facts without ids fit");
        } else if padded {
            wire.pad = Some(" ".repeat(BYTES - unpadded.len()));
            return seal(to_json(&wire), key);
        } else {
            return unpadded;
        }
    }
}

/// Puts the tag at the end of a JSON object.
fn seal(mut json: Vec<u8>, key: &[u8; 32]) -> Vec<u8> {
    json.pop();
    let tag = mac(&json, key).finalize().into_bytes();
    json.extend_from_slice(TAG_FIELD);
    json.extend_from_slice(text::encode(&tag[..16]).as_bytes());
    json.extend_from_slice(TAG_END);
    json
}

fn mac(told: &[u8], key: &[u8; 32]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(told);
    mac
}

fn to_json(wire: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(wire).expect("the structs of this file have string keys and no failing parts")
}

fn parse_nonce(text: &str) -> Result<Nonce, Error> {
    text::decode(text).map(Nonce).ok_or(Error::Json)
}

fn parse_facts(datagram: &[u8]) -> Result<(Facts, Nonce), Error> {
    let heard: HeardFacts = serde_json::from_slice(datagram).map_err(|_| Error::Json)?;
    let nonce = parse_nonce(&heard.nonce)?;
    let key = text::decode(&heard.key).ok_or(Error::Json)?;
    let no_id = |id: ServerId| id.0 == 0;
    if heard.port == 0 || heard.id.is_some_and(no_id) || heard.ids.len() > IDS_MAX {
        return Err(Error::Json);
    }
    let facts = Facts {
        cluster: heard.cluster,
        name: heard.name,
        id: heard.id,
        boot: heard.boot,
        port: heard.port,
        key,
        open: heard.open,
        empty: heard.empty,
        age_secs: heard.age.min(AGE_SECS_MAX),
        servers: heard.servers,
        suite: heard.suite,
        ids: heard.ids,
    };
    Ok((facts, nonce))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: [u8; 32] = [7; 32];
    const NONCE: Nonce = Nonce([1, 2, 3, 4, 5, 6, 7, 8]);

    fn facts(name: &str, ids: u32) -> Facts {
        Facts {
            cluster: ClusterId(0xabc),
            name: name.parse().unwrap(),
            id: Some(ServerId(1)),
            boot: Boot((1 << 52) - 1),
            port: 5001,
            key: [9; 32],
            open: true,
            empty: false,
            age_secs: 12,
            servers: 3,
            suite: Suite::AesGcm,
            ids: (1..=ids).map(ServerId).collect(),
        }
    }

    #[test]
    fn a_hello_begins_as_it_is_looked_for() {
        assert!(hello(&facts("here", 3), NONCE, &KEY).starts_with(HELLO_START));
        assert!(HELLO_START.starts_with(format!("{{\"hobnob\":{VERSION},").as_bytes()));
    }

    #[test]
    fn what_is_told_is_understood() {
        let told = facts("hobnob", 3);
        assert_eq!(parse(&hello(&told, NONCE, &KEY)), Ok(Packet::Hello { facts: told.clone() }));
        assert_eq!(parse(&here(&told, NONCE, &KEY)), Ok(Packet::Here { facts: told.clone(), nonce: NONCE }));
        assert_eq!(parse(&find(None, NONCE)), Ok(Packet::Find { name: None, nonce: NONCE }));
        let starting = Facts { id: None, ..told };
        assert_eq!(parse(&hello(&starting, NONCE, &KEY)), Ok(Packet::Hello { facts: starting }));
        let name: ClusterName = "x".parse().unwrap();
        assert_eq!(parse(&find(Some(&name), NONCE)), Ok(Packet::Find { name: Some(name), nonce: NONCE }));
    }

    #[test]
    fn no_answer_is_longer_than_its_question() {
        let longest = "\u{10ffff}".repeat(limits::NAME_CHARS_MAX);
        let mut worst = facts(&longest, 0);
        worst.ids = (0..200).map(|n| ServerId(u32::MAX - n)).collect();
        worst.id = Some(ServerId(u32::MAX));
        worst.open = false;
        worst.port = u16::MAX;
        worst.servers = u32::MAX;
        worst.age_secs = u32::MAX;
        worst.suite = Suite::ChaChaPoly;
        assert!(here(&worst, NONCE, &KEY).len() <= BYTES);
        assert_eq!(hello(&worst, NONCE, &KEY).len(), BYTES);
        assert_eq!(hello(&facts("a", 0), NONCE, &KEY).len(), BYTES);
        assert_eq!(find(None, NONCE).len(), BYTES);
        assert_eq!(find(Some(&longest.parse().unwrap()), NONCE).len(), BYTES);
    }

    #[test]
    fn a_tag_covers_all_that_is_said() {
        let good = hello(&facts("hobnob", 3), NONCE, &KEY);
        assert!(verify(&good, &KEY));
        assert!(!verify(&good, &[8; 32]), "another secret");
        let text = String::from_utf8(good.clone()).unwrap();
        assert!(!verify(text.replace("5001", "5002").as_bytes(), &KEY), "another port");
        assert!(!verify(text.replace("\"}", "\",\"x\":1}").as_bytes(), &KEY), "a field behind the tag");
        assert!(!verify(&good[..good.len() - 1], &KEY), "cut short");
        assert!(!verify(&find(None, NONCE), &KEY), "no tag at all");
        assert!(!verify(b"", &KEY));
    }

    #[test]
    fn each_kind_of_rubbish_has_its_own_error() {
        fn check(datagram: &str, expected: Error) {
            assert_eq!(parse(datagram.as_bytes()), Err(expected), "{datagram}");
        }
        check("{", Error::Json);
        check("", Error::Json);
        check("{\"t\":\"find\"}", Error::Json);
        check("{\"hobnob\":1,\"t\":\"find\"}", Error::Json);
        check("{\"hobnob\":1,\"t\":\"find\",\"nonce\":\"short\"}", Error::Json);
        check("{\"hobnob\":2,\"t\":\"find\"}", Error::Version);
        check("{\"hobnob\":1,\"t\":\"shout\"}", Error::Type);
        check(&format!("{{\"hobnob\":1,{}", " ".repeat(limits::DATAGRAM_BYTES_MAX)), Error::Long);
        let ids = format!("\"ids\":[{}]", vec!["1"; IDS_MAX + 1].join(","));
        let good = String::from_utf8(here(&facts("hobnob", 0), NONCE, &KEY)).unwrap();
        check(&good.replace("\"ids\":[]", &ids), Error::Json);
        check(&good.replace("5001", "0"), Error::Json);
        check(&good.replace("\"id\":1", "\"id\":0"), Error::Json);
    }

    proptest! {
        #[test]
        fn random_datagrams_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..700)) {
            let _ = parse(&bytes);
            prop_assert!(!verify(&bytes, &KEY));
        }

        #[test]
        fn mutated_datagrams_never_pass(at in 0..BYTES, byte in any::<u8>(), cut in 0..BYTES) {
            let good = hello(&facts("hobnob", 3), NONCE, &KEY);
            let mut bad = good.clone();
            bad[at] = byte;
            bad.truncate(BYTES - cut);
            let _ = parse(&bad);
            prop_assert_eq!(verify(&bad, &KEY), bad == good);
        }
    }
}

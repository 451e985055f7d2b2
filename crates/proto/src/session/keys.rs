//! Keys and secrets.

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use snow::resolvers::{CryptoResolver as _, DefaultResolver};
use zeroize::Zeroizing;

use crate::{
    ids::{ClusterId, ClusterName, PersonId},
    planted::{self, Bug},
    rng::Rng,
    text,
};

/// How packets are sealed. Each side says what it would rather have; the initiator chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Suite {
    /// `Noise_IK_25519_AESGCM_SHA256`: where the processor has AES instructions.
    AesGcm,
    /// `Noise_IK_25519_ChaChaPoly_BLAKE2s`: everywhere else.
    ChaChaPoly,
}

/// An X25519 key pair.
#[derive(Clone)]
pub struct KeyPair {
    /// Kept to ourselves.
    pub private: Zeroizing<[u8; 32]>,
    /// Shown to everybody.
    pub public: [u8; 32],
}

impl KeyPair {
    /// A new random one.
    pub fn generate(rng: &mut Rng) -> Self {
        let mut private = Zeroizing::new([0; 32]);
        rng.fill(private.as_mut());
        Self::from_private(private)
    }

    /// The one with this private half.
    pub fn from_private(private: Zeroizing<[u8; 32]>) -> Self {
        let mut dh = DefaultResolver.resolve_dh(&snow::params::DHChoice::Curve25519).expect("snow has X25519");
        dh.set(private.as_ref());
        let mut public = [0; 32];
        public.copy_from_slice(dh.pubkey());
        Self { private, public }
    }

    /// Whom it stands for.
    pub fn person(&self) -> PersonId {
        person_id(&self.public)
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyPair").field("public", &text::encode(&self.public)).finish_non_exhaustive()
    }
}

/// The person whose public key this is.
pub fn person_id(public: &[u8; 32]) -> PersonId {
    let mut id = [0; 16];
    id.copy_from_slice(&Sha256::digest(public)[..16]);
    PersonId(id)
}

/// The secret of a closed cluster: 256 random bits, written as 43 characters of base64.
#[derive(Clone)]
pub struct Secret(Zeroizing<[u8; 32]>);

impl Secret {
    /// A new one.
    pub fn generate(rng: &mut Rng) -> Self {
        let mut bytes = Zeroizing::new([0; 32]);
        rng.fill(bytes.as_mut());
        Self(bytes)
    }

    /// The one that `hobnob secret` printed; `None` where the text is anything else.
    pub fn from_text(text: &str) -> Option<Self> {
        text::decode(text.trim()).map(|bytes| Self(Zeroizing::new(bytes)))
    }

    /// As `hobnob secret` prints it. The only way to see it.
    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(text::encode(self.0.as_ref()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The key pair that all servers of a cluster share. Closed: from its secret alone, so that clusters may be joined. Open:
/// from its name and id, which anybody can do.
pub fn cluster_key(secret: Option<&Secret>, name: &ClusterName, cluster: ClusterId) -> KeyPair {
    let private = match secret.filter(|_| !planted::is(Bug::SecretIgnored)) {
        Some(secret) => derive(secret.0.as_ref(), "hobnob cluster key"),
        None => derive(format!("{name}\n{cluster}").as_bytes(), "hobnob open cluster key"),
    };
    KeyPair::from_private(private)
}

/// The key of the tags on HELLO and HERE. Open: from the cluster's name.
pub fn discovery_key(secret: Option<&Secret>, name: &ClusterName) -> Zeroizing<[u8; 32]> {
    match secret.filter(|_| !planted::is(Bug::SecretIgnored)) {
        Some(secret) => derive(secret.0.as_ref(), "hobnob discovery key"),
        None => derive(name.as_str().as_bytes(), "hobnob open discovery key"),
    }
}

/// What a client shows in its handshake to be let into a closed cluster: 128 bits as base64. Bound to the client's own
/// key, so it is of no use to anybody else, and encrypted to the cluster's key on its way.
pub fn pass(secret: &Secret, client: &[u8; 32]) -> String {
    let key = derive(secret.0.as_ref(), "hobnob pass");
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_ref()).expect("HMAC takes keys of any length");
    mac.update(client);
    text::encode(&mac.finalize().into_bytes()[..16])
}

/// Whether `shown` is the client's [`pass`]. Takes as long for a wrong one as for a right one.
pub fn is_pass(secret: &Secret, client: &[u8; 32], shown: &str) -> bool {
    let key = derive(secret.0.as_ref(), "hobnob pass");
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_ref()).expect("HMAC takes keys of any length");
    mac.update(client);
    text::decode::<16>(shown).is_some_and(|shown| mac.verify_truncated_left(&shown).is_ok())
}

/// HMAC-SHA256 of `label` under `secret`.
fn derive(secret: &[u8], label: &str) -> Zeroizing<[u8; 32]> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length");
    mac.update(label.as_bytes());
    Zeroizing::new(mac.finalize().into_bytes().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rng() -> Rng {
        Rng::from_seed([1; 32])
    }

    #[test]
    fn a_key_pair_is_that_of_its_private_half() {
        let pair = KeyPair::generate(&mut rng());
        let again = KeyPair::from_private(pair.private.clone());
        assert_eq!((again.public, again.person()), (pair.public, pair.person()));
    }

    #[test]
    fn a_secret_survives_its_text_and_nothing_else_is_one() {
        let secret = Secret::generate(&mut rng());
        let text = secret.to_text();
        assert_eq!(text.len(), 43);
        assert_eq!(Secret::from_text(&format!(" {}\n", *text)).map(|secret| secret.to_text()), Some(text.clone()));
        for wrong in ["", "hunter2", &text[1..], &format!("{}A", *text), &text.replace(&text[..1], "+")] {
            assert!(Secret::from_text(wrong).is_none(), "{wrong:?}");
        }
    }

    #[test]
    fn nothing_secret_is_shown() {
        let secret = Secret::generate(&mut rng());
        let pair = KeyPair::generate(&mut rng());
        let shown = format!("{secret:?} {pair:?}");
        assert!(!shown.contains(&*secret.to_text()) && !shown.contains(&text::encode(pair.private.as_ref())));
    }

    #[test]
    fn clusters_share_keys_only_where_they_should() {
        let name: ClusterName = "lab".parse().unwrap();
        let other: ClusterName = "pub".parse().unwrap();
        let secret = Secret::generate(&mut rng());
        let key = |secret, name, id| cluster_key(secret, name, ClusterId(id)).public;
        assert_ne!(key(None, &name, 1), key(None, &name, 2), "open clusters of one name are two");
        assert_ne!(key(None, &name, 1), key(None, &other, 1));
        assert_eq!(key(Some(&secret), &name, 1), key(Some(&secret), &other, 2), "closed ones may be joined");
        assert_ne!(key(Some(&secret), &name, 1), key(None, &name, 1));
        assert_eq!(discovery_key(Some(&secret), &name), discovery_key(Some(&secret), &other));
        assert_ne!(discovery_key(None, &name), discovery_key(None, &other));
    }
}

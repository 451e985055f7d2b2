//! Cookies: under load, whoever opens a handshake must first show that it hears what is sent to its address (RFC 6347,
//! section 4.2.1; `WireGuard`, Donenfeld, NDSS 2017, section 5.3).
//!
//! ```text
//! initiator                                     responder under load
//!    | -- init, no cookie or a wrong one ----------> |   computes one MAC, keeps nothing
//!    | <---------------- cookie: MAC of its address  |
//!    | -- the same init, with the cookie ----------> |   is taken, or waits for its turn
//! ```
//!
//! A cookie is the first 16 bytes of HMAC-SHA256 over the address, the port and the index that the initiator chose, under
//! a secret of 2 minutes; that of the 2 minutes before is still good. Nobody has to believe a cookie: a wrong one is worth
//! as much as none, and is answered with a right one.

use std::{
    mem,
    net::{IpAddr, SocketAddr},
};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::{
    rng::Rng,
    time::{Duration, Time},
    wire::packet::{COOKIE_BYTES, NO_COOKIE},
};

/// How long a secret is used for new cookies, and then again for those that it made.
const SECRET_SPAN: Duration = Duration::from_mins(2);

type Secret = Zeroizing<[u8; 32]>;

/// Makes cookies, and knows them again.
#[derive(Default)]
pub(super) struct Cookies {
    /// The secret and the one before it, and since when: there once a cookie was wanted.
    secrets: Option<(Secret, Secret, Time)>,
}

impl Cookies {
    /// The cookie of an initiator.
    pub(super) fn bake(&mut self, from: SocketAddr, sender: u32, rng: &mut Rng, now: Time) -> [u8; COOKIE_BYTES] {
        let (secret, ..) = self.secrets(rng, now);
        let mut cookie = NO_COOKIE;
        cookie.copy_from_slice(&mac(secret, from, sender).finalize().into_bytes()[..COOKIE_BYTES]);
        cookie
    }

    /// Whether it is that initiator's. Takes as long for a wrong one as for a right one, but for none at all.
    pub(super) fn is_good(
        &mut self,
        cookie: &[u8; COOKIE_BYTES],
        from: SocketAddr,
        sender: u32,
        rng: &mut Rng,
        now: Time,
    ) -> bool {
        if *cookie == NO_COOKIE {
            return false;
        }
        let (secret, last, _) = self.secrets(rng, now);
        let by = |secret| mac(secret, from, sender).verify_truncated_left(cookie).is_ok();
        by(secret) | by(last)
    }

    fn secrets(&mut self, rng: &mut Rng, now: Time) -> &(Secret, Secret, Time) {
        if self.secrets.as_ref().is_some_and(|(.., since)| now.since(*since) >= 2 * SECRET_SPAN) {
            self.secrets = None;
        }
        let (secret, last, since) = self.secrets.get_or_insert_with(|| (secret(rng), secret(rng), now));
        if now.since(*since) >= SECRET_SPAN {
            *last = mem::replace(secret, self::secret(rng));
            *since = *since + SECRET_SPAN;
        }
        self.secrets.as_ref().expect("it was just put there")
    }
}

impl std::fmt::Debug for Cookies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cookies(..)")
    }
}

fn secret(rng: &mut Rng) -> Secret {
    let mut secret = Zeroizing::new([0; 32]);
    rng.fill(secret.as_mut());
    secret
}

fn mac(secret: &Secret, from: SocketAddr, sender: u32) -> Hmac<Sha256> {
    let ip = match from.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_ref()).expect("HMAC takes keys of any length");
    mac.update(&ip.octets());
    mac.update(&from.port().to_be_bytes());
    mac.update(&sender.to_be_bytes());
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_good_for_its_address_and_index_for_two_to_four_minutes() {
        fn check(made: u64, shown: u64, addr: &str, sender: u32, expected: bool) {
            let (mut cookies, mut rng) = (Cookies::default(), Rng::from_seed([1; 32]));
            let at = |seconds| Time::from_micros(seconds * 1_000_000);
            cookies.bake("10.0.0.2:2".parse().unwrap(), 2, &mut rng, Time::ZERO);
            let cookie = cookies.bake("10.0.0.1:1".parse().unwrap(), 7, &mut rng, at(made));
            let good = cookies.is_good(&cookie, addr.parse().unwrap(), sender, &mut rng, at(shown));
            assert_eq!(good, expected, "made at {made}, shown at {shown} by {addr}, {sender}");
        }
        check(0, 0, "10.0.0.1:1", 7, true);
        check(0, 0, "[::ffff:10.0.0.1]:1", 7, true);
        check(0, 0, "10.0.0.1:2", 7, false);
        check(0, 0, "10.0.0.3:1", 7, false);
        check(0, 0, "10.0.0.1:1", 8, false);
        check(0, 239, "10.0.0.1:1", 7, true);
        check(0, 240, "10.0.0.1:1", 7, false);
        check(119, 239, "10.0.0.1:1", 7, true);
        check(119, 240, "10.0.0.1:1", 7, false);
        check(120, 300, "10.0.0.1:1", 7, true);
        check(120, 10_000, "10.0.0.1:1", 7, false);
    }

    #[test]
    fn no_cookie_and_a_made_up_one_are_not_good() {
        let (mut cookies, mut rng) = (Cookies::default(), Rng::from_seed([1; 32]));
        let from = "[fe80::1]:1".parse().unwrap();
        for made_up in [NO_COOKIE, [1; 16]] {
            assert!(!cookies.is_good(&made_up, from, 7, &mut rng, Time::ZERO));
        }
    }
}

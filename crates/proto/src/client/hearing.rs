//! Whom our server and our standby hear, and what follows where they differ.
//!
//! Servers tell whom they hear. A client whose standby hears more than its server does, for a while, goes over to it: so
//! the clients of a server that is cut off, deaf or mute, and that they can still reach, go to where the others are.
//! Whether that is so is asked of both, so that a list that got lost moves nobody; a tie moves nobody either.

use std::collections::BTreeSet;

use crate::{
    client::{Client, link::Link, moves::Lookup, repeat::Repeat},
    ids::ServerId,
    session::SessionId,
    time::{Duration, Time},
    wire::frame::ServerAddrs,
};

/// How long one server has to hear more than the other, before anything follows from it.
const UNEVEN: Duration = Duration::from_secs(1);
/// How often both are asked meanwhile.
const UNEVEN_ASK: Duration = Duration::from_millis(300);

/// Our server and our standby do not hear equally many.
#[derive(Clone, Copy, Debug)]
pub(super) struct Uneven {
    /// Whether the standby hears more.
    standby: bool,
    since: Time,
    ask: Repeat,
}

impl Uneven {
    /// When something is to be done.
    pub(super) fn deadline(&self) -> Time {
        self.ask.at
    }
}

impl Client {
    /// A server names those that it hears.
    pub(super) fn listed(&mut self, session: SessionId, up: &[ServerId], servers: Vec<ServerAddrs>, now: Time) {
        let Some(link) = self.link(session) else { return };
        let before = link.hears().cloned();
        link.names(up, &servers, now);
        self.compare_boots(session, before.as_ref(), up, &servers, now);
        self.servers.update(up, servers, now);
        self.stop_asking_the_dead(session, up, now);
        let is_standby = self.standby.as_ref().is_some_and(|standby| standby.session == session);
        let is_missed = self.primary.as_ref().is_some_and(|primary| {
            let heard = self.endpoint.heard(primary.session).unwrap_or(Time::ZERO);
            primary.is_missed(heard) && primary.server.is_some_and(|server| !up.contains(&server))
        });
        if is_standby && is_missed {
            // It does not answer us, and our standby does not hear it either.
            self.lose_primary(now);
        }
    }

    /// Our server hears the one no longer that is being looked up to stand by: another is asked.
    fn stop_asking_the_dead(&mut self, by: SessionId, up: &[ServerId], now: Time) {
        let is_primary = self.primary.as_ref().is_some_and(|primary| primary.session == by);
        let is_dead = self.asked.is_some_and(|asked| !up.contains(&asked));
        // It may be the primary that is cut off, and this one the way out: so it must name somebody else.
        if is_primary && is_dead && up.len() > 1 && self.lookup == Some(Lookup::Standby) {
            self.lookup = None;
            self.standby_at = now;
            self.avoid = self.asked.take();
        }
    }

    /// Our server and our standby each say how it stands with the other. One that runs anew has forgotten our session. One
    /// that is no longer heard may be dead, or only cut off: it is asked, once for each time that this is said.
    fn compare_boots(
        &mut self,
        by: SessionId,
        before: Option<&BTreeSet<ServerId>>,
        up: &[ServerId],
        servers: &[ServerAddrs],
        now: Time,
    ) {
        let is_by = |link: &Option<Link>| link.as_ref().is_some_and(|link| link.session == by);
        let by_primary = is_by(&self.primary);
        if !by_primary && !is_by(&self.standby) {
            return;
        }
        let other = if by_primary { &mut self.standby } else { &mut self.primary };
        let Some(other) = other else { return };
        let Some(server) = other.server else { return };
        let boot = servers.iter().find(|named| named.id == server).map(|named| named.boot);
        let runs_anew = other.boot.zip(boot).is_some_and(|(was, is)| was < is);
        let is_news = before.is_none_or(|before| before.contains(&server)) && !up.contains(&server);
        if !runs_anew && (!is_news || other.up) {
            if is_news {
                other.doubt_unheard(now);
            }
        } else if by_primary {
            self.drop_standby(now);
            self.standby_at = now;
        } else {
            self.lose_primary(now);
        }
    }

    /// Whether our server hears that one.
    pub(super) fn is_named(&self, server: ServerId) -> bool {
        let hears = self.primary.as_ref().and_then(Link::hears);
        hears.is_some_and(|hears| hears.contains(&server))
    }

    /// Looks whether our standby hears more than our server does, and goes over once that has lasted. A standby that hears
    /// less, and that our server does not hear, is cut off: another is looked for.
    pub(super) fn compare_links(&mut self, now: Time) {
        let Some(standby) = self.is_uneven() else {
            self.uneven = None;
            return;
        };
        let mut uneven = match self.uneven {
            Some(uneven) if uneven.standby == standby => uneven,
            _ => Uneven { standby, since: now, ask: Repeat::new(UNEVEN_ASK, UNEVEN_ASK, now) },
        };
        if uneven.ask.poll(now) {
            for link in [&mut self.primary, &mut self.standby].into_iter().flatten() {
                link.doubt(now);
            }
        }
        let is_fresh = |link: &Option<Link>| link.as_ref().is_some_and(|link| link.has_named_since(uneven.since));
        let lasts = uneven.since + UNEVEN <= now && is_fresh(&self.primary) && is_fresh(&self.standby);
        self.uneven = (!lasts).then_some(uneven);
        match (lasts, standby) {
            (false, _) => {}
            (true, true) => {
                self.leaving = self.primary.take();
                if let Some(standby) = self.standby.take() {
                    self.serve_by(standby, now);
                }
            }
            (true, false) => {
                self.drop_standby(now);
                self.standby_at = now;
            }
        }
    }

    /// `Some(true)`: our standby hears more than our server does; `Some(false)`: it hears less, and is not heard by our
    /// server, which hears another.
    fn is_uneven(&self) -> Option<bool> {
        let standby = self.standby.as_ref().filter(|standby| standby.up && standby.welcomed)?;
        let primary = self.primary.as_ref().filter(|_| self.is_served() && self.coming.is_none())?;
        let (ours, theirs) = (primary.hears()?, standby.hears()?);
        let is_heard = standby.server.is_none_or(|server| ours.contains(&server));
        match theirs.len().cmp(&ours.len()) {
            std::cmp::Ordering::Greater => Some(true),
            std::cmp::Ordering::Less if !is_heard && ours.len() > 1 => Some(false),
            _ => None,
        }
    }
}

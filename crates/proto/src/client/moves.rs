//! Whose client we are: the first server, a standby, and what happens when one of them goes.
//!
//! A standby that is up takes over without a handshake, when it calls or when our server falls silent. Without one, a
//! search begins: every address that we were told is asked, and everybody by broadcast; the first that answers is tried.
//! A client moves to no address that has not answered it.

use crate::{
    client::{
        Client,
        api::Event,
        finder::Candidate,
        link::{Link, Part},
    },
    ids::ServerId,
    session::SessionId,
    time::{Duration, Time},
    wire::{Frame, Greeting},
};

/// How soon another standby is tried after one failed.
const STANDBY_AGAIN: Duration = Duration::from_secs(2);

/// How soon after a server that nobody named could not be found.
const STANDBY_UNNAMED: Duration = Duration::from_secs(10);
/// How long we wait for the addresses of a server that we were asked to go to. It may not exist.
const GO_SPAN: Duration = Duration::from_secs(2);

/// A server that we are about to go to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Go {
    to: ServerId,
    /// When we stay, if nobody has told where it is.
    until: Time,
}

impl Go {
    fn new(to: ServerId, now: Time) -> Self {
        Self { to, until: now + GO_SPAN }
    }

    /// When something is to be done.
    pub(super) fn deadline(&self) -> Time {
        self.until
    }
}

/// What a server is being looked up for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lookup {
    /// To be our standby.
    Standby,
    /// To move to this one.
    Move(ServerId),
}

impl Client {
    /// Sees to it that there is a server, and a standby.
    pub(super) fn keep_links(&mut self, now: Time) {
        if self.primary.as_ref().is_some_and(|primary| primary.is_dead(now)) {
            self.lose_primary(now);
        }
        if self.standby.as_ref().is_some_and(|standby| standby.is_dead(now) || standby.is_slow_to_open(now)) {
            let is_unheard = self.standby.as_ref().is_some_and(Link::is_unheard);
            self.drop_standby(now);
            if is_unheard {
                self.standby_at = now;
            }
        }
        self.tell_the_forgetful(now);
        self.find_primary(now);
        self.use_resolved(now);
        self.follow_go(now);
        self.compare_links(now);
        self.find_standby(now);
    }

    /// Time has passed in which we did nothing: a laptop that slept. Nobody is to be blamed for it.
    pub(super) fn awake(&mut self) {
        for link in [&mut self.primary, &mut self.standby].into_iter().flatten() {
            link.trust();
        }
        self.uneven = None;
    }

    /// The network is another one: its servers hear our new address with a ping, or are soon known to be gone.
    pub(super) fn network_changed(&mut self, now: Time) {
        for link in [&mut self.primary, &mut self.standby].into_iter().flatten() {
            link.ask_now(now);
        }
        self.finder.ask_now(now);
    }

    /// A session stands.
    pub(super) fn session_up(&mut self, session: SessionId, now: Time) {
        if let Some(mut coming) = self.coming.take_if(|link| link.session == session) {
            coming.up = true;
            self.leaving = self.primary.take();
            self.serve_by(coming, now);
        } else if let Some(primary) = self.primary.as_mut().filter(|link| link.session == session) {
            primary.up = true;
            self.number += 1;
            primary.say_hi(self.number, Part::Primary, now);
        } else if let Some(standby) = self.standby.as_mut().filter(|link| link.session == session) {
            standby.up = true;
        } else {
            self.endpoint.close(session);
        }
    }

    /// A session is gone: a handshake was not answered, or it has been silent for too long.
    pub(super) fn session_closed(&mut self, session: SessionId, now: Time) {
        let is = |link: &Option<Link>| link.as_ref().is_some_and(|link| link.session == session);
        if is(&self.primary) {
            self.lose_primary(now);
        } else if is(&self.standby) {
            self.drop_standby(now);
        } else if is(&self.coming) {
            self.coming = None;
        } else if is(&self.leaving) {
            self.leaving = None;
        }
    }

    /// The standby says that this server is dead.
    pub(super) fn called_over(&mut self, dead: ServerId, now: Time) {
        let served_by = self.primary.as_ref().map(|primary| primary.server);
        if served_by.is_none_or(|server| server == Some(dead)) {
            self.servers.forget(dead);
            self.lose_primary(now);
        }
    }

    /// Our standby says that our server is dead. Where it hears few of those that our server heard, it may be the one that
    /// is cut off: then our server is asked.
    pub(super) fn called_by_standby(&mut self, dead: ServerId, now: Time) {
        let heard = |link: &Option<Link>| link.as_ref().and_then(|link| Some(link.hears()?.len()));
        let few = match (heard(&self.primary), heard(&self.standby)) {
            (Some(ours), Some(theirs)) => theirs * 2 < ours,
            _ => false,
        };
        match self.primary.as_mut().filter(|primary| few && primary.server == Some(dead)) {
            Some(primary) => primary.doubt(now),
            None => self.called_over(dead, now),
        }
    }

    /// Our server says that it is about to stop. It serves us until another one does: nothing is missed meanwhile.
    pub(super) fn sent_away(&mut self, from: ServerId, now: Time) {
        let is_moving = self.go.is_some() || self.coming.is_some() || matches!(self.lookup, Some(Lookup::Move(_)));
        if is_moving || !self.is_served() {
            return;
        }
        self.servers.forget(from);
        let standby = self.standby.as_ref().filter(|standby| standby.up).and_then(|standby| standby.server);
        let avoid = self.avoid;
        let rank = |id: ServerId| (id != from).then(|| (self.servers.addrs(id).is_empty(), avoid == Some(id)));
        let Some(to) = standby.or_else(|| self.servers.random(rank, &mut self.rng)) else {
            return self.called_over(from, now);
        };
        // A standby that is being looked for can wait.
        self.lookup = None;
        self.go = Some(Go::new(to, now));
    }

    /// Our standby says that it is about to stop.
    pub(super) fn deserted_by_standby(&mut self, now: Time) {
        if let Some(server) = self.standby.as_ref().and_then(|standby| standby.server) {
            self.servers.forget(server);
        }
        self.drop_standby(now);
        self.standby_at = now;
    }

    /// A less loaded server is named.
    pub(super) fn asked_to_go(&mut self, server: ServerId, now: Time) {
        if self.may_go && self.config.servers.is_empty() {
            self.may_go = false;
            self.go = Some(Go::new(server, now));
        }
    }

    /// Says hi again where we are not known any more, and enters anew.
    fn tell_the_forgetful(&mut self, now: Time) {
        if let Some(primary) = &mut self.primary
            && primary.take_forgotten(now)
        {
            primary.entered = false;
            self.say_hi_again(now);
        }
        if let Some(standby) = &mut self.standby
            && standby.take_forgotten(now)
        {
            // Whoever is not asked to stand by is asked.
            standby.part = None;
        }
    }

    /// Says hi again on the session with our server, if there is one, since we have changed.
    pub(super) fn say_hi_again(&mut self, now: Time) {
        if let Some(primary) = self.primary.as_mut().filter(|primary| primary.up) {
            self.number += 1;
            primary.say_hi(self.number, Part::Primary, now);
        }
    }

    /// Our server has welcomed us: what is open is said to it, once for each arrival.
    pub(super) fn enter(&mut self, now: Time) {
        let Some(primary) = &mut self.primary else { return };
        if !std::mem::replace(&mut primary.entered, true) {
            self.cluster = Some(primary.cluster);
            for room in self.rooms.values_mut() {
                room.moved(now);
            }
            self.outbox.moved();
            self.asks.moved();
            self.imports.moved();
            self.finder.stop();
        }
        if let Some(old) = self.leaving.take() {
            self.part_from(old.session);
        }
    }

    /// Says goodbye and drops the session.
    pub(super) fn part_from(&mut self, session: SessionId) {
        self.endpoint.send(session, Frame::Bye.to_line().as_bytes());
        self.parting.push(session);
    }

    /// The primary does not answer: the standby serves, or another is looked for.
    pub(super) fn lose_primary(&mut self, now: Time) {
        if let Some(old) = self.primary.take() {
            if let (true, Some(server)) = (old.entered, old.server) {
                self.events.push_back(Event::Lost { server });
            }
            self.drop_link(&old);
        }
        if let Some(left) = self.leaving.take() {
            // Where we were sent does not answer: back to where we came from.
            self.serve_by(left, now);
            return;
        }
        if let Some(standby) = self.standby.take() {
            let heard = self.endpoint.heard(standby.session).unwrap_or(Time::ZERO);
            if standby.up && !standby.is_dead_too(heard, now) {
                self.serve_by(standby, now);
                return;
            }
            self.drop_link(&standby);
        }
        self.may_go = true;
        self.go = None;
    }

    pub(super) fn drop_standby(&mut self, now: Time) {
        if let Some(standby) = self.standby.take() {
            self.drop_link(&standby);
            self.standby_at = now + STANDBY_AGAIN;
            self.avoid = standby.server;
        }
    }

    /// Drops a session; with a goodbye if anybody could hear it.
    fn drop_link(&mut self, link: &Link) {
        if link.up {
            self.part_from(link.session);
        } else {
            self.endpoint.close(link.session);
        }
    }

    /// A session that is up serves us from now on.
    pub(super) fn serve_by(&mut self, mut link: Link, now: Time) {
        self.number += 1;
        link.entered = false;
        link.say_hi(self.number, Part::Primary, now);
        self.primary = Some(link);
    }

    /// Without a server: searches, and tries who answers. With a handshake that takes long: tries somebody else.
    fn find_primary(&mut self, now: Time) {
        if let Some(primary) = &self.primary {
            if !primary.is_slow_to_open(now) || !self.finder.has_other_than(primary.addr, &primary.key, now) {
                return;
            }
            self.endpoint.close(primary.session);
            self.primary = None;
        }
        if !self.finder.is_searching() {
            let mut targets = self.config.servers.clone();
            targets.extend(self.servers.all_addrs());
            targets.sort_unstable();
            targets.dedup();
            self.lookup = None;
            self.finder.search(targets, self.config.servers.is_empty(), self.cluster, &mut self.rng, now);
        }
        if let Some(candidate) = self.finder.choose(now) {
            self.primary = Some(self.open(&candidate, now));
        }
    }

    fn open(&mut self, to: &Candidate, now: Time) -> Link {
        // The suite is the server's choice: it seals for many, we for one.
        let person = &self.config.person;
        let greeting = Greeting::client(self.config.secret.as_ref(), &person.public).to_payload();
        let session = self.endpoint.connect(to.addr, person, &to.key, to.suite, &greeting, now);
        Link::new(session, to, now)
    }

    /// A server that was looked up has answered, or has not.
    fn use_resolved(&mut self, now: Time) {
        let Some(lookup) = self.lookup else { return };
        let Some(candidate) = self.finder.take_resolved() else {
            if !self.finder.is_looking_up(now) {
                self.lookup = None;
                if let Lookup::Move(to) = lookup {
                    self.avoid = Some(to);
                    return;
                }
                let is_named = self.asked.is_some_and(|asked| self.is_named(asked));
                self.standby_at = now + if is_named { STANDBY_AGAIN } else { STANDBY_UNNAMED };
                self.avoid = self.asked.take();
            }
            return;
        };
        self.lookup = None;
        if self.cluster != Some(candidate.cluster) {
            self.standby_at = now + STANDBY_AGAIN;
            return;
        }
        match lookup {
            Lookup::Standby if self.standby.is_none() => self.standby = Some(self.open(&candidate, now)),
            Lookup::Move(_) if self.coming.is_none() => self.coming = Some(self.open(&candidate, now)),
            _ => {}
        }
    }

    /// Moves to the less loaded server that we were asked to go to.
    fn follow_go(&mut self, now: Time) {
        let Some(Go { to: server, until }) = self.go else { return };
        if !self.is_served() || self.coming.is_some() || self.lookup.is_some() {
            return;
        }
        if let Some(standby) = self.standby.take_if(|standby| standby.up && standby.server == Some(server)) {
            self.go = None;
            self.leaving = self.primary.take();
            self.serve_by(standby, now);
        } else if !self.servers.addrs(server).is_empty() {
            self.go = None;
            self.lookup = Some(Lookup::Move(server));
            self.finder.look_up(server, self.servers.addrs(server), now);
        } else if until <= now {
            self.go = None;
        }
    }

    /// Keeps a standby, and tells it who serves us.
    fn find_standby(&mut self, now: Time) {
        let Some(serving) = self.primary.as_ref().filter(|primary| primary.welcomed).and_then(|link| link.server)
        else {
            return;
        };
        if let Some(standby) = &mut self.standby {
            if standby.server == Some(serving) {
                self.drop_standby(now);
            } else if standby.up && standby.part != Some(Part::Standby(serving)) {
                self.number += 1;
                standby.say_hi(self.number, Part::Standby(serving), now);
            }
            return;
        }
        if self.standby_at > now || self.lookup.is_some() || self.go.is_some() || self.coming.is_some() {
            return;
        }
        // First those that our server hears; but it may hear nobody because it is the one that is cut off.
        let hears = self.primary.as_ref().and_then(Link::hears).cloned().unwrap_or_default();
        let avoid = self.avoid;
        let rank = |id: ServerId| (id != serving).then(|| (!hears.contains(&id), avoid == Some(id)));
        let other = self.servers.random(rank, &mut self.rng);
        if let Some(other) = other {
            self.asked = Some(other);
            self.lookup = Some(Lookup::Standby);
            self.finder.look_up(other, self.servers.addrs(other), now);
        }
    }

    /// Whether a server serves us, as we are.
    pub(super) fn is_served(&self) -> bool {
        self.primary.as_ref().is_some_and(|primary| primary.entered && primary.welcomed)
    }
}

//! What servers say. Every frame may be hostile: it is taken for what it claims within our bounds, or ignored.

use crate::{
    client::{
        Client,
        api::Event,
        link::{Link, Part},
        room::Room,
    },
    ids::RoomName,
    log::Entry,
    session::SessionId,
    time::{Duration, Time},
    wire::{
        Frame,
        frame::{Vectors, Welcome},
    },
};

/// A room that we are not in is parted from at most so often.
const PART_EVERY: Duration = Duration::from_secs(1);

/// A server that names a higher session number than this one lies: it has milliseconds since 1970 in it.
const NUMBER_MAX: u64 = 1 << 52;

impl Client {
    /// Takes a frame of one of our sessions.
    pub(super) fn frame(&mut self, session: SessionId, frame: Frame, now: Time) {
        let serves = self.primary.as_ref().is_some_and(|primary| primary.session == session);
        match frame {
            Frame::Entry(entry) => {
                if let Some(primary) = self.primary.as_mut().filter(|_| serves) {
                    primary.talked(now, &mut self.rng);
                }
                self.entry(entry, now);
            }
            Frame::Joined { room, start, heads, origins } if serves => {
                if let Some(room) = self.rooms.get_mut(&room) {
                    room.joined(&start, &heads, origins, now, &mut self.events);
                }
            }
            Frame::Heads { rooms } if serves => self.heads(&rooms, now),
            Frame::Pulled(pulled) if serves => {
                if let Some(room) = self.rooms.get_mut(&pulled.room) {
                    room.pulled(&pulled, now, &mut self.events);
                }
            }
            Frame::Ack(ack) => self.outbox.ack(ack, now, &mut self.events),
            Frame::Refuse(refuse) => self.outbox.refuse(refuse, now, &mut self.events),
            Frame::Welcome(welcome) => self.welcome(session, &welcome, now),
            Frame::NotWelcome { why, suggestion } if serves && self.primary.as_mut().is_some_and(Link::give_up_hi) => {
                self.not_welcome(now);
                self.events.push_back(Event::NotWelcome { why, suggestion });
            }
            Frame::Servers { cluster, up, servers, .. } => {
                if serves {
                    self.cluster = Some(cluster);
                    if let Some(primary) = &mut self.primary {
                        primary.cluster = cluster;
                    }
                    if self.standby.as_ref().is_some_and(|standby| standby.cluster != cluster) {
                        // Our server has gone over to another cluster: there it is not dead.
                        self.deserted_by_standby(now);
                    }
                }
                self.listed(session, &up, servers, now);
            }
            Frame::Answer { id, part, last, data } => self.asks.answer(id, part, last, data, &mut self.events),
            Frame::AnswerError { id, why } => self.asks.error(id, why, &mut self.events),
            Frame::Imported { lines } => self.imports.imported(&lines, &mut self.events),
            Frame::Come { dead } => {
                // A server may say it of itself: it is about to stop.
                if serves && self.primary.as_ref().is_some_and(|link| link.server == Some(dead)) {
                    self.sent_away(dead, now);
                } else if self.standby.as_ref().is_some_and(|l| l.session == session && l.server == Some(dead)) {
                    self.deserted_by_standby(now);
                } else if self.standby.as_ref().is_some_and(|standby| standby.session == session) {
                    self.called_by_standby(dead, now);
                }
            }
            Frame::HiFirst { session: newest } => self.hi_first(session, newest),
            Frame::Pong { n } => {
                if let Some(link) = self.link(session) {
                    link.pong(n, now);
                }
            }
            Frame::Ping { n } => self.say(session, &Frame::Pong { n }),
            _ => {}
        }
    }

    pub(super) fn link(&mut self, session: SessionId) -> Option<&mut Link> {
        let links = [self.primary.as_mut(), self.standby.as_mut(), self.coming.as_mut()];
        links.into_iter().flatten().find(|link| link.session == session)
    }

    fn entry(&mut self, entry: Entry, now: Time) {
        if !entry.is_intact() {
            self.damaged += 1;
        } else if let Some(room) = self.rooms.get_mut(&entry.room) {
            room.entry(entry, now, &mut self.events);
        } else {
            self.part_again(entry.room, now);
        }
    }

    /// The server has not heard that we left a room: tells it again.
    fn part_again(&mut self, room: RoomName, now: Time) {
        if self.is_served() && self.parted_at + PART_EVERY <= now {
            self.parted_at = now;
            self.say_to_primary(&Frame::Part { room });
        }
    }

    fn heads(&mut self, rooms: &Vectors, now: Time) {
        for (name, heads) in rooms {
            if !self.rooms.contains_key(name) {
                self.part_again(name.clone(), now);
            } else if let Some(receiver) = self.rooms.get_mut(name).and_then(Room::receiver) {
                receiver.heads(heads, now);
            }
        }
    }

    fn welcome(&mut self, session: SessionId, welcome: &Welcome, now: Time) {
        let Some(link) = self.link(session) else { return };
        let as_standby = matches!(link.part, Some(Part::Standby(_)));
        if welcome.standby != as_standby || !link.welcome(welcome.session, now) {
            return;
        }
        link.server = Some(welcome.server);
        if as_standby {
            return;
        }
        let (addr, cluster, open) = (link.addr, link.cluster, link.open);
        self.welcomed_as = Some(self.config.name.clone());
        self.enter(now);
        self.events.push_back(Event::Connected { server: welcome.server, addr, cluster, open });
        if let Some(server) = welcome.go {
            self.asked_to_go(server, now);
        }
    }

    /// A server that has welcomed us does not know us any more. The hi that we say then is the latest of all, so where we
    /// are is settled by it.
    fn hi_first(&mut self, session: SessionId, newest: u64) {
        if let Some(link) = self.link(session) {
            link.forgotten();
            self.number = self.number.max(newest.min(NUMBER_MAX));
        }
    }

    /// The name is taken. Where we were served under another, we go on under that; else we wait for a new name.
    fn not_welcome(&mut self, now: Time) {
        self.finder.stop();
        if let Some(name) = self.welcomed_as.clone().filter(|name| *name != self.config.name) {
            self.config.name = name;
            self.say_hi_again(now);
        }
    }
}

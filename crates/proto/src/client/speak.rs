//! What is due to be said, to whom, and when there will be more.

use crate::{
    client::{
        Client,
        api::{Event, Output},
        hearing::Uneven,
        link::{Due, Link, Part},
        moves::Go,
        room::Room,
    },
    limits,
    session::SessionId,
    time::{Duration, Time},
    wire::{
        Frame,
        frame::{FragmentOf, Hi},
        vectors,
    },
};

/// A deadline that has passed, because what it is for must wait for something else, is looked at again so soon.
const OVERDUE: Duration = Duration::from_millis(5);

impl Client {
    /// Does and says all that is due.
    pub(super) fn drive(&mut self, now: Time) {
        if self.stopped {
            return;
        }
        self.keep_links(now);
        self.tell_servers();
        self.finder.poll(now, &mut self.outputs);
        self.speak_as_links(now);
        if self.is_served() {
            self.speak_of_rooms(now);
            self.speak_of_posts(now);
            for ask in self.asks.poll(now) {
                self.say_to_primary(&ask);
            }
            self.speak_of_imports(now);
        }
        for room in self.rooms.values_mut() {
            room.catch_up(now, &mut self.events);
        }
        self.flush(now);
        self.wake = self.next_wake(now);
    }

    /// Says something in a session, unless it does not fit a packet.
    pub(super) fn say(&mut self, session: SessionId, frame: &Frame) {
        let line = frame.to_line();
        debug_assert!(line.len() <= limits::FRAME_BYTES_MAX, "too long: {line}");
        if line.len() <= limits::FRAME_BYTES_MAX {
            self.endpoint.send(session, line.as_bytes());
        }
    }

    /// Says something to our server, if it has welcomed us.
    pub(super) fn say_to_primary(&mut self, frame: &Frame) {
        if self.is_served()
            && let Some(primary) = &self.primary
        {
            self.say(primary.session, frame);
        }
    }

    /// Hands over the datagrams, and drops the sessions that have said goodbye.
    pub(super) fn flush(&mut self, now: Time) {
        self.endpoint.flush(now, &mut self.datagrams);
        self.outputs.extend(self.datagrams.iter().map(|(to, bytes)| Output::Send { to, bytes: bytes.to_vec() }));
        self.datagrams.clear();
        for session in std::mem::take(&mut self.parting) {
            self.endpoint.close(session);
        }
    }

    /// Tells whom our server hears, where that has changed.
    fn tell_servers(&mut self) {
        if let Some(hears) = self.primary.as_ref().filter(|primary| primary.entered).and_then(Link::hears)
            && self.told != *hears
        {
            self.told.clone_from(hears);
            self.events.push_back(Event::Servers { up: self.told.iter().copied().collect() });
        }
    }

    /// Hi and ping, where they are due. While our server does not answer, our standby is asked what it knows of it.
    fn speak_as_links(&mut self, now: Time) {
        let waiting = self.waiting_since();
        let mut due = Vec::new();
        let mut ask = false;
        for (link, waiting) in [(&mut self.primary, waiting), (&mut self.standby, None)] {
            let Some(link) = link else { continue };
            let heard = self.endpoint.heard(link.session).unwrap_or(Time::ZERO);
            // The standby comes after our server.
            if ask && link.up {
                link.doubt(now);
            }
            let Due { hi, ping, doubt } = link.poll(heard, waiting, now);
            ask |= doubt;
            if hi && let Some(part) = link.part {
                let standby = if let Part::Standby(of) = part { Some(of) } else { None };
                due.push((
                    link.session,
                    Frame::Hi(Hi {
                        name: self.config.name.clone(),
                        device: self.config.device,
                        session: link.number,
                        via: self.config.via.clone(),
                        movable: self.config.servers.is_empty(),
                        standby,
                    }),
                ));
            }
            if ping {
                link.pinged(self.ping, now, &mut self.rng);
                due.push((link.session, Frame::Ping { n: self.ping }));
                self.ping += 1;
            }
        }
        for (session, frame) in due {
            self.say(session, &frame);
        }
    }

    /// Joins, pulls and acknowledgements.
    fn speak_of_rooms(&mut self, now: Time) {
        let (mut frames, mut acknowledged) = (Vec::new(), Vec::new());
        for (name, room) in &mut self.rooms {
            frames.extend(room.poll_join(now));
            let Some(receiver) = room.receiver() else { continue };
            receiver.let_go(now);
            frames.extend(receiver.poll_pull(now, &mut self.rng).map(Frame::Pull));
            if receiver.poll_ack(now) {
                acknowledged.push((name.clone(), receiver.held().clone()));
            }
        }
        for frame in frames {
            self.say_to_primary(&frame);
        }
        let Some(session) = self.primary.as_ref().map(|primary| primary.session) else { return };
        for line in vectors::lines(acknowledged, |rooms| Frame::Cursor { rooms }) {
            self.endpoint.send(session, line.as_bytes());
        }
    }

    fn speak_of_posts(&mut self, now: Time) {
        let Some(session) = self.primary.as_ref().map(|primary| primary.session) else { return };
        for post in self.outbox.poll(now) {
            let (room, seq) = (post.room.clone(), post.seq);
            self.endpoint.send_large(session, || FragmentOf::Post(room, seq), &Frame::Post(post).to_line());
        }
    }

    fn speak_of_imports(&mut self, now: Time) {
        let Some(session) = self.primary.as_ref().map(|primary| primary.session) else { return };
        for import in self.imports.poll(now) {
            let n = import.n;
            self.endpoint.send_large(session, || FragmentOf::Import(n), &Frame::Import(import).to_line());
        }
    }

    /// Since when anything that our server was asked waits for its answer.
    fn waiting_since(&self) -> Option<Time> {
        if !self.is_served() {
            return None;
        }
        let rooms = self.rooms.values().filter_map(Room::waiting_since);
        rooms.chain(self.outbox.waiting_since()).chain(self.asks.waiting_since()).min()
    }

    fn next_wake(&self, now: Time) -> Time {
        let heard = |link: &Link| self.endpoint.heard(link.session).unwrap_or(Time::ZERO);
        let primary = self.primary.iter().filter_map(|link| link.deadline(heard(link), self.waiting_since(), now));
        let standby = self.standby.iter().filter_map(|link| link.deadline(heard(link), None, now));
        let searching = self.finder.deadline(now).into_iter().chain(self.endpoint.deadline());
        let mut wake = primary.chain(standby).chain(searching).min();
        if self.is_served() {
            let rooms = self.rooms.values().filter_map(Room::deadline);
            let open = rooms.chain(self.outbox.deadline()).chain(self.asks.deadline()).chain(self.imports.deadline());
            let standby_at = Some(self.standby_at).filter(|at| self.standby.is_none() && *at > now);
            let uneven = self.uneven.iter().map(Uneven::deadline);
            let go = self.go.iter().map(Go::deadline);
            wake = open.chain(standby_at).chain(uneven).chain(go).chain(wake).min();
        }
        wake.map_or(now + Duration::from_secs(1), |at| if at > now { at } else { now + OVERDUE })
    }
}

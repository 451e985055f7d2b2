//! A client state machine with its sockets and its clock.
//!
//! [`Session`] is what a face (a terminal, a pipe, a script) holds: it waits for [`Session::event`] and says
//! [`Session::command`]. The network is served while somebody waits for an event, and only then; so there is no task and
//! no queue between the two, and a face that lingers slows down nobody but itself.
//!
//! The clock is `Instant`: on Linux the monotonic clock, which stands still while a laptop sleeps, since the standard
//! library does not offer the boot-time clock. After a sleep a client so learns a little later that its session is old;
//! the state machine asks its server again in any case.

use std::time::{Duration, Instant, SystemTime};

use hobnob_proto::{
    client::{Client, Command, Event, Input, Output},
    config::ClientConfig,
    ids::{DeviceId, PersonName},
    limits,
    session::keys::KeyPair,
    time::Time,
};

use crate::{Fail, Options, advice, net::Net};

/// Datagrams that are taken before the clock and the face get a turn.
const BATCH: usize = 64;

/// How long a farewell may take: enough for a datagram or two.
const FAREWELL: Duration = Duration::from_millis(20);

/// A client that runs.
#[derive(Debug)]
pub(crate) struct Session {
    client: Client,
    net: Net,
    clock: Clock,
    buffer: Box<[u8; limits::DATAGRAM_BYTES_MAX + 1]>,
}

/// Who talks, and how.
#[derive(Debug)]
pub(crate) struct Talker {
    /// The person.
    pub(crate) person: KeyPair,
    /// This process.
    pub(crate) device: DeviceId,
    /// The name to be shown under.
    pub(crate) name: PersonName,
    /// `terminal`, `pipe` or `script`.
    pub(crate) via: &'static str,
}

impl Session {
    /// Opens the sockets and starts to look for a server.
    pub(crate) fn open(options: &Options, talker: Talker) -> Result<Self, Fail> {
        let net = Net::open(&options.interfaces, options.discovery_port)?;
        let config = ClientConfig {
            cluster: options.cluster.clone(),
            secret: options.secret.clone(),
            person: talker.person,
            device: talker.device,
            name: talker.name,
            via: talker.via.to_owned(),
            servers: options.servers.clone(),
            session: wall_millis(),
        };
        let clock = Clock::start();
        let client = Client::new(config, seed()?, clock.now());
        let mut session = Self { client, net, clock, buffer: Box::new([0; limits::DATAGRAM_BYTES_MAX + 1]) };
        session.client.handle(Input::Tick, session.clock.now());
        Ok(session)
    }

    /// Now, on the session's clock.
    pub(crate) fn now(&self) -> Time {
        self.clock.now()
    }

    /// Wants something. What comes of it arrives as events.
    pub(crate) fn command(&mut self, command: Command) {
        self.client.handle(Input::Command(command), self.clock.now());
    }

    /// The next event. Serves the network until there is one; nothing is lost where the wait is given up.
    pub(crate) async fn event(&mut self) -> Event {
        loop {
            if let Some(event) = self.drain() {
                return event;
            }
            let deadline = self.clock.instant(self.client.deadline()).min(self.net.next_look());
            tokio::select! {
                () = self.net.readable() => self.receive(),
                () = tokio::time::sleep_until(deadline.into()) => {}
            }
            let now = self.clock.now();
            if self.net.look() {
                self.client.handle(Input::Network, now);
            }
            if self.client.deadline() <= now {
                self.client.handle(Input::Tick, now);
            }
            // Whoever shares this thread gets a turn, however much there is to do here.
            tokio::task::yield_now().await;
        }
    }

    /// The next event, or `None` once `deadline` has passed.
    pub(crate) async fn event_before(&mut self, deadline: Time) -> Option<Event> {
        let deadline = self.clock.instant(deadline);
        tokio::time::timeout_at(deadline.into(), self.event()).await.ok()
    }

    /// That no server was found: where was looked, and what to try.
    pub(crate) fn not_found(&self) -> String {
        advice::not_found(self.net.choices(), self.net.wanted(), self.net.discovery_port())
    }

    /// Says goodbye to the server, so that others see at once that this one has gone.
    pub(crate) async fn quit(mut self) {
        self.command(Command::Quit);
        let deadline = self.now() + FAREWELL;
        while self.event_before(deadline).await.is_some() {}
    }

    /// Does what the client wants done, up to the next event.
    fn drain(&mut self) -> Option<Event> {
        while let Some(output) = self.client.poll() {
            match output {
                Output::Send { to, bytes } => self.net.send(to, &bytes),
                Output::Broadcast { bytes } => self.net.broadcast(&bytes),
                Output::Event(event) => return Some(event),
            }
        }
        None
    }

    fn receive(&mut self) {
        for _ in 0..BATCH {
            let Some((len, from)) = self.net.receive(&mut self.buffer) else { return };
            self.client.handle(Input::Datagram { from, bytes: &self.buffer[..len] }, self.clock.now());
        }
    }
}

/// A monotonic clock that starts near zero with whoever holds it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
}

/// A deadline beyond this is as good as none; the timer of the runtime does not count much further.
const HORIZON: Duration = Duration::from_hours(24);

impl Clock {
    /// A clock that starts now.
    pub(crate) fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// Now.
    pub(crate) fn now(self) -> Time {
        Time::from_micros(u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// When `time` is; never further away than the horizon.
    pub(crate) fn instant(self, time: Time) -> Instant {
        Instant::now() + time.since(self.now()).min(HORIZON)
    }
}

/// Milliseconds since 1970 as this machine's clock has it.
pub(crate) fn wall_millis() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// 256 bits of entropy from the operating system.
pub(crate) fn seed() -> Result<[u8; 32], Fail> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)
        .map_err(|why| Fail::new(Fail::FAILED, format!("the system gives no random numbers: {why}")))?;
    Ok(seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_at_most_a_day_away() {
        let clock = Clock::start();
        assert!(clock.instant(Time::from_micros(u64::MAX)) <= Instant::now() + HORIZON);
        assert!(clock.instant(Time::ZERO) <= Instant::now());
    }
}

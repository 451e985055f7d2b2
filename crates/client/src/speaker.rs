//! Somebody who talks: a person, a device with its outbox, and a session.
//!
//! Here posts become durable before they leave, and leave the outbox once they are settled. What was left there by an
//! earlier process is posted again at the start.

use std::time::Duration;

use hobnob_proto::{
    client::{Command, Event},
    ids::{DeviceId, PersonId, PersonName, RoomName},
    limits,
    wire::frame::{Ask, Refusal},
};
use serde_json::Value;

use crate::{
    Fail, Options,
    device::Device,
    driver::{self, Session, Talker},
    identity::StateDir,
};

/// How long a script looks for a server.
pub(crate) const SEARCH: Duration = Duration::from_secs(3);

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(5);

/// Somebody who talks.
#[derive(Debug)]
pub(crate) struct Speaker {
    session: Session,
    /// `None`: only asks, and posts nothing.
    device: Option<Device>,
    person: PersonId,
    /// Whether the name was asked for, so that another one will not do.
    insists: bool,
}

/// What a speaker hears.
#[derive(Clone, Debug)]
pub(crate) enum Heard {
    /// An event that says all by itself.
    Event(Event),
    /// A post of ours was refused. The text is the person's again.
    Unsent {
        /// Where.
        room: RoomName,
        /// Its number.
        seq: u64,
        /// The text.
        body: String,
        /// A sentence that says why.
        why: String,
    },
    /// A post of ours goes out again under another number.
    Renumbered {
        /// Where.
        room: RoomName,
        /// The number that it had.
        old: u64,
        /// The number that it has.
        new: u64,
    },
}

impl Speaker {
    /// Somebody who may post, as `name`. Posts what is left in the outbox.
    pub(crate) fn open(options: &Options, name: PersonName, via: &'static str) -> Result<Self, Fail> {
        let identity = StateDir::of_user()?.identity(&name)?;
        let device = Device::open(&identity.devices, &options.cluster)?;
        let person = identity.key.person();
        let talker = Talker { person: identity.key, device: device.id(), name, via };
        let mut session = Session::open(options, talker)?;
        for post in device.unsettled() {
            session.command(Command::Post { room: post.room, seq: post.seq, body: post.body });
        }
        Ok(Self { session, device: Some(device), person, insists: options.name.is_some() })
    }

    /// Somebody who only asks and listens.
    pub(crate) fn asking(options: &Options) -> Result<Self, Fail> {
        let name = options.name.clone().unwrap_or_else(default_name);
        let identity = StateDir::of_user()?.identity(&name)?;
        let person = identity.key.person();
        let random = driver::seed()?;
        let device = DeviceId(u64::from_be_bytes(*random.first_chunk().expect("a seed has 32 bytes")));
        let talker = Talker { person: identity.key, device, name, via: "script" };
        Ok(Self { session: Session::open(options, talker)?, device: None, person, insists: options.name.is_some() })
    }

    /// The session.
    pub(crate) fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    /// The person and the device, as they stand on entries.
    pub(crate) fn author(&self) -> (PersonId, Option<DeviceId>) {
        (self.person, self.device.as_ref().map(Device::id))
    }

    /// How many posts are not settled.
    pub(crate) fn unsettled(&self) -> usize {
        self.device.as_ref().map_or(0, |device| device.unsettled().len())
    }

    /// Makes texts durable and posts them; their numbers. Where that fails, none of them has left.
    pub(crate) fn post(&mut self, room: &RoomName, bodies: Vec<String>) -> Result<Vec<u64>, Fail> {
        let device = self.device.as_mut().ok_or_else(|| Fail::new(Fail::FAILED, "this command posts nothing"))?;
        let posts = device.post(room, bodies)?;
        let seqs = posts.iter().map(|post| post.seq).collect();
        for post in posts {
            self.session.command(Command::Post { room: post.room, seq: post.seq, body: post.body });
        }
        Ok(seqs)
    }

    /// The next thing that is heard. Nothing is lost where the wait is given up.
    pub(crate) async fn hear(&mut self) -> Result<Heard, Fail> {
        let event = self.session.event().await;
        self.note(event)
    }

    /// The next thing that is heard, or `None` after `span`.
    pub(crate) async fn hear_within(&mut self, span: Duration) -> Result<Option<Heard>, Fail> {
        let deadline = self.session.now() + span;
        match self.session.event_before(deadline).await {
            Some(event) => self.note(event).map(Some),
            None => Ok(None),
        }
    }

    /// Waits until a server serves us. Takes the name that is suggested, unless one was asked for.
    pub(crate) async fn connect(&mut self) -> Result<(), Fail> {
        let deadline = self.session.now() + SEARCH;
        while let Some(event) = self.session.event_before(deadline).await {
            let is_connected = matches!(event, Event::Connected { .. });
            if let Heard::Event(event) = self.note(event)? {
                self.object(&event)?;
            }
            if is_connected {
                return Ok(());
            }
        }
        Err(self.not_found())
    }

    /// That no server was found, and where was looked.
    pub(crate) fn not_found(&self) -> Fail {
        let place = self.session.searched();
        let message = format!(
            "no server answered ({place}): start one with `hobnob server`, or name one with --server-ip and --server-port"
        );
        Fail::new(Fail::NOT_FOUND, message)
    }

    /// Answers an event that speaks against us, where nobody can be asked: takes the name that is suggested, or fails.
    pub(crate) fn object(&mut self, event: &Event) -> Result<(), Fail> {
        match event {
            Event::NotWelcome { suggestion: Some(name), .. } if !self.insists => {
                self.session.command(Command::Rename { name: name.clone() });
                Ok(())
            }
            Event::NotWelcome { why, suggestion } => {
                let hint = suggestion.as_ref().map(|name| format!(" (free: {name})")).unwrap_or_default();
                Err(Fail::new(Fail::NOT_ALLOWED, format!("{why}{hint}")))
            }
            Event::NotTrusted { why } => Err(Fail::new(Fail::NOT_ALLOWED, why.clone())),
            _ => Ok(()),
        }
    }

    /// Asks; the parts of the answer.
    pub(crate) async fn ask(&mut self, ask: Ask) -> Result<Vec<Value>, Fail> {
        const ID: u64 = 1;
        self.session.command(Command::Ask { id: ID, ask });
        let mut parts = Vec::new();
        let deadline = self.session.now() + ANSWER;
        while let Some(event) = self.session.event_before(deadline).await {
            match event {
                Event::Answer { id: ID, data, last } => {
                    parts.push(data);
                    if last {
                        return Ok(parts);
                    }
                }
                Event::AnswerError { id: ID, why } => return Err(Fail::new(Fail::FAILED, why)),
                event => self.object(&event)?,
            }
        }
        Err(Fail::new(Fail::FAILED, format!("the servers did not answer within {} s: try again", ANSWER.as_secs())))
    }

    /// Says goodbye.
    pub(crate) async fn quit(self) {
        self.session.quit().await;
    }

    /// Takes note of what became of posts.
    fn note(&mut self, event: Event) -> Result<Heard, Fail> {
        let Some(device) = &mut self.device else { return Ok(Heard::Event(event)) };
        match event {
            Event::Acked { ref room, seq, stored: true, .. } => {
                device.settle(room, seq);
                Ok(Heard::Event(event))
            }
            Event::Refused { room, seq, why } => {
                let body = device.body(&room, seq).unwrap_or_default().to_owned();
                if why == Refusal::Clash && !body.is_empty() {
                    return self.post_anew(room, seq, body);
                }
                device.settle(&room, seq);
                Ok(Heard::Unsent { room, seq, body, why: refusal(why) })
            }
            event => Ok(Heard::Event(event)),
        }
    }

    /// Posts a text again as another device: its number was used by somebody else, as after a disk was cloned.
    fn post_anew(&mut self, room: RoomName, old: u64, body: String) -> Result<Heard, Fail> {
        if let Some(device) = &mut self.device {
            device.settle(&room, old);
            device.renew()?;
            self.session.command(Command::NewDevice { device: device.id() });
        }
        let seqs = self.post(&room, vec![body])?;
        Ok(Heard::Renumbered { room, old, new: seqs.first().copied().unwrap_or(old) })
    }
}

/// Why a post was refused, as a sentence.
fn refusal(why: Refusal) -> String {
    match why {
        Refusal::TooLong => format!("it is longer than {} bytes: send it in pieces", limits::BODY_BYTES_MAX),
        Refusal::Clash => "its number was used before: send it again".to_owned(),
        Refusal::UnknownKind => "the server is too old for this kind of message".to_owned(),
    }
}

/// Why a text cannot be a message, as a sentence.
pub(crate) fn check_body(body: &str) -> Result<(), String> {
    if body.len() <= limits::BODY_BYTES_MAX {
        return Ok(());
    }
    Err(format!("it has {} bytes, and a message has at most {}: send it in pieces", body.len(), limits::BODY_BYTES_MAX))
}

/// The name of whoever gave none: that of the user, or `hobnob`.
pub(crate) fn default_name() -> PersonName {
    let user = std::env::var("USER").ok().and_then(|user| user.parse().ok());
    user.unwrap_or_else(|| "hobnob".parse().expect("hobnob is a name"))
}

//! Somebody who talks: a person, a device with its outbox, and a session.
//!
//! Here posts become durable before they leave, and leave the outbox once they are settled. What was left there by an
//! earlier process is posted again at the start.

use std::time::Duration;

use hobnob_proto::{
    client::{Command, Event},
    ids::{DeviceId, PersonName, RoomName},
    limits,
    time::Time,
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

/// How long a server that can be trusted has to come forward, after one that cannot: anybody may send a wrong answer to the
/// search, so that alone must not keep us from our cluster.
const TRUST: Duration = Duration::from_secs(1);

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(5);

/// Somebody who talks.
#[derive(Debug)]
pub(crate) struct Speaker {
    session: Session,
    /// `None`: only asks, and posts nothing.
    device: Option<Device>,
    /// Whether the name was asked for, so that another one will not do.
    insists: bool,
    /// Whether a server serves us, or did.
    is_connected: bool,
    /// Why a server that answered is not trusted, and until when another one may come forward.
    distrust: Option<(Time, String)>,
    /// How many questions were asked: the number of the last one.
    asks: u64,
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
}

impl Speaker {
    /// Somebody who may post, as `name`. Posts what is left in the outbox.
    pub(crate) fn open(options: &Options, name: PersonName, via: &'static str) -> Result<Self, Fail> {
        let identity = StateDir::of_user()?.identity(&name)?;
        let device = Device::open(&identity.devices, &options.cluster)?;
        let talker = Talker { person: identity.key, device: device.id(), name, via };
        let mut session = Session::open(options, talker)?;
        for post in device.unsettled() {
            session.command(Command::Post { room: post.room, seq: post.seq, body: post.body });
        }
        Ok(Self::new(session, Some(device), options))
    }

    /// Somebody who only asks and listens.
    pub(crate) fn asking(options: &Options) -> Result<Self, Fail> {
        let name = options.name.clone().unwrap_or_else(default_name);
        let identity = StateDir::of_user()?.identity(&name)?;
        let random = driver::seed()?;
        let device = DeviceId(u64::from_be_bytes(*random.first_chunk().expect("a seed has 32 bytes")));
        let talker = Talker { person: identity.key, device, name, via: "script" };
        Ok(Self::new(Session::open(options, talker)?, None, options))
    }

    fn new(session: Session, device: Option<Device>, options: &Options) -> Self {
        Self { session, device, insists: options.name.is_some(), is_connected: false, distrust: None, asks: 0 }
    }

    /// The session.
    pub(crate) fn session(&mut self) -> &mut Session {
        &mut self.session
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

    /// The next thing that is heard; fails where no server is found but one that is not trusted. Nothing is lost where the
    /// wait is given up.
    pub(crate) async fn hear(&mut self) -> Result<Heard, Fail> {
        let event = match &self.distrust {
            None => self.session.event().await,
            Some((until, why)) => match self.session.event_before(*until).await {
                Some(event) => event,
                None => return Err(Fail::new(Fail::NOT_ALLOWED, why.clone())),
            },
        };
        self.note(event)
    }

    /// The next thing that is heard, or `None` after `span`.
    pub(crate) async fn hear_within(&mut self, span: Duration) -> Result<Option<Heard>, Fail> {
        tokio::time::timeout(span, self.hear()).await.ok().transpose()
    }

    /// Waits until a server serves us. Takes the name that is suggested, unless one was asked for.
    pub(crate) async fn connect(&mut self) -> Result<(), Fail> {
        let deadline = self.session.now() + SEARCH;
        while !self.is_connected {
            let left = deadline.since(self.session.now());
            match self.hear_within(left).await? {
                Some(Heard::Event(event)) => self.object(&event)?,
                Some(Heard::Unsent { .. }) => {}
                None => return Err(self.not_found()),
            }
        }
        Ok(())
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
            _ => Ok(()),
        }
    }

    /// Asks; the parts of the answer.
    pub(crate) async fn ask(&mut self, ask: Ask) -> Result<Vec<Value>, Fail> {
        self.asks += 1;
        let id = self.asks;
        self.session.command(Command::Ask { id, ask });
        let mut parts = Vec::new();
        let deadline = self.session.now() + ANSWER;
        while let Some(event) = self.session.event_before(deadline).await {
            match event {
                Event::Answer { id: answered, data, last } if answered == id => {
                    parts.push(data);
                    if last {
                        return Ok(parts);
                    }
                }
                Event::AnswerError { id: answered, why } if answered == id => return Err(Fail::new(Fail::FAILED, why)),
                event => self.object(&event)?,
            }
        }
        Err(Fail::new(Fail::FAILED, format!("the servers did not answer within {} s: try again", ANSWER.as_secs())))
    }

    /// Says goodbye.
    pub(crate) async fn quit(self) {
        self.session.quit().await;
    }

    /// Takes note of what became of us and of our posts.
    fn note(&mut self, event: Event) -> Result<Heard, Fail> {
        match &event {
            Event::Connected { .. } => {
                self.is_connected = true;
                self.distrust = None;
            }
            Event::NotTrusted { why } if !self.is_connected && self.distrust.is_none() => {
                self.distrust = Some((self.session.now() + TRUST, why.clone()));
            }
            _ => {}
        }
        let Some(device) = &mut self.device else { return Ok(Heard::Event(event)) };
        match event {
            Event::Acked { ref room, seq, stored: true, .. } => device.settle(room, seq),
            Event::Acked { ref room, seq, .. } => device.accept(room, seq),
            // Somebody else has used our numbers, as after a disk was cloned. All that was not accepted goes out again,
            // under the same numbers of another device.
            Event::Refused { why: Refusal::Clash, .. } => {
                device.renew()?;
                self.session.command(Command::NewDevice { device: device.id() });
            }
            Event::Refused { room, seq, why } => {
                let body = device.body(&room, seq).unwrap_or_default().to_owned();
                device.settle(&room, seq);
                return Ok(Heard::Unsent { room, seq, body, why: refusal(why) });
            }
            _ => {}
        }
        Ok(Heard::Event(event))
    }
}

/// Why a post was refused, as a sentence.
fn refusal(why: Refusal) -> String {
    match why {
        Refusal::TooLong => format!("it is longer than {} bytes: send it in pieces", limits::BODY_BYTES_MAX),
        Refusal::Clash => "its number is taken: send it again".to_owned(),
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

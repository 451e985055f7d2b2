//! Somebody who talks: a person, a device with its outbox, and a session.
//!
//! Here posts become durable before they leave, and leave the outbox once they are settled. What was left there by an
//! earlier process is posted again at the start.

use std::{
    collections::{BTreeSet, VecDeque},
    net::SocketAddr,
    time::Duration,
};

use hobnob_proto::{
    client::{Command, Event},
    ids::{ClusterId, DeviceId, PersonName, RoomName},
    limits,
    rng::Rng,
    session::keys::KeyPair,
    time::Time,
    wire::frame::{Ask, Refusal},
};
use serde_json::Value;

use crate::{
    Fail, Options,
    advice::NO_ANSWER,
    device::{Device, Met, Realm},
    driver::{self, Session, Talker},
    identity::StateDir,
    output, text,
};

/// How long a script looks for a server.
pub(crate) const SEARCH: Duration = Duration::from_secs(3);

/// How long a server that can be trusted has to come forward, after one that cannot: anybody may send a wrong answer to the
/// search, so that alone must not keep us from our cluster.
const TRUST: Duration = Duration::from_secs(1);

/// What is said while no server answers.
pub(crate) const SEARCHING: &str = "no server has answered yet; still looking";

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(5);

/// Somebody who talks.
#[derive(Debug)]
pub(crate) struct Speaker {
    session: Session,
    /// `None`: only asks, and posts nothing.
    device: Option<Device>,
    /// Posts that an earlier process left behind in an open cluster, until one answers: no post leaves before. `None`:
    /// one has, or it is a closed one, where all posts leave at once.
    leftovers: Option<BTreeSet<(RoomName, u64)>>,
    /// What is to be heard next.
    notices: VecDeque<String>,
    /// Servers that were named.
    servers: Vec<SocketAddr>,
    /// Whether the cluster is open, once a server has said so.
    open: Option<bool>,
    /// Whether the name was asked for, so that another one will not do.
    insists: bool,
    /// Whether a server serves us, or did.
    is_connected: bool,
    /// Whether it was said what to try where no server answers.
    is_advised: bool,
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
    /// A sentence for the person.
    Notice(String),
    /// No server has answered yet. Repeated while that is so.
    Searching {
        /// Where was looked and what to try, a line each; the first time only.
        advice: Vec<String>,
    },
}

impl Speaker {
    /// Somebody who may post, as `name`. Posts what is left in the outbox, where it belongs to the cluster that answers.
    pub(crate) fn open(options: &Options, name: PersonName, via: &'static str) -> Result<Self, Fail> {
        let identity = StateDir::of_user()?.identity(&name)?;
        let device = Device::open(&identity.devices, &Realm::new(&options.cluster, options.secret.as_ref()))?;
        let talker = Talker { person: identity.key, device: device.id(), name, via };
        let session = Session::open(options, talker)?;
        let leftovers = device.unsettled().into_iter().map(|post| (post.room, post.seq)).collect();
        let mut speaker = Self::new(session, Some(device), options);
        if options.secret.is_none() {
            speaker.leftovers = Some(leftovers);
        } else {
            speaker.post_again(&leftovers);
        }
        Ok(speaker)
    }

    /// Somebody who only asks: nobody in particular, with a key that is thrown away, and no files.
    pub(crate) fn asking(options: &Options) -> Result<Self, Fail> {
        let mut rng = Rng::from_seed(driver::seed()?);
        // A name of its own, so that nobody who chats has to give theirs up for it.
        let name = format!("asking-{:08x}", rng.u64() >> 32).parse().expect("these are letters and digits");
        let talker = Talker { person: KeyPair::generate(&mut rng), device: DeviceId(rng.u64()), name, via: "script" };
        let mut speaker = Self::new(Session::open(options, talker)?, None, options);
        speaker.insists = false;
        Ok(speaker)
    }

    /// Somebody who listens, and posts nothing.
    pub(crate) fn listening(options: &Options) -> Result<Self, Fail> {
        let name = options.name.clone().unwrap_or_else(default_name);
        let identity = StateDir::of_user()?.identity(&name)?;
        let random = driver::seed()?;
        let device = DeviceId(u64::from_be_bytes(*random.first_chunk().expect("a seed has 32 bytes")));
        let talker = Talker { person: identity.key, device, name, via: "script" };
        Ok(Self::new(Session::open(options, talker)?, None, options))
    }

    fn new(session: Session, device: Option<Device>, options: &Options) -> Self {
        Self {
            session,
            device,
            leftovers: None,
            notices: VecDeque::new(),
            servers: options.servers.clone(),
            open: None,
            insists: options.name.is_some(),
            is_connected: false,
            is_advised: false,
            distrust: None,
            asks: 0,
        }
    }

    /// The session.
    pub(crate) fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    /// Whether the cluster is open; `None`: no server has answered.
    pub(crate) fn open_cluster(&self) -> Option<bool> {
        self.open
    }

    /// Makes texts durable and posts them; their numbers. Where that fails, none of them has left.
    pub(crate) fn post(&mut self, room: &RoomName, bodies: Vec<String>) -> Result<Vec<u64>, Fail> {
        let device = self.device.as_mut().ok_or_else(|| Fail::new(Fail::FAILED, "this command posts nothing"))?;
        let posts = device.post(room, bodies)?;
        let seqs = posts.iter().map(|post| post.seq).collect();
        for post in posts.into_iter().filter(|_| self.leftovers.is_none()) {
            self.session.command(Command::Post { room: post.room, seq: post.seq, body: post.body });
        }
        Ok(seqs)
    }

    /// The next thing that is heard; fails where no server is found but one that is not trusted. Nothing is lost where the
    /// wait is given up.
    pub(crate) async fn hear(&mut self) -> Result<Heard, Fail> {
        if let Some(notice) = self.notices.pop_front() {
            return Ok(Heard::Notice(notice));
        }
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
                Some(Heard::Unsent { .. } | Heard::Searching { .. }) => {}
                Some(Heard::Notice(notice)) => output::status(&notice),
                None => return Err(self.not_found()),
            }
        }
        Ok(())
    }

    /// That no server was found, and where was looked.
    pub(crate) fn not_found(&self) -> Fail {
        if let [server] = self.servers[..] {
            let message = format!(
                "the server at {server} does not answer: check address and port, and that no firewall keeps UDP from it"
            );
            return Fail::new(Fail::NOT_FOUND, message);
        }
        Fail::new(Fail::NOT_FOUND, self.session.not_found())
    }

    /// What to try where no server answers; nothing where it was said already.
    fn advice(&mut self) -> Vec<String> {
        if std::mem::replace(&mut self.is_advised, true) {
            return Vec::new();
        }
        // That no server answers is said by whoever hears it.
        let advice = self.not_found().message;
        advice.lines().filter(|line| *line != NO_ANSWER).map(str::to_owned).collect()
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

    /// A cluster has answered: what waits for it leaves.
    fn meet(&mut self, cluster: ClusterId, open: bool) -> Result<(), Fail> {
        let Some(device) = &mut self.device else { return Ok(()) };
        let Some(leftovers) = self.leftovers.take() else {
            // Another cluster may have taken in the one that we were in.
            if open {
                device.note_cluster(cluster);
            }
            return Ok(());
        };
        let met = device.meet(cluster, &leftovers)?;
        if met != Met::Same {
            let device = device.id();
            self.session.command(Command::NewDevice { device });
        }
        match met {
            Met::Same => self.post_again(&leftovers),
            Met::Back => {
                let all = device.unsettled().into_iter().map(|post| (post.room, post.seq)).collect();
                self.post_again(&all);
            }
            Met::Other => {
                let messages = text::count(leftovers.len() as u64, "message");
                self.notices.push_back(format!(
                    "{messages} from before not sent here: kept for the cluster that they were written in"
                ));
                self.post_again(&BTreeSet::new());
            }
        }
        Ok(())
    }

    /// Posts all that is not settled; some of it is of an earlier process.
    fn post_again(&mut self, leftovers: &BTreeSet<(RoomName, u64)>) {
        for post in self.device.iter().flat_map(Device::unsettled) {
            self.session.command(Command::Post { room: post.room, seq: post.seq, body: post.body });
        }
        if !leftovers.is_empty() {
            let were = if leftovers.len() == 1 { "was" } else { "were" };
            let messages = text::count(leftovers.len() as u64, "message");
            self.notices.push_back(format!("sending {messages} that {were} not stored last time"));
        }
    }

    /// Takes note of what became of us and of our posts.
    fn note(&mut self, event: Event) -> Result<Heard, Fail> {
        match &event {
            Event::Connected { cluster, open, .. } => {
                self.is_connected = true;
                self.distrust = None;
                self.open = Some(*open);
                self.meet(*cluster, *open)?;
            }
            Event::NotTrusted { why } if !self.is_connected && self.distrust.is_none() => {
                self.distrust = Some((self.session.now() + TRUST, why.clone()));
            }
            _ => {}
        }
        if matches!(event, Event::Searching) {
            return Ok(Heard::Searching { advice: self.advice() });
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
            Event::Refused { room, why: Refusal::CannotStore, .. } => {
                let why = format!(
                    "the server of #{room} cannot write to its disk: your message waits here, and is sent again"
                );
                return Ok(Heard::Notice(why));
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
        Refusal::CannotStore => "the server cannot write to its disk".to_owned(),
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

//! The stage of the demo: who is on it, what they have printed, and what can be told of it.

use std::{
    collections::{BTreeMap, VecDeque},
    net::UdpSocket,
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::{Duration, Instant},
};

use hobnob_client::Fail;
use serde_json::Value;

use crate::{
    demo::{
        children::{GLANCE, Home, Line, Process, Starter, failed},
        ledger::{Room, Tally},
        people::{PEOPLE, Person},
    },
    interrupt,
};

/// How many servers there are.
const SERVERS: u64 = 3;
/// How long anything may take that is not measured: start, find each other, settle.
const PATIENCE: Duration = Duration::from_secs(20);
/// Time between two lines of everybody.
const BREATH: Duration = Duration::from_millis(150);
/// Lines of the servers that are kept, for when something goes wrong.
const LAST_WORDS: usize = 20;

/// Something that a server's log said.
#[derive(Debug)]
struct Said {
    what: String,
    /// The server that it is about.
    about: Option<u64>,
    at: Instant,
}

/// A command that was started to learn something.
#[derive(Debug)]
struct Question {
    _process: Process,
    /// What it has printed.
    answer: String,
    /// Whether that is all.
    is_whole: bool,
}

/// The stage.
#[derive(Debug)]
pub(crate) struct Stage {
    // Fields are dropped in this order: first the processes, then their home.
    people: Vec<Person>,
    servers: BTreeMap<u64, Process>,
    question: Option<Question>,
    starter: Starter,
    lines: Receiver<Line>,
    rooms: BTreeMap<&'static str, Room>,
    said: Vec<Said>,
    last_words: VecDeque<String>,
    ports: BTreeMap<u64, u16>,
    start: Instant,
    /// Time between two lines of everybody.
    breath: Duration,
    /// Whether what happens is printed.
    tells: bool,
}

impl Stage {
    /// An empty stage.
    pub(crate) fn set() -> Result<Self, Fail> {
        // Whoever is on the stage is sent home before the process ends.
        interrupt::watch().map_err(|why| failed(&why))?;
        let mut tag = [0; 8];
        getrandom::fill(&mut tag).map_err(|error| failed(&format!("no random numbers: {error}")))?;
        let tag = format!("{:016x}", u64::from_ne_bytes(tag));
        let (to_us, lines) = channel();
        Ok(Self {
            people: Vec::new(),
            servers: BTreeMap::new(),
            question: None,
            starter: Starter {
                home: Home::new(&tag)?,
                cluster: format!("demo-{tag}"),
                discovery_port: free_port()?,
                lines: to_us,
            },
            lines,
            rooms: BTreeMap::new(),
            said: Vec::new(),
            last_words: VecDeque::new(),
            ports: BTreeMap::new(),
            start: Instant::now(),
            breath: BREATH,
            tells: true,
        })
    }

    /// The same without a word about it, and with so much time between two lines of everybody.
    pub(crate) fn quietly(self, breath: Duration) -> Self {
        Self { breath, tells: false, ..self }
    }

    /// Says something, with the time.
    pub(super) fn tell(&self, what: &str) {
        if self.tells {
            println!("{:6.2} s  {what}", self.start.elapsed().as_secs_f64());
        }
    }

    /// Starts the servers and waits until they agree. Who leads.
    pub(crate) fn start_servers(&mut self) -> Result<u64, Fail> {
        self.tell("Starting three servers and four people on this machine. Nothing leaves it.");
        for id in 1..=SERVERS {
            let port = free_port()?;
            let args = ["server", "--id", &id.to_string(), "--port", &port.to_string(), "--log", "json"];
            let server = self.starter.start(&format!("server {id}"), &args)?;
            self.servers.insert(id, server);
            self.ports.insert(id, port);
        }
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            let mut leaders = Vec::new();
            for id in 1..=SERVERS {
                leaders.push(self.status(id)?.as_ref().filter(|status| all_up(status)).map(leader));
            }
            // The first to be ready leads until the highest is: the story begins once all agree on that one.
            if leaders.iter().all(|leader| *leader == Some(Some(SERVERS))) {
                return Ok(SERVERS);
            }
        }
        Err(failed("the servers did not find each other"))
    }

    /// The people arrive, and each says a line that everybody in the room hears.
    pub(crate) fn start_people(&mut self) -> Result<(), Fail> {
        for (name, room) in PEOPLE {
            self.rooms.entry(room).or_default().add_reader(name);
            self.people.push(Person::arrive(&self.starter, name, room)?);
        }
        let arrived = Instant::now();
        self.everybody_talks()?;
        self.wait_until("not everybody heard the first line", |stage| {
            stage.rooms.values().all(|room| room.reached_all(arrived).is_some())
        })
    }

    /// Everybody talks for a while.
    pub(crate) fn talk_for(&mut self, span: Duration) -> Result<(), Fail> {
        let end = Instant::now() + span;
        while Instant::now() < end {
            self.talk_once()?;
        }
        Ok(())
    }

    /// Everybody says a line, and takes a breath.
    pub(crate) fn talk_once(&mut self) -> Result<(), Fail> {
        self.everybody_talks()?;
        let end = Instant::now() + self.breath;
        while Instant::now() < end {
            self.listen()?;
        }
        Ok(())
    }

    /// Where the first room lives, as the first server sees it.
    pub(crate) fn home(&mut self) -> Result<Option<u64>, Fail> {
        let status = self.status(1)?.unwrap_or_default();
        let is_first = |room: &&Value| room["name"] == PEOPLE[0].1;
        Ok(status["rooms"].as_array().and_then(|rooms| rooms.iter().find(is_first)?["home"].as_u64()))
    }

    /// Kills a server. When it was dead.
    pub(crate) fn kill(&mut self, id: u64) -> Result<Instant, Fail> {
        let mut server = self.servers.remove(&id).ok_or_else(|| failed("the leader is none of our servers"))?;
        let at = Instant::now();
        server.kill();
        Ok(at)
    }

    /// How long after `since` the first server said that `dead` is down.
    pub(super) fn noticed(&self, dead: u64, since: Instant) -> Option<Duration> {
        let down = |said: &&Said| said.what == "server is down" && said.about == Some(dead) && said.at > since;
        self.said.iter().find(down).map(|said| said.at - since)
    }

    /// Who leads instead of `dead`, and how long after `since` the last of the others said so.
    pub(super) fn new_leader(&self, dead: u64, since: Instant) -> Option<(u64, Duration)> {
        let others: Vec<&Said> = self
            .said
            .iter()
            .filter(|said| said.what == "leader" && said.at > since && said.about.is_some_and(|id| id != dead))
            .collect();
        let last = others.last()?;
        let agreed = others.iter().filter(|said| said.about == last.about).count() >= self.servers.len();
        agreed.then_some((last.about?, last.at - since))
    }

    /// How long after `since` every member had got a message that was written after it.
    pub(crate) fn recovered(&self, since: Instant) -> Option<Duration> {
        let reached = self.rooms.values().map(|room| room.reached_all(since));
        reached.reduce(|latest, at| Some(latest?.max(at?))).flatten().map(|at| at - since)
    }

    /// Everybody falls silent; waits until all is stored and seen, reads the logs of all servers, and counts.
    pub(super) fn settle(&mut self) -> Result<Tally, Fail> {
        self.people.iter_mut().for_each(Person::fall_silent);
        let ended = |stage: &mut Self| stage.people.iter_mut().all(|person| person.is_done().is_some());
        self.wait_until("those who talk did not end", ended)?;
        // What is missing after that is counted as such.
        let _counted_below =
            self.wait_until("", |stage| stage.rooms.values().all(|room| room.is_settled() && room.is_seen()));
        interrupted()?;
        for id in self.servers.keys().copied().collect::<Vec<_>>() {
            for room in ["kitchen", "garden"] {
                self.read_log(id, room)?;
            }
        }
        Ok(self.rooms.values().map(Room::tally).fold(Tally::default(), |sum, tally| sum + tally))
    }

    /// The last lines of the servers' logs.
    pub(super) fn last_words(&self) -> impl Iterator<Item = &str> {
        self.last_words.iter().map(String::as_str)
    }

    /// Everybody says their next line.
    fn everybody_talks(&mut self) -> Result<(), Fail> {
        for person in &mut self.people {
            person.talk(self.rooms.entry(person.room).or_default())?;
        }
        Ok(())
    }

    /// What a server says of the cluster; `None` where it does not answer.
    fn status(&mut self, id: u64) -> Result<Option<Value>, Fail> {
        let answer = self.ask(id, &["status", "--json"])?;
        Ok(serde_json::from_str(&answer).ok())
    }

    /// Reads a room's log from a server, which becomes a reader of the room.
    fn read_log(&mut self, id: u64, room: &'static str) -> Result<(), Fail> {
        let answer = self.ask(id, &["tail", "--json", "--since", "all", "--room", room])?;
        let reader = format!("log of server {id}");
        let account = self.rooms.entry(room).or_default();
        account.add_reader(&reader);
        for entry in answer.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            if let Some(body) = entry["body"].as_str() {
                account.see(&reader, body, Instant::now());
            }
        }
        Ok(())
    }

    /// What a command prints that asks this server.
    fn ask(&mut self, id: u64, args: &[&str]) -> Result<String, Fail> {
        let port = self.ports.get(&id).copied().unwrap_or_default().to_string();
        let args: Vec<&str> =
            args.iter().copied().chain(["--server-ip", "127.0.0.1", "--server-port", &port]).collect();
        let mut process = self.starter.start("question", &args)?;
        process.end_input();
        self.question = Some(Question { _process: process, answer: String::new(), is_whole: false });
        let answered = |stage: &mut Self| stage.question.as_ref().is_none_or(|question| question.is_whole);
        self.wait_until("a question was not answered", answered)?;
        Ok(self.question.take().map(|question| question.answer).unwrap_or_default())
    }

    /// Listens until `is_so`, for as long as patience lasts.
    fn wait_until(&mut self, otherwise: &str, is_so: impl Fn(&mut Self) -> bool) -> Result<(), Fail> {
        let end = Instant::now() + PATIENCE;
        while !is_so(self) {
            if Instant::now() > end {
                return Err(failed(otherwise));
            }
            self.listen()?;
        }
        Ok(())
    }

    /// Takes in a line, if there is one within a moment.
    fn listen(&mut self) -> Result<(), Fail> {
        interrupted()?;
        match self.lines.recv_timeout(GLANCE) {
            Ok(line) => self.hear(&line),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(failed("nobody is left")),
        }
        Ok(())
    }

    /// Understands a line.
    fn hear(&mut self, line: &Line) {
        let (who, does) = line.from.split_once(' ').unwrap_or((&line.from, ""));
        match (&line.text, line.is_error, who) {
            (Some(text), true, _) => self.hear_error(who, text, line),
            (text, false, "question") => self.hear_answer(text.as_deref()),
            (Some(text), false, _) => self.hear_person(who, does, text, line.at),
            (None, _, _) => {}
        }
    }

    /// Understands a line of an answer, or its end.
    fn hear_answer(&mut self, text: Option<&str>) {
        let Some(question) = &mut self.question else { return };
        match text {
            Some(text) => {
                question.answer.push_str(text);
                question.answer.push('\n');
            }
            None => question.is_whole = true,
        }
    }

    /// Understands a line that a person's process printed.
    fn hear_person(&mut self, who: &str, does: &str, text: &str, at: Instant) {
        let person = self.people.iter_mut().find(|person| person.name == who);
        let (Some(person), Ok(json)) = (person, serde_json::from_str::<Value>(text)) else { return };
        let room = self.rooms.entry(person.room).or_default();
        match (does, json["body"].as_str()) {
            ("talks", _) => person.read_ack(&json, room),
            ("listens", Some(body)) if room.see(who, body, at) && self.tells => {
                println!("{:>10}  #{} {}: {body}", "", person.room, json["from"].as_str().unwrap_or("?"));
            }
            _ => {}
        }
    }

    /// Understands a line on standard error, and keeps it; not those of questions, which are asked again and again.
    fn hear_error(&mut self, who: &str, text: &str, line: &Line) {
        if let (Ok(json), "server") = (serde_json::from_str(text), who) {
            self.hear_server(&json, line.at);
        }
        if who == "question" {
            return;
        }
        if self.last_words.len() == LAST_WORDS {
            self.last_words.pop_front();
        }
        self.last_words.push_back(format!("{}: {text}", line.from));
    }

    /// Understands a line of a server's log.
    fn hear_server(&mut self, json: &Value, at: Instant) {
        let fields = &json["fields"];
        if let Some(what @ ("leader" | "server is down")) = fields["message"].as_str() {
            let about = fields["leader"].as_u64().or(fields["server"].as_u64());
            self.said.push(Said { what: what.to_owned(), about, at });
        }
    }
}

/// An error once the person wants it to end.
fn interrupted() -> Result<(), Fail> {
    if interrupt::is_told() { Err(failed("interrupted")) } else { Ok(()) }
}

/// Whether a server sees all servers up.
fn all_up(status: &Value) -> bool {
    let up = |servers: &Vec<Value>| servers.iter().filter(|server| server["state"] == "up").count();
    status["servers"].as_array().map(up) == usize::try_from(SERVERS).ok()
}

/// Whom a server sees in the lead.
fn leader(status: &Value) -> Option<u64> {
    status["leader"].as_u64()
}

/// A port that nobody uses now. Below those that systems hand out by themselves, so that it stays free until it is used.
fn free_port() -> Result<u16, Fail> {
    for _ in 0..1_000 {
        let mut random = [0; 2];
        getrandom::fill(&mut random).map_err(|error| failed(&format!("no random numbers: {error}")))?;
        let port = 10_000 + u16::from_ne_bytes(random) % 20_000;
        if UdpSocket::bind(("0.0.0.0", port)).is_ok() {
            return Ok(port);
        }
    }
    Err(failed("no port is free"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn servers_agree_only_if_all_are_up() {
        fn check(states: &[&str], expected: bool) {
            let servers: Vec<Value> = states.iter().map(|state| json!({ "state": state })).collect();
            assert_eq!(all_up(&json!({ "servers": servers })), expected, "{states:?}");
        }
        check(&["up", "up", "up"], true);
        check(&["up", "up", "suspect"], false);
        check(&["up", "up"], false);
        check(&[], false);
    }
}

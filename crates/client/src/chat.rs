//! The chat as a person sees it: what was typed and what was heard in, lines of text and wishes out. Pure: no terminal,
//! no session, no clock.
//!
//! First it has no name (it asks for one), then no room (it lists those that there are), then it chats. What cannot be
//! sent goes back to the person, whole.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
    time::Duration,
};

use hobnob_proto::{
    client::{Command, Event},
    ids::{ClusterName, PersonName, RoomName, ServerId},
    log::Entry,
    time::Time,
    wire::frame::{Ask, Start},
};
use serde_json::Value;

use crate::{
    Fail,
    company::Company,
    script,
    speaker::{self, Heard},
    text::{self, printable},
};

mod answer;

/// Messages of before that are shown on joining a room.
const HISTORY: u32 = 50;

/// What takes longer than this is told.
const PATIENCE: Duration = Duration::from_secs(1);

const HELP: [&str; 8] = [
    "/rooms        the rooms that there are",
    "/join ROOM    go to a room, or make it",
    "/part [ROOM]  leave this room, or that one",
    "/who [ROOM]   who is in this room, or in that one",
    "/quit         leave (also Ctrl-D, Ctrl-C)",
    "/help         this",
    "Everything else is sent to the room. To begin a message with a slash, type two.",
    "Times are UTC.",
];

/// A line to be printed above the one that is being typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// One line, without control characters.
    pub(crate) text: String,
    /// Where its bytes are shown dimmed: words of the program, not of a person.
    pub(crate) dimmed: Range<usize>,
}

/// What the chat wants done.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Print a line.
    Print(Line),
    /// Start a session under this name, in place of one that may be there.
    Begin(PersonName),
    /// Pass a command on.
    Command(Command),
    /// Make a message durable and post it; then [`Chat::posted`], or [`Chat::unsent`].
    Post(RoomName, String),
    /// Put a text back into the line that is being typed.
    Keep(String),
    /// End.
    Quit(Result<(), Fail>),
}

/// What a line that is typed now means.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    /// A name; this one, where nothing is typed.
    Name(PersonName),
    /// Nothing yet: the rooms are not known.
    Search,
    /// A room to join.
    Room,
    /// A message or a command.
    Chat,
}

/// Why something was asked.
#[derive(Clone, Debug)]
enum Question {
    /// To choose a room at the start.
    FirstRooms,
    /// `/rooms`.
    Rooms,
    /// `/who`.
    Who,
}

/// A post that is not stored yet.
#[derive(Clone, Copy, Debug)]
struct Pending {
    since: Time,
    /// On how many servers it is; 0: not accepted.
    copies: u32,
    is_told: bool,
}

/// The chat.
#[derive(Debug)]
pub(crate) struct Chat {
    cluster: ClusterName,
    stage: Stage,
    /// Where messages go.
    room: Option<RoomName>,
    /// The rooms that are followed, with the day of the message shown last.
    rooms: BTreeMap<RoomName, String>,
    server: Option<ServerId>,
    company: Company,
    /// The server that was lost, since when, and whether that was told.
    lost: Option<(ServerId, Time, bool)>,
    pending: BTreeMap<(RoomName, u64), Pending>,
    asked: BTreeMap<u64, (Question, Vec<Value>)>,
    asks: u64,
    is_warned_of_memory: bool,
    effects: VecDeque<Effect>,
}

impl Chat {
    /// A chat in `cluster`. Asks for a name, offering `default`, or for a room, where they are not given.
    pub(crate) fn new(
        cluster: ClusterName,
        name: Option<PersonName>,
        default: PersonName,
        room: Option<RoomName>,
    ) -> Self {
        let mut chat = Self {
            cluster,
            stage: Stage::Name(default),
            room,
            rooms: BTreeMap::new(),
            server: None,
            company: Company::default(),
            lost: None,
            pending: BTreeMap::new(),
            asked: BTreeMap::new(),
            asks: 0,
            is_warned_of_memory: false,
            effects: VecDeque::new(),
        };
        if let Some(name) = name {
            chat.begin(name);
        }
        chat
    }

    /// The next thing to do, until there is none.
    pub(crate) fn poll(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// What stands before the line that is being typed.
    pub(crate) fn prompt(&self) -> String {
        match (&self.stage, &self.room) {
            (Stage::Name(name), _) => format!("Your name [{}]: ", printable(name.as_str())),
            (Stage::Room, _) => "Room to join or make [lobby]: ".to_owned(),
            (Stage::Chat, Some(room)) => format!("#{}> ", printable(room.as_str())),
            (Stage::Search | Stage::Chat, _) => "> ".to_owned(),
        }
    }

    /// A line was typed.
    pub(crate) fn line(&mut self, line: &str) {
        match self.stage.clone() {
            Stage::Name(default) => match if line.trim().is_empty() { Ok(default) } else { line.parse() } {
                Ok(name) => self.begin(name),
                Err(why) => self.keep(line, &format!("that cannot be a name: {why}")),
            },
            Stage::Search | Stage::Room if line.starts_with('/') => self.slash(line),
            Stage::Search if line.trim().is_empty() => {}
            Stage::Search => self.keep(line, "no server serves you yet"),
            Stage::Room if line.trim().is_empty() => self.join(RoomName::lobby()),
            Stage::Room => self.join_named(line, line),
            Stage::Chat => match line.strip_prefix('/') {
                Some(rest) if rest.starts_with('/') => self.say(line, rest),
                Some(_) => self.slash(line),
                None if line.trim().is_empty() => {}
                None => self.say(line, line),
            },
        }
    }

    /// A message is on its way, under this number.
    pub(crate) fn posted(&mut self, room: RoomName, seq: u64, now: Time) {
        self.pending.insert((room, seq), Pending { since: now, copies: 0, is_told: false });
    }

    /// A message is not on its way; its text goes back to the person.
    pub(crate) fn unsent(&mut self, body: &str, why: &str) {
        self.keep(body, &format!("not sent: {why}"));
    }

    /// How many messages are not stored yet.
    pub(crate) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Shows a status line.
    pub(crate) fn status(&mut self, text: &str) {
        self.print(format!("* {}", printable(text)), true);
    }

    /// When [`Self::tick`] is wanted.
    pub(crate) fn deadline(&self) -> Option<Time> {
        let posts = self.pending.values().filter(|pending| !pending.is_told).map(|pending| pending.since);
        let lost = self.lost.iter().filter(|(_, _, is_told)| !is_told).map(|(_, since, _)| *since);
        posts.chain(lost).min().map(|since| since + PATIENCE)
    }

    /// Tells what takes long.
    pub(crate) fn tick(&mut self, now: Time) {
        if let Some((server, since, false)) = self.lost
            && now.since(since) >= PATIENCE
        {
            self.lost = Some((server, since, true));
            self.status(&format!("server {server} went away; looking for another"));
        }
        let mut late =
            self.pending.values_mut().filter(|pending| !pending.is_told && now.since(pending.since) >= PATIENCE);
        let Some(first) = late.next().map(|pending| {
            pending.is_told = true;
            pending.copies
        }) else {
            return;
        };
        let count = 1 + late.map(|pending| pending.is_told = true).count() as u64;
        let messages = text::count(count, "message");
        self.status(&match first {
            0 => format!("{messages} not sent yet: kept here, and sent as soon as a server answers"),
            copies => format!("{messages} on {} so far, waiting for another", text::count(copies.into(), "server")),
        });
    }

    /// Something was heard.
    pub(crate) fn heard(&mut self, heard: Heard, now: Time) {
        match heard {
            Heard::Event(event) => self.event(event, now),
            Heard::Notice(notice) => self.status(&notice),
            Heard::Searching { advice } => {
                self.status(speaker::SEARCHING);
                for line in advice {
                    self.status(&line);
                }
            }
            Heard::Unsent { room, seq, body, why } => {
                self.pending.remove(&(room, seq));
                self.unsent(&body, &why);
            }
        }
    }

    fn event(&mut self, event: Event, now: Time) {
        match event {
            Event::Found { name, servers, .. } if name != self.cluster => {
                let servers = text::count(servers as u64, "server");
                self.status(&format!("there is another cluster here: {name}, with {servers}"));
            }
            Event::Connected { server, open, .. } => self.connected(server, open),
            Event::Lost { server } => self.lost = Some((server, now, false)),
            Event::NotWelcome { why, suggestion } => self.not_welcome(&why, suggestion),
            // Before that, the session itself ends the search.
            Event::NotTrusted { why } if self.server.is_some() => self.status(&why),
            Event::Joined { room, history } => {
                if !self.rooms.contains_key(&room) {
                    self.rooms.insert(room.clone(), String::new());
                    let before = text::count(history, "message");
                    self.status(&format!("you are in #{room} now; {before} before you"));
                }
            }
            Event::Message { entry, late, .. } => self.message(&entry, late),
            Event::HistoryGone { room, before } => self.status(&text::history_gone(&room, before)),
            Event::Acked { room, seq, copies, stored, durable, .. } => self.acked(room, seq, copies, stored, durable),
            Event::Servers { up } => {
                if let Some(told) = self.company.heard(&up) {
                    self.status(&told);
                }
            }
            Event::Answer { id, data, last } => self.answer(id, data, last),
            Event::AnswerError { id, why } => {
                if self.asked.remove(&id).is_some() {
                    self.status(&why);
                }
            }
            Event::Found { .. }
            | Event::Searching
            | Event::NotTrusted { .. }
            | Event::CaughtUp { .. }
            | Event::Refused { .. }
            | Event::Copying { .. }
            | Event::Floors { .. }
            | Event::Imported { .. } => {}
        }
    }

    fn begin(&mut self, name: PersonName) {
        self.effects.push_back(Effect::Begin(name));
        self.server = None;
        self.rooms.clear();
        match self.room.clone() {
            Some(room) => self.join(room),
            None => self.stage = Stage::Search,
        }
    }

    fn connected(&mut self, server: ServerId, open: bool) {
        match (self.lost.take(), self.server.replace(server)) {
            (Some((lost, _, false)), _) if lost != server => {
                self.status(&format!("server {lost} went away; served by server {server} now"));
            }
            (_, None) => {
                self.status(&format!("connected to server {server} of cluster {}", self.cluster));
                if open {
                    self.status("Open cluster: anyone on this network can read and post.");
                }
            }
            (None, Some(before)) if before == server => {}
            _ => self.status(&format!("served by server {server} now")),
        }
        if self.stage == Stage::Search && self.asked.is_empty() {
            self.ask(Question::FirstRooms, Ask::Rooms);
        }
    }

    fn not_welcome(&mut self, why: &str, suggestion: Option<PersonName>) {
        match suggestion {
            Some(name) => {
                self.status(why);
                self.asked.clear();
                self.stage = Stage::Name(name);
            }
            None => self.quit(Err(Fail::new(Fail::NOT_ALLOWED, why))),
        }
    }

    fn message(&mut self, entry: &Entry, late: bool) {
        if !script::is_shown(entry, false) {
            return;
        }
        let day = text::day(entry.hlc.millis);
        if Some(&entry.room) == self.room.as_ref() {
            self.rooms.entry(entry.room.clone()).or_default();
        }
        // What still comes from a room that was left is not shown.
        let Some(last) = self.rooms.get_mut(&entry.room) else { return };
        // A late message would turn the days to and fro.
        let is_new_day = !late && *last != day;
        if is_new_day {
            last.clone_from(&day);
        }
        let mark = match late {
            true if *last != day => format!(" (late, of {day})"),
            true => " (late)".to_owned(),
            false => String::new(),
        };
        let elsewhere = Some(&entry.room) != self.room.as_ref();
        let place = if elsewhere { format!("#{} ", printable(entry.room.as_str())) } else { String::new() };
        if is_new_day {
            self.print(format!("* {place}{day}"), true);
        }
        let time = text::time_of_day(entry.hlc.millis);
        if entry.is_lost() {
            return self.print(format!("* {place}{time}{mark} {}", script::LOST), true);
        }
        let mut lines = entry.body.split('\n').map(printable);
        let first = lines.next().unwrap_or_default();
        let before = format!("{place}{time} {}", printable(entry.from.as_str()));
        let dimmed = before.len()..before.len() + mark.len();
        self.effects.push_back(Effect::Print(Line { text: format!("{before}{mark}: {first}"), dimmed }));
        // Set in, so that no text can pose as a message of somebody else.
        for line in lines {
            self.print(format!("      {line}"), false);
        }
    }

    fn acked(&mut self, room: RoomName, seq: u64, copies: u32, stored: bool, durable: bool) {
        if !durable && !self.is_warned_of_memory {
            self.is_warned_of_memory = true;
            self.status("messages are in memory only: they are gone once all servers have stopped");
        }
        let key = (room, seq);
        if !stored {
            if let Some(pending) = self.pending.get_mut(&key) {
                pending.copies = copies;
            }
            return;
        }
        let was_told = self.pending.remove(&key).is_some_and(|pending| pending.is_told);
        if was_told && !self.pending.values().any(|pending| pending.is_told) {
            self.status(&format!("sent: now on {}", text::count(copies.into(), "server")));
        }
    }

    fn slash(&mut self, line: &str) {
        let (command, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        match command {
            "/rooms" => self.ask(Question::Rooms, Ask::Rooms),
            "/join" => self.join_named(rest, line),
            "/part" => self.part(rest, line),
            "/who" => match self.room_or_this(rest) {
                Ok(room) => self.ask(Question::Who, Ask::Who { room }),
                Err(why) => self.keep(line, &why),
            },
            "/quit" => self.quit(Ok(())),
            "/help" => HELP.iter().for_each(|help| self.status(help)),
            _ => {
                let why = format!(
                    "there is no command {command}: /help lists them. To send a text that begins with a slash, type two"
                );
                self.keep(line, &why);
            }
        }
    }

    /// Joins the room of this name; where it is none, `line` goes back to the person.
    fn join_named(&mut self, name: &str, line: &str) {
        match name.parse() {
            Ok(room) => self.join(room),
            Err(why) => self.keep(line, &format!("that cannot be a room: {why}")),
        }
    }

    fn join(&mut self, room: RoomName) {
        if self.rooms.contains_key(&room) {
            self.status(&format!("you are in #{room}"));
        } else {
            self.effects.push_back(Effect::Command(Command::Join { room: room.clone(), from: Start::Last(HISTORY) }));
        }
        self.room = Some(room);
        self.stage = Stage::Chat;
    }

    /// The room of this name, or the one where messages go, if there is no name.
    fn room_or_this(&self, name: &str) -> Result<Option<RoomName>, String> {
        if name.trim().is_empty() {
            return Ok(self.room.clone());
        }
        name.parse().map(Some).map_err(|why| format!("that cannot be a room: {why}"))
    }

    fn part(&mut self, name: &str, line: &str) {
        let room = match self.room_or_this(name) {
            Ok(Some(room)) => room,
            Ok(None) => return self.keep(line, "you are in no room"),
            Err(why) => return self.keep(line, &why),
        };
        let is_this = self.room.as_ref() == Some(&room);
        if self.rooms.remove(&room).is_none() && !is_this {
            return self.keep(line, &format!("you are not in #{room}"));
        }
        if is_this {
            self.room = self.rooms.keys().next().cloned();
        }
        self.effects.push_back(Effect::Command(Command::Part { room: room.clone() }));
        let now = self.room.as_ref().map_or_else(|| "in no room".to_owned(), |room| format!("in #{room}"));
        self.status(&format!("you have left #{room}, and are {now} now"));
    }

    fn say(&mut self, line: &str, body: &str) {
        match (self.room.clone(), speaker::check_body(body)) {
            (None, _) => self.keep(line, "you are in no room: /join one"),
            (Some(_), Err(why)) => self.keep(line, &format!("not sent: {why}")),
            (Some(room), Ok(())) => self.effects.push_back(Effect::Post(room, body.to_owned())),
        }
    }

    fn keep(&mut self, text: &str, why: &str) {
        self.status(why);
        self.effects.push_back(Effect::Keep(text.to_owned()));
    }

    fn print(&mut self, text: String, is_status: bool) {
        let dimmed = 0..if is_status { text.len() } else { 0 };
        self.effects.push_back(Effect::Print(Line { text, dimmed }));
    }

    fn quit(&mut self, result: Result<(), Fail>) {
        self.effects.push_back(Effect::Quit(result));
    }
}

#[cfg(test)]
mod tests;

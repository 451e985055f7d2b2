//! The chat, played through without a terminal.

use hobnob_proto::{
    hlc::Hlc,
    ids::{Boot, ClusterId, Origin},
};
use serde_json::json;

use super::*;
use crate::script::tests::message;

/// A chat with what it printed and wanted so far.
struct Play {
    chat: Chat,
    now: Time,
}

impl Play {
    fn new(name: Option<&str>, room: Option<&str>) -> Self {
        let name = name.map(|name| name.parse().expect("a name"));
        let room = room.map(|room| room.parse().expect("a room"));
        let chat = Chat::new("hobnob".parse().expect("a cluster"), name, "anna".parse().expect("a name"), room);
        Self { chat, now: Time::ZERO }
    }

    /// In `#tea`, connected, with all that was said about it heard.
    fn in_tea() -> Self {
        let mut play = Self::new(Some("anna"), Some("tea"));
        play.event(connected(2));
        play.event(joined("tea"));
        play.effects();
        play
    }

    fn event(&mut self, event: Event) {
        self.chat.heard(Heard::Event(event), self.now);
    }

    fn line(&mut self, line: &str) -> Vec<String> {
        self.chat.line(line);
        self.effects()
    }

    /// Lets a second pass.
    fn second(&mut self) -> Vec<String> {
        self.now = self.now + PATIENCE;
        self.chat.tick(self.now);
        self.effects()
    }

    /// What the chat wanted meanwhile, as short texts.
    fn effects(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.chat.poll()).map(|effect| short(&effect)).collect()
    }
}

fn short(effect: &Effect) -> String {
    match effect {
        Effect::Print(line) => line.text.clone(),
        Effect::Begin(name) => format!("<begin {name}>"),
        Effect::Command(Command::Join { room, .. }) => format!("<join {room}>"),
        Effect::Command(Command::Part { room }) => format!("<part {room}>"),
        Effect::Command(Command::Ask { id, ask }) => format!("<ask {id} {ask:?}>"),
        Effect::Command(command) => format!("<{command:?}>"),
        Effect::Post(room, body) => format!("<post {room} {body}>"),
        Effect::Keep(text) => format!("<keep {text}>"),
        Effect::Quit(result) => format!("<quit {:?}>", result.as_ref().map_err(|fail| fail.code)),
    }
}

fn connected(server: u32) -> Event {
    let addr = "127.0.0.1:5001".parse().expect("an address");
    Event::Connected { server: ServerId(server), addr, cluster: ClusterId(1), open: true }
}

fn joined(room: &str) -> Event {
    Event::Joined { room: room.parse().expect("a room"), history: 3 }
}

fn heard(room: &str, millis: u64, from: &str, body: &str) -> Event {
    Event::Message { entry: message(room, millis, from, body), history: false, late: false }
}

fn acked(seq: u64, copies: u32, stored: bool) -> Event {
    let origin = Origin { id: ServerId(1), boot: Boot(1) };
    let room = "tea".parse().expect("a room");
    Event::Acked { room, seq, origin, entry: 1, hlc: Hlc::default(), copies, stored, durable: true }
}

#[test]
fn whoever_finds_no_server_is_told_once_what_to_try() {
    let mut play = Play::new(Some("anna"), Some("tea"));
    play.effects();
    let searching = |advice: &[&str]| Heard::Searching { advice: advice.iter().map(ToString::to_string).collect() };
    play.chat.heard(searching(&["Asked on lo.", "- a firewall"]), play.now);
    let waits = "* no server has answered yet; still looking";
    assert_eq!(play.effects(), [waits, "* Asked on lo.", "* - a firewall"]);
    play.chat.heard(searching(&[]), play.now);
    assert_eq!(play.effects(), [waits]);
}

#[test]
fn a_newcomer_is_asked_for_a_name_and_a_room() {
    let mut play = Play::new(None, None);
    assert_eq!(play.chat.prompt(), "Your name [anna]: ");
    assert_eq!(play.line(""), ["<begin anna>"]);
    assert_eq!(play.line("hello?"), ["* no server serves you yet", "<keep hello?>"]);
    play.event(connected(2));
    let open = "* Open cluster: anyone on this network can read and post.";
    assert_eq!(play.effects(), ["* connected to server 2 of cluster hobnob", open, "<ask 1 Rooms>"]);
    play.event(Event::Answer { id: 1, data: json!([{ "name": "lobby", "members": 1, "entries": 12 }]), last: false });
    play.event(Event::Answer { id: 1, data: json!([{ "name": "t\u{1b}", "members": 0, "entries": 1 }]), last: true });
    assert_eq!(play.effects(), ["* #lobby: 1 person, 12 messages", "* #t␛: 0 people, 1 message"]);
    assert_eq!(play.chat.prompt(), "Room to join or make [lobby]: ");
    let why =
        "* that cannot be a room: it has a space, a comma or a control character in it: use letters, digits, - and _";
    assert_eq!(play.line("a b"), [why, "<keep a b>"]);
    assert_eq!(play.line("#tea"), ["<join tea>"]);
    assert_eq!(play.chat.prompt(), "#tea> ");
    play.event(joined("tea"));
    assert_eq!(play.effects(), ["* you are in #tea now; 3 messages before you"]);
}

#[test]
fn a_name_that_cannot_be_one_stays_in_the_line() {
    let long = "x".repeat(40);
    let why = "* that cannot be a name: it is too long: use at most 32 characters".to_owned();
    assert_eq!(Play::new(None, None).line(&long), [why, format!("<keep {long}>")]);
}

#[test]
fn a_taken_name_is_asked_for_again_and_the_room_is_kept() {
    let mut play = Play::new(Some("anna"), Some("tea"));
    assert_eq!(play.effects(), ["<begin anna>", "<join tea>"]);
    let suggestion = Some("anna2".parse().expect("a name"));
    play.event(Event::NotWelcome { why: "anna is taken".to_owned(), suggestion });
    assert_eq!(play.effects(), ["* anna is taken"]);
    assert_eq!(play.chat.prompt(), "Your name [anna2]: ");
    assert_eq!(play.line(""), ["<begin anna2>", "<join tea>"]);
}

#[test]
fn what_is_typed_is_a_message_or_a_command() {
    fn check(line: &str, expected: &[&str]) {
        assert_eq!(Play::in_tea().line(line), expected, "{line:?}");
    }
    check("hello", &["<post tea hello>"]);
    check("  ", &[]);
    check("//etc/passwd", &["<post tea /etc/passwd>"]);
    check("/rooms", &["<ask 1 Rooms>"]);
    check("/who", &[r#"<ask 1 Who { room: Some(RoomName("tea")) }>"#]);
    check("/who #b", &[r#"<ask 1 Who { room: Some(RoomName("b")) }>"#]);
    check("/part b", &["* you are not in #b", "<keep /part b>"]);
    check("/part tea", &["<part tea>", "* you have left #tea, and are in no room now"]);
    check("/join #b", &["<join b>"]);
    check("/join tea", &["* you are in #tea"]);
    check("/join", &["* that cannot be a room: it is empty: type at least one character", "<keep /join>"]);
    check("/part", &["<part tea>", "* you have left #tea, and are in no room now"]);
    check("/quit", &["<quit Ok(())>"]);
    let unknown = "* there is no command /wave: /help lists them. To send a text that begins with a slash, type two";
    check("/wave at bob", &[unknown, "<keep /wave at bob>"]);
    assert_eq!(Play::in_tea().line("/help").len(), HELP.len());
}

#[test]
fn a_message_that_is_too_long_stays_in_the_line() {
    let body = "x".repeat(20 * 1024);
    let why = "* not sent: it has 20480 bytes, and a message has at most 16384: send it in pieces".to_owned();
    assert_eq!(Play::in_tea().line(&body), [why, format!("<keep {body}>")]);
}

#[test]
fn a_text_without_a_room_stays_in_the_line() {
    let mut play = Play::in_tea();
    play.line("/part");
    assert_eq!(play.line("hello"), ["* you are in no room: /join one", "<keep hello>"]);
}

#[test]
fn messages_show_their_time_their_room_where_it_is_another_and_no_tricks() {
    let mut play = Play::in_tea();
    play.line("/join b");
    play.event(joined("b"));
    play.effects();
    play.event(heard("b", 1_795_341_600_000, "bob", "hi"));
    play.event(heard("b", 1_795_341_660_000, "bob", "\u{1b}[2J\n10:02 anna: I owe you"));
    play.event(heard("tea", 1_795_341_660_000, "cleo", "psst"));
    play.event(heard("attic", 1_795_341_660_000, "ghost", "not joined"));
    let expected = [
        "* 2026-11-22",
        "10:00 bob: hi",
        "10:01 bob: ␛[2J",
        "      10:02 anna: I owe you",
        "* #tea 2026-11-22",
        "#tea 10:01 cleo: psst",
    ];
    assert_eq!(play.effects(), expected);
}

/// A message that belongs above one that has been shown.
fn late(millis: u64, body: &str) -> Event {
    let Event::Message { entry, history, .. } = heard("tea", millis, "bob", body) else { panic!("it is a message") };
    Event::Message { entry, history, late: true }
}

#[test]
fn a_message_that_comes_late_is_marked_quietly() {
    let mut play = Play::in_tea();
    play.event(heard("tea", 1_795_341_660_000, "cleo", "now"));
    play.effects();
    play.event(late(1_795_341_600_000, "of the other half"));
    let Some(Effect::Print(line)) = play.chat.poll() else { panic!("nothing is printed") };
    assert_eq!(line.text, "10:00 bob (late): of the other half");
    assert_eq!(&line.text[line.dimmed], " (late)");
    play.event(late(1_795_255_200_000, "yesterday"));
    play.event(heard("tea", 1_795_341_720_000, "cleo", "later"));
    assert_eq!(play.effects(), ["10:00 bob (late, of 2026-11-21): yesterday", "10:02 cleo: later"]);
}

#[test]
fn a_server_that_is_alone_is_told_of() {
    let mut play = Play::in_tea();
    for up in [&[1, 2][..], &[2], &[2], &[1, 2]] {
        play.event(Event::Servers { up: up.iter().copied().map(ServerId).collect() });
    }
    let alone = "* server 2 hears no other server now: what you send is on it alone for the time being";
    assert_eq!(play.effects(), [alone, "* your server hears 1 other server again"]);
}

#[test]
fn a_quick_message_needs_no_words_and_a_slow_one_gets_them_once() {
    let mut play = Play::in_tea();
    let room: RoomName = "tea".parse().expect("a room");
    play.chat.posted(room.clone(), 1, play.now);
    play.event(acked(1, 1, false));
    play.event(acked(1, 2, true));
    assert_eq!(play.second(), [""; 0]);

    play.chat.posted(room.clone(), 2, play.now);
    play.event(acked(2, 1, false));
    assert_eq!(play.chat.deadline(), Some(play.now + PATIENCE));
    assert_eq!(play.second(), ["* 1 message on 1 server so far, waiting for another"]);
    assert_eq!((play.chat.deadline(), play.second()), (None, vec![]));
    play.event(acked(2, 2, true));
    assert_eq!(play.effects(), ["* sent: now on 2 servers"]);

    play.chat.posted(room.clone(), 3, play.now);
    play.chat.posted(room, 4, play.now);
    assert_eq!(play.second(), ["* 2 messages not sent yet: kept here, and sent as soon as a server answers"]);
    assert_eq!(play.chat.pending(), 2);
}

#[test]
fn a_refused_text_comes_back_whole() {
    let mut play = Play::in_tea();
    let room: RoomName = "tea".parse().expect("a room");
    play.chat.posted(room.clone(), 1, play.now);
    let unsent = Heard::Unsent { room, seq: 1, body: "hello".to_owned(), why: "no".to_owned() };
    play.chat.heard(unsent, play.now);
    assert_eq!(play.effects(), ["* not sent: no", "<keep hello>"]);
    assert_eq!(play.chat.pending(), 0);
}

#[test]
fn a_quick_move_is_one_line_and_a_slow_one_is_two() {
    let mut play = Play::in_tea();
    play.event(Event::Lost { server: ServerId(2) });
    play.event(connected(1));
    assert_eq!(play.effects(), ["* server 2 went away; served by server 1 now"]);
    play.event(Event::Lost { server: ServerId(1) });
    assert_eq!(play.second(), ["* server 1 went away; looking for another"]);
    play.event(connected(3));
    assert_eq!(play.effects(), ["* served by server 3 now"]);
    play.event(joined("tea"));
    assert_eq!(play.effects(), [""; 0]);
}

#[test]
fn a_stranger_who_answers_does_not_end_the_chat() {
    let mut play = Play::in_tea();
    play.event(Event::NotTrusted { why: "wrong secret".to_owned() });
    assert_eq!(play.effects(), ["* wrong secret"]);
}

#[test]
fn memory_alone_is_told_once() {
    let mut play = Play::in_tea();
    for seq in [1, 2] {
        let Event::Acked { room, origin, entry, hlc, .. } = acked(seq, 1, true) else { continue };
        play.event(Event::Acked { room, seq, origin, entry, hlc, copies: 1, stored: true, durable: false });
    }
    assert_eq!(play.effects(), ["* messages are in memory only: they are gone once all servers have stopped"]);
}

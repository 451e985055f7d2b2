//! `send` and `tail`: messages for scripts.

use std::{collections::BTreeMap, time::Duration};

use hobnob_proto::{
    client::{Command, Event},
    ids::RoomName,
    log::{Entry, VersionVector, entry::MESSAGE},
    wire::frame::{Ask, Start},
};
use serde_json::json;

use crate::{
    Fail, Options, Since, TailOptions,
    ask::list,
    output::{self, Reader},
    signals::told_to_end,
    speaker::{self, Heard, Speaker},
    stdin,
    text::{self, printable},
    transfer::record,
};

/// How long `send` waits for a message to be stored.
const STORED: Duration = Duration::from_secs(10);

/// How long `tail` waits for the next part of the history.
const HISTORY: Duration = Duration::from_secs(10);

/// Messages that `tail` shows unless something else is said.
const LAST: u32 = 50;

/// When it is asked whether there is a room, each after the time before.
const NEWS: [Duration; 3] = [Duration::ZERO, Duration::from_millis(100), Duration::from_millis(400)];

/// What `send` waits for.
#[derive(Debug, Default)]
struct Sending {
    json: bool,
    /// Room's numbers of posts that are not settled, and whether each was accepted.
    waiting: BTreeMap<u64, bool>,
    /// What went wrong, with the exit code.
    failed: Option<Fail>,
}

/// See [`crate::send`].
pub(crate) async fn send(options: Options, text: Option<String>, json: bool) -> Result<(), Fail> {
    let room = options.room.clone().unwrap_or_else(RoomName::lobby);
    if let Some(text) = &text {
        speaker::check_body(text).map_err(|why| Fail::new(Fail::FAILED, format!("the message was not sent: {why}")))?;
        if text.is_empty() {
            return Err(Fail::new(Fail::USAGE, "the message is empty: give a text"));
        }
    }
    let name = options.name.clone().unwrap_or_else(speaker::default_name);
    let mut speaker = Speaker::open(&options, name, "script")?;
    speaker.connect().await?;
    let mut sending = Sending { json, ..Sending::default() };
    let work = async {
        if let Some(text) = text {
            sending.post(&mut speaker, &room, vec![text])?;
        } else {
            post_lines(&mut speaker, &mut sending, &room).await?;
        }
        wait_until_stored(&mut speaker, &mut sending, &room).await
    };
    tokio::select! {
        // A text that was given is posted whatever happens: so it is kept.
        biased;
        worked = work => worked?,
        () = told_to_end() => {}
    }
    speaker.quit().await;
    sending.outcome()
}

/// Waits until all is stored, or the time is over.
async fn wait_until_stored(speaker: &mut Speaker, sending: &mut Sending, room: &RoomName) -> Result<(), Fail> {
    let deadline = speaker.session().now() + STORED;
    while !sending.waiting.is_empty() {
        let left = deadline.since(speaker.session().now());
        let Some(heard) = speaker.hear_within(left).await? else { break };
        if sending.heard(speaker, room, heard)? == Reader::Gone {
            break;
        }
    }
    Ok(())
}

/// Posts each line of standard input.
async fn post_lines(speaker: &mut Speaker, sending: &mut Sending, room: &RoomName) -> Result<(), Fail> {
    let mut lines = stdin::lines();
    loop {
        tokio::select! {
            heard = speaker.hear() => {
                if sending.heard(speaker, room, heard?)? == Reader::Gone {
                    return Ok(());
                }
            }
            line = lines.recv() => {
                let Some(line) = line else { return Ok(()) };
                // Whatever is there already shares a write to the disk.
                let mut bodies = Vec::new();
                let mut next = Some(line);
                while let Some(line) = next {
                    match line.and_then(usable) {
                        Ok(line) if line.is_empty() => {}
                        Ok(line) => bodies.push(line),
                        Err(why) => sending.fail(Fail::FAILED, &format!("a line was not sent: {why}")),
                    }
                    next = lines.try_recv().ok();
                }
                sending.post(speaker, room, bodies)?;
            }
        }
    }
}

/// The line, where it can be a message; else why not, and the line, so that it is not lost.
pub(crate) fn usable(line: String) -> Result<String, String> {
    match speaker::check_body(&line) {
        Ok(()) => Ok(line),
        Err(why) => Err(format!("{why}\n{line}")),
    }
}

impl Sending {
    fn post(&mut self, speaker: &mut Speaker, room: &RoomName, bodies: Vec<String>) -> Result<(), Fail> {
        if !bodies.is_empty() {
            self.waiting.extend(speaker.post(room, bodies)?.into_iter().map(|seq| (seq, false)));
        }
        Ok(())
    }

    /// Keeps the first failure, since its exit code is the process's, and tells of all others at once.
    fn fail(&mut self, code: u8, why: &str) {
        match self.failed {
            Some(_) => output::status(why),
            None => self.failed = Some(Fail::new(code, why)),
        }
    }

    fn heard(&mut self, speaker: &mut Speaker, here: &RoomName, heard: Heard) -> Result<Reader, Fail> {
        match heard {
            Heard::Event(Event::Acked { room, seq, origin, entry, copies, stored, durable, .. })
                if room == *here && self.waiting.contains_key(&seq) =>
            {
                if stored {
                    self.waiting.remove(&seq);
                } else {
                    self.waiting.insert(seq, true);
                }
                if self.json {
                    let ack = if stored { "stored" } else { "accepted" };
                    let step = json!({
                        "client_seq": seq, "origin": origin, "seq": entry, "ack": ack, "copies": copies,
                        "durable": durable,
                    });
                    return output::line(&step.to_string());
                }
            }
            Heard::Unsent { room, seq, body, why } if room == *here && self.waiting.remove(&seq).is_some() => {
                self.fail(Fail::FAILED, &format!("a message was refused: {why}\n{body}"));
            }
            Heard::Event(event) => speaker.object(&event)?,
            Heard::Notice(notice) => output::status(&notice),
            Heard::Unsent { .. } | Heard::Searching { .. } => {}
        }
        Ok(Reader::Listens)
    }

    fn outcome(self) -> Result<(), Fail> {
        if let Some(fail) = self.failed {
            return Err(fail);
        }
        let waiting = self.waiting.len() as u64;
        if waiting == 0 {
            return Ok(());
        }
        let accepted = self.waiting.values().filter(|is_accepted| **is_accepted).count();
        let message = format!(
            "{} not stored in time ({accepted} accepted): kept here, and posted again with the next message",
            text::count(waiting, "message")
        );
        Err(Fail::new(Fail::NOT_STORED, message))
    }
}

/// See [`crate::tail`].
pub(crate) async fn tail(options: Options, tail: TailOptions) -> Result<(), Fail> {
    let room = options.room.clone().unwrap_or_else(RoomName::lobby);
    if tail.count == Some(0) {
        return Ok(());
    }
    let mut speaker = Speaker::listening(&options)?;
    speaker.connect().await?;
    // Nobody makes a room by reading it, but for those who wait for its first message.
    if !tail.follow && !exists(&mut speaker, &room).await? {
        speaker.quit().await;
        return Err(Fail::new(Fail::FAILED, format!("there is no room #{room}: `hobnob rooms` lists them")));
    }
    let from = match tail.since {
        Some(Since::All) => Start::After(VersionVector::default()),
        Some(Since::Millis(millis)) => Start::Since(millis),
        None => Start::Last(tail.count.map_or(LAST, |count| u32::try_from(count).unwrap_or(u32::MAX))),
    };
    speaker.session().command(Command::Join { room: room.clone(), from });
    let print = async {
        if tail.follow { follow(&mut speaker, &room, &tail).await } else { history(&mut speaker, &room, &tail).await }
    };
    let result = tokio::select! {
        result = print => result,
        () = told_to_end() => Ok(()),
    };
    speaker.quit().await;
    result
}

/// Whether there is such a room. One that is new may not be known to our server yet, so it is asked again.
async fn exists(speaker: &mut Speaker, room: &RoomName) -> Result<bool, Fail> {
    for wait in NEWS {
        tokio::time::sleep(wait).await;
        let rooms = list(speaker.ask(Ask::Rooms).await?);
        if rooms.as_array().is_some_and(|rooms| rooms.iter().any(|item| item["name"] == room.as_str())) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Prints messages as they come.
async fn follow(speaker: &mut Speaker, here: &RoomName, tail: &TailOptions) -> Result<(), Fail> {
    let mut printed = 0;
    while tail.count.is_none_or(|count| printed < count) {
        match speaker.hear().await? {
            Heard::Event(Event::Message { entry, late, .. }) if entry.room == *here && is_shown(&entry, tail.json) => {
                if print(&entry, tail.json, late)? == Reader::Gone {
                    return Ok(());
                }
                printed += 1;
            }
            Heard::Event(event) => speaker.object(&event)?,
            Heard::Unsent { .. } | Heard::Notice(_) | Heard::Searching { .. } => {}
        }
    }
    Ok(())
}

/// Prints what there is, in its order.
async fn history(speaker: &mut Speaker, here: &RoomName, tail: &TailOptions) -> Result<(), Fail> {
    let mut entries: Vec<Entry> = Vec::new();
    loop {
        match speaker.hear_within(HISTORY).await? {
            Some(Heard::Event(Event::Message { entry, .. })) if entry.room == *here && is_shown(&entry, tail.json) => {
                entries.push(entry);
            }
            Some(Heard::Event(Event::CaughtUp { room })) if room == *here => break,
            Some(Heard::Event(event)) => speaker.object(&event)?,
            Some(_) => {}
            None => return Err(Fail::new(Fail::FAILED, "the history did not arrive in time: try again")),
        }
    }
    entries.sort_by_key(Entry::order);
    let count = tail.count.map_or(usize::MAX, |count| usize::try_from(count).unwrap_or(usize::MAX));
    for entry in entries.iter().take(count) {
        if print(entry, tail.json, false)? == Reader::Gone {
            break;
        }
    }
    Ok(())
}

/// What people are shown in the place of a message that no server has any more.
pub(crate) const LOST: &str = "(a message was lost here)";

/// Whether people, or programs, see this kind of entry.
pub(crate) fn is_shown(entry: &Entry, json: bool) -> bool {
    json || &*entry.kind == MESSAGE || entry.is_lost()
}

fn print(entry: &Entry, json: bool, late: bool) -> Result<Reader, Fail> {
    output::line(&if json { record::line(entry.clone()) } else { plain(entry, late) })
}

/// A message as one line for people: `anna: text`, or `anna (late, 10:02): text` where it belongs above a line that has
/// been printed. (In JSON its time says so.)
pub(crate) fn plain(entry: &Entry, late: bool) -> String {
    let mark = if late { format!(" (late, {})", text::time_of_day(entry.hlc.millis)) } else { String::new() };
    if entry.is_lost() {
        return format!("{LOST}{mark}");
    }
    format!("{}{mark}: {}", printable(entry.from.as_str()), printable(&entry.body))
}

#[cfg(test)]
pub(crate) mod tests {
    use hobnob_proto::{
        hlc::Hlc,
        ids::{Boot, DeviceId, Origin, PersonId, ServerId},
        log::Hash,
    };

    use super::*;

    /// A message to a room at a time.
    pub(crate) fn message(room: &str, millis: u64, from: &str, body: &str) -> Entry {
        Entry {
            room: room.parse().expect("a room's name"),
            origin: Origin { id: ServerId(1), boot: Boot(2) },
            seq: 3,
            hlc: Hlc { millis, counter: 0 },
            from: from.parse().expect("a name"),
            person: PersonId([1; 16]),
            device: DeviceId(4),
            client_seq: 5,
            kind: MESSAGE.into(),
            body: body.into(),
            hash: Hash([0; 16]),
        }
    }

    #[test]
    fn a_plain_message_is_one_harmless_line() {
        assert_eq!(plain(&message("tea", 7, "anna", "hi\n\x1b[2J"), false), "anna: hi␊␛[2J");
    }

    #[test]
    fn a_message_that_comes_late_says_when_it_was_said() {
        assert_eq!(plain(&message("tea", 1_795_341_600_000, "anna", "hi"), true), "anna (late, 10:00): hi");
    }

    #[test]
    fn the_exit_code_says_how_far_a_message_came() {
        fn check(waiting: &[(u64, bool)], failed: Option<u8>, expected: Option<u8>) {
            let failed = failed.map(|code| Fail::new(code, "no"));
            let sending = Sending { json: false, waiting: waiting.iter().copied().collect(), failed };
            assert_eq!(sending.outcome().err().map(|fail| fail.code), expected);
        }
        check(&[], None, None);
        check(&[(1, true)], None, Some(Fail::NOT_STORED));
        check(&[(1, false), (2, true)], Some(Fail::FAILED), Some(Fail::FAILED));
    }
}

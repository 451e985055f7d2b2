//! `import`: merges an export into the cluster. What is there already stays as it is, so it may be done twice.
//!
//! So much is under way, and more is read once that is answered: by then it is on the disk of the server that was asked.
//! In the end the others have pulled it from there, or it is said that they have not.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, Read},
    path::PathBuf,
    time::Duration,
};

use hobnob_proto::{
    client::{Command, Event},
    ids::RoomName,
    limits,
    wire::{
        frame::Ask,
        import::{Import, Item, Outcome},
    },
};

use serde_json::Value;

use super::{
    Floors, authorized,
    lines::{self, Line, Lines, Said},
    progress::Progress,
};
use crate::{
    Fail, Options, output,
    signals::told_to_end,
    speaker::{Heard, Speaker},
    text,
};

/// How long the server may take for the next answer.
const SILENCE_MAX: Duration = Duration::from_secs(20);
/// How long the other servers may make no progress until what was imported counts as not stored.
const STORED_MAX: Duration = Duration::from_secs(10);
/// Between two questions how far they are.
const STORED_LOOK: Duration = Duration::from_millis(200);
/// Lines of each kind of trouble that are told of one by one.
const TOLD_MAX: u64 = 10;

/// See [`crate::import`].
pub(crate) async fn import(options: Options, file: Option<PathBuf>) -> Result<(), Fail> {
    let input: Box<dyn Read + Send> = match &file {
        None => Box::new(io::stdin()),
        Some(path) => Box::new(
            File::open(path)
                .map_err(|why| Fail::new(Fail::FAILED, format!("cannot open {}: {why}", path.display())))?,
        ),
    };
    let (mut speaker, began) = authorized(options, Ask::Import).await?;
    let mut lines = lines::read(input);
    let first = lines.recv().await.unwrap_or_default();
    if let Err(fail) = lines::check_head(first.first()) {
        speaker.quit().await;
        return Err(fail);
    }
    let mut importing = Importing { progress: Some(Progress::new()), ..Importing::default() };
    let work = async {
        importing.run(&mut speaker, first, &mut lines).await?;
        wait_until_stored(&mut speaker, &began, importing.progress.as_mut()).await
    };
    let worked = tokio::select! {
        worked = work => worked,
        () = told_to_end() => Err(Fail::new(Fail::FAILED, "interrupted: import the file again, what is there stays")),
    };
    speaker.quit().await;
    importing.progress = None;
    output::status(&importing.summary());
    importing.outcome().and(worked)
}

/// Waits until the other servers hold what was imported.
async fn wait_until_stored(
    speaker: &mut Speaker,
    began: &Value,
    mut progress: Option<&mut Progress>,
) -> Result<(), Fail> {
    let (mut least, mut since) = (u64::MAX, speaker.session().now());
    loop {
        let state = speaker.ask(Ask::Import).await?.into_iter().next().unwrap_or_default();
        let Some(missing) = missing(began, &state)? else { return Ok(()) };
        let now = speaker.session().now();
        if missing < least {
            (least, since) = (missing, now);
        } else if now.since(since) >= STORED_MAX {
            let copies = state["copies"].as_u64().unwrap_or_default();
            let message = format!(
                "imported, but not stored on {copies} servers in time: the others take it over once they can; `hobnob \
                 status` says who is up"
            );
            return Err(Fail::new(Fail::NOT_STORED, message));
        }
        if let Some(progress) = progress.as_deref_mut() {
            progress.show(|| format!("copies are made: {missing} to go"));
        }
        tokio::time::sleep(STORED_LOOK).await;
    }
}

/// How many entries lack copies, as a server says in `state`; `None`: none, in no room. What it says counts only where it is
/// the one that has taken all in, in the session that `began` with the import.
fn missing(began: &Value, state: &Value) -> Result<Option<u64>, Fail> {
    if began["import"] != state["import"] {
        return Err(moved());
    }
    match (state["lacking"].as_u64(), state["missing"].as_u64()) {
        (Some(0), _) => Ok(None),
        (Some(_), Some(missing)) => Ok(Some(missing)),
        _ => {
            let why = state["why"].as_str().unwrap_or("the server does not say whether the others have it");
            Err(Fail::new(Fail::FAILED, format!("imported, but not known to be stored: {why}")))
        }
    }
}

/// Another server, or the same in another session, does not know what was imported before.
fn moved() -> Fail {
    Fail::new(Fail::FAILED, "the connection to the server has changed: import the file again, what is there stays")
}

/// An import that runs.
#[derive(Debug, Default)]
struct Importing {
    /// Lines that are under way, and how many bytes of body each has; `None`: it is no entry.
    open: BTreeMap<u64, Option<usize>>,
    bytes: usize,
    /// Of the room whose entries come now.
    floors: (Option<RoomName>, Floors),
    /// Those that entries have come for.
    rooms: BTreeSet<RoomName>,
    /// Entries read since the last head.
    entries: u64,
    /// Whether the end was read.
    is_ended: bool,
    /// The number of the last line.
    last: u64,
    kept: u64,
    known: u64,
    /// What went wrong, and how often.
    troubles: BTreeMap<&'static str, u64>,
    progress: Option<Progress>,
}

impl Importing {
    /// Sends all lines, and waits for their answers.
    async fn run(&mut self, speaker: &mut Speaker, first: Vec<Line>, lines: &mut Lines) -> Result<(), Fail> {
        let mut read = first.into_iter().peekable();
        let mut is_over = false;
        loop {
            let mut send = Vec::new();
            while self.has_place(read.peek())
                && let Some(line) = read.next()
            {
                send.extend(self.take(line));
            }
            if !send.is_empty() {
                speaker.session().command(Command::Import { lines: send });
            }
            if is_over && read.peek().is_none() && self.open.is_empty() {
                return Ok(());
            }
            tokio::select! {
                batch = lines.recv(), if !is_over && read.peek().is_none() => match batch {
                    Some(batch) => read = batch.into_iter().peekable(),
                    None => is_over = true,
                },
                heard = speaker.hear_within(SILENCE_MAX), if !self.open.is_empty() => match heard? {
                    Some(Heard::Event(Event::Imported { n, outcome })) => self.answered(n, outcome),
                    Some(Heard::Event(Event::Connected { .. })) => return Err(moved()),
                    Some(Heard::Event(event)) => speaker.object(&event)?,
                    Some(_) => {}
                    None => return Err(Fail::new(
                        Fail::FAILED,
                        "the server does not answer any more: import the file again, what is there stays",
                    )),
                },
            }
        }
    }

    /// Whether one more line may be under way.
    fn has_place(&self, line: Option<&Line>) -> bool {
        let size = match line.map(|line| &line.said) {
            None => return false,
            Some(Said::Entry(entry)) => entry.body.len(),
            Some(_) => 0,
        };
        let fits = self.bytes + size <= limits::IMPORT_AHEAD_BYTES_MAX || self.open.is_empty();
        fits && self.open.len() < limits::IMPORT_AHEAD_MAX
    }

    /// Takes a line; what is to be sent of it.
    fn take(&mut self, line: Line) -> Option<Import> {
        let n = line.n;
        self.last = n;
        match line.said {
            Said::Head(_) => {
                if n > 1 && !std::mem::take(&mut self.is_ended) {
                    self.trouble(n, "another export begins before the end of the last one");
                }
                self.entries = 0;
                None
            }
            Said::Room(room, floors) => {
                if self.floors.0.as_ref() != Some(&room) {
                    self.floors = (Some(room.clone()), Floors::new());
                }
                if self.floors.1.len() + floors.len() <= limits::ORIGINS_MAX {
                    self.floors.1.extend(floors);
                }
                self.rooms.insert(room.clone());
                self.open.insert(n, None);
                Some(Import { n, what: Item::Room(room), floor: 0 })
            }
            Said::Entry(entry) => {
                self.entries += 1;
                let floor = self.floors.1.get(&entry.origin).copied().unwrap_or_default();
                let is_first = self.floors.0.as_ref() == Some(&entry.room) && entry.seq == floor + 1;
                self.bytes += entry.body.len();
                self.open.insert(n, Some(entry.body.len()));
                let what = Item::Entry(std::sync::Arc::unwrap_or_clone(entry));
                Some(Import { n, what, floor: if is_first { floor } else { 0 } })
            }
            Said::End(entries) => {
                self.is_ended = true;
                if entries != self.entries {
                    let why = "the file has another number of entries than its end says";
                    self.trouble(n, why);
                }
                None
            }
            Said::Bad(why) => {
                // Whatever it was, the end counts it.
                self.entries += 1;
                self.tell(n, &why, "cannot be used");
                None
            }
        }
    }

    /// What became of a line.
    fn answered(&mut self, n: u64, outcome: Outcome) {
        let Some(size) = self.open.remove(&n) else { return };
        self.bytes -= size.unwrap_or_default();
        match outcome {
            Outcome::Kept | Outcome::Known if size.is_none() => {}
            Outcome::Kept => self.kept += 1,
            Outcome::Known => self.known += 1,
            Outcome::Rotten => self.trouble(n, "its content does not have the hash that it carries"),
            Outcome::Conflict => self.trouble(n, "another entry is held under its number, and stays"),
            Outcome::Hole => self.trouble(n, "an earlier entry of its origin is missing"),
            Outcome::Invalid => self.trouble(n, "it breaks a bound of the protocol"),
            Outcome::CannotStore => self.trouble(n, "the server cannot write to its disk"),
            Outcome::Full => self.trouble(n, "the cluster has no space for one more room, or origin"),
        }
        let done = self.kept + self.known;
        if let Some(progress) = &mut self.progress {
            progress.show(|| format!("line {n}: {done} imported"));
        }
    }

    fn trouble(&mut self, n: u64, why: &'static str) {
        self.tell(n, why, why);
    }

    /// Tells of a line that is not imported, unless there were many of that `kind`.
    fn tell(&mut self, n: u64, why: &str, kind: &'static str) {
        let count = self.troubles.entry(kind).or_default();
        *count += 1;
        match *count {
            ..=TOLD_MAX => output::status(&format!("line {n}: {why}")),
            11 => output::status(&format!("line {n}, and perhaps more that are not shown: {why}")),
            _ => {}
        }
    }

    /// What was done, as a sentence.
    fn summary(&self) -> String {
        let rooms = text::count(self.rooms.len() as u64, "room");
        let messages = text::count(self.kept + self.known, "message");
        format!("{messages} of {rooms} imported: {} new, {} known", self.kept, self.known)
    }

    /// Whether all is there.
    fn outcome(&self) -> Result<(), Fail> {
        let mut why: Vec<String> =
            self.troubles.iter().map(|(kind, count)| format!("{}: {kind}", text::count(*count, "line"))).collect();
        if !self.is_ended {
            why.push(format!("the file was cut: it has no end after line {}; what was there is imported", self.last));
        }
        if why.is_empty() { Ok(()) } else { Err(Fail::new(Fail::FAILED, why.join("\nhobnob: "))) }
    }
}

#[cfg(test)]
mod tests {
    use hobnob_proto::ids::{Boot, Origin, ServerId};
    use serde_json::json;

    use super::*;
    use crate::script::tests::message;

    fn entry(seq: u64, bytes: usize) -> Said {
        let mut entry = message("tea", 7, "anna", &"x".repeat(bytes));
        entry.seq = seq;
        Said::Entry(entry.into())
    }

    fn took(importing: &mut Importing, said: Vec<Said>) -> Vec<(u64, u64)> {
        let lines = (importing.last + 1..).zip(said).map(|(n, said)| Line { n, said }).collect::<Vec<_>>();
        lines.into_iter().filter_map(|line| importing.take(line)).map(|import| (import.n, import.floor)).collect()
    }

    #[test]
    fn the_first_entry_above_a_floor_carries_it() {
        let origin = Origin { id: ServerId(1), boot: Boot(2) };
        let mut importing = Importing::default();
        let room = Said::Room("tea".parse().unwrap(), Floors::from([(origin, 3)]));
        assert_eq!(took(&mut importing, vec![room, entry(4, 1), entry(5, 1)]), [(1, 0), (2, 3), (3, 0)]);
        let other = Said::Room("milk".parse().unwrap(), Floors::new());
        assert_eq!(took(&mut importing, vec![other, entry(4, 1)]), [(4, 0), (5, 0)]);
    }

    #[test]
    fn so_much_is_under_way_and_no_more() {
        fn check(bytes: usize, expected: usize) {
            let mut importing = Importing::default();
            let lines = (1..).map(|n| Line { n, said: entry(n, bytes) });
            let taken = lines.take_while(|line| {
                importing.has_place(Some(line)) && {
                    let said = entry(line.n, bytes);
                    importing.take(Line { n: line.n, said }).is_some()
                }
            });
            assert_eq!(taken.count(), expected, "{bytes} bytes each");
        }
        check(1, limits::IMPORT_AHEAD_MAX);
        check(1_024, 32);
        check(16 * 1024, 2);
        check(128 * 1024, 1);
    }

    #[test]
    fn a_cut_or_damaged_file_is_noticed() {
        fn check(said: Vec<Said>, expected: Option<&str>) {
            let mut importing = Importing::default();
            took(&mut importing, said);
            let message = importing.outcome().err().map(|fail| fail.message);
            assert_eq!(message.is_some(), expected.is_some(), "{message:?}");
            assert!(message.clone().unwrap_or_default().contains(expected.unwrap_or_default()), "{message:?}");
        }
        check(vec![entry(1, 1), Said::End(1)], None);
        check(vec![entry(1, 1)], Some("no end after line 1"));
        check(vec![entry(1, 1), Said::End(2)], Some("another number of entries"));
        check(vec![entry(1, 1), Said::Bad("no".to_owned()), Said::End(2)], Some("1 line: cannot be used"));
        check(vec![], Some("cut"));
    }

    #[test]
    fn only_the_server_that_took_all_in_says_that_it_is_stored() {
        fn check(state: &Value, expected: Result<Option<u64>, ()>) {
            let began = json!({"allowed": true, "import": "1.2/3", "lacking": 0, "missing": 0});
            assert_eq!(missing(&began, state).map_err(|_| ()), expected, "{state}");
        }
        check(&json!({"import": "1.2/3", "lacking": 0, "missing": 0}), Ok(None));
        check(&json!({"import": "1.2/3", "lacking": 2, "missing": 9}), Ok(Some(9)));
        check(&json!({"import": "4.2/3", "lacking": 0, "missing": 0}), Err(()));
        check(&json!({"import": "1.2/3", "allowed": false, "why": "no"}), Err(()));
        check(&json!({"import": "1.2/3"}), Err(()));
        check(&Value::Null, Err(()));
    }

    #[test]
    fn what_became_of_the_lines_is_counted() {
        let mut importing = Importing::default();
        took(&mut importing, vec![entry(1, 1), entry(2, 1), entry(4, 1), Said::End(3)]);
        for (n, outcome) in [(1, Outcome::Kept), (2, Outcome::Known), (2, Outcome::Known), (3, Outcome::Hole)] {
            importing.answered(n, outcome);
        }
        assert_eq!((importing.kept, importing.known, importing.bytes), (1, 1, 0));
        assert_eq!(importing.outcome().unwrap_err().message, "1 line: an earlier entry of its origin is missing");
    }
}

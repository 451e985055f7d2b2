//! `export`: all entries of one room or of all, also those that repeat a post, to standard output.

use std::{
    io::{self, BufWriter, Stdout, Write},
    time::Duration,
};

use hobnob_proto::{
    client::{Command, Event},
    ids::RoomName,
    log::VersionVector,
    wire::frame::{Ask, Start},
};
use serde_json::{Value, json};

use super::{
    Head, Mark, VERSION, authorized,
    progress::{Progress, share},
    record, room_marks,
};
use crate::{
    Fail, Options, Since,
    ask::list,
    output,
    signals::told_to_end,
    speaker::{Heard, Speaker},
    text,
};

/// How long the next part of the history may take.
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// See [`crate::export`].
pub(crate) async fn export(options: Options, since: Option<Since>) -> Result<(), Fail> {
    let room = options.room.clone();
    let (mut speaker, head) = authorized(options, Ask::Export { room: room.clone() }).await?;
    let mut rooms = rooms(&list(speaker.ask(Ask::Rooms).await?));
    if let Some(only) = &room {
        rooms.retain(|room| room == only);
        if rooms.is_empty() {
            speaker.quit().await;
            return Err(Fail::new(Fail::FAILED, format!("there is no room #{only}: `hobnob rooms` lists them")));
        }
    }
    let since = match since {
        Some(Since::Millis(millis)) => Some(millis),
        Some(Since::All) | None => None,
    };
    let mut file = File { out: BufWriter::new(io::stdout()), entries: 0, is_gone: false };
    file.write(&head_mark(&head, room.as_ref(), since)?)?;
    let write = async {
        let mut progress = Progress::new();
        for (at, room) in rooms.iter().enumerate() {
            let place = format!("room {} of {}", at + 1, rooms.len());
            copy(&mut speaker, room, since, &mut file, &place, &mut progress).await?;
            if file.is_gone {
                break;
            }
        }
        Ok(())
    };
    let copied = tokio::select! {
        copied = write => copied,
        () = told_to_end() => Err(Fail::new(Fail::FAILED, "interrupted: the file has no end, and says so to `hobnob import`")),
    };
    speaker.quit().await;
    if let Err(fail) = copied {
        // What is there can still be imported.
        file.flush()?;
        return Err(fail);
    }
    file.write(&Mark::End { entries: file.entries })?;
    file.flush()?;
    if !file.is_gone {
        let entries = file.entries;
        let unit = if entries == 1 { "entry" } else { "entries" };
        output::status(&format!("{entries} {unit} of {}", text::count(rooms.len() as u64, "room")));
    }
    Ok(())
}

/// The names in a list of rooms.
fn rooms(items: &Value) -> Vec<RoomName> {
    let names = items.as_array().into_iter().flatten().filter_map(|item| item["name"].as_str()?.parse().ok());
    let mut names: Vec<RoomName> = names.collect();
    names.sort();
    names.dedup();
    names
}

/// The first line, from what the server says of itself.
fn head_mark(head: &Value, room: Option<&RoomName>, since: Option<u64>) -> Result<Mark, Fail> {
    let said = json!({
        "version": VERSION, "cluster": head["cluster"], "cluster_id": head["cluster_id"], "made": head["time"],
        "room": room, "since": since,
    });
    serde_json::from_value::<Head>(said)
        .map(Mark::Export)
        .map_err(|why| Fail::new(Fail::FAILED, format!("the server's answer cannot be read ({why})")))
}

/// Writes one room.
async fn copy(
    speaker: &mut Speaker,
    here: &RoomName,
    since: Option<u64>,
    file: &mut File,
    place: &str,
    progress: &mut Progress,
) -> Result<(), Fail> {
    let from = since.map_or_else(|| Start::After(VersionVector::default()), Start::Since);
    speaker.session().command(Command::Copy { room: here.clone(), from });
    let (mut done, mut all) = (0, 0);
    while !file.is_gone {
        match speaker.hear_within(SILENCE_MAX).await? {
            Some(Heard::Event(Event::Copying { room, start, entries })) if room == *here => {
                all = entries;
                for mark in room_marks(here, &start) {
                    file.write(&mark)?;
                }
            }
            Some(Heard::Event(Event::Floors { room, floors })) if room == *here => {
                for mark in room_marks(here, &floors) {
                    file.write(&mark)?;
                }
            }
            Some(Heard::Event(Event::Message { entry, .. })) if entry.room == *here => {
                file.line(&record::line(entry))?;
                file.entries += 1;
                done += 1;
                progress.show(|| format!("{place}: {}", share(done, all)));
            }
            Some(Heard::Event(Event::CaughtUp { room })) if room == *here => break,
            Some(Heard::Event(event)) => speaker.object(&event)?,
            Some(_) => {}
            None => {
                let why = format!("the history of #{here} did not arrive in time: the file has no end; try again");
                return Err(Fail::new(Fail::FAILED, why));
            }
        }
    }
    speaker.session().command(Command::Part { room: here.clone() });
    Ok(())
}

/// What is written, by large pieces.
struct File {
    out: BufWriter<Stdout>,
    entries: u64,
    /// Whether nobody reads any more.
    is_gone: bool,
}

impl File {
    fn write(&mut self, mark: &Mark) -> Result<(), Fail> {
        self.line(&serde_json::to_string(mark).expect("it has string keys and no failing parts"))
    }

    fn line(&mut self, line: &str) -> Result<(), Fail> {
        let written = self.out.write_all(line.as_bytes()).and_then(|()| self.out.write_all(b"\n"));
        self.note(written)
    }

    fn flush(&mut self) -> Result<(), Fail> {
        let flushed = self.out.flush();
        self.note(flushed)
    }

    fn note(&mut self, result: io::Result<()>) -> Result<(), Fail> {
        match result {
            Err(why) if why.kind() == io::ErrorKind::BrokenPipe => self.is_gone = true,
            Err(why) => return Err(Fail::new(Fail::FAILED, format!("cannot write to standard output: {why}"))),
            Ok(()) => {}
        }
        Ok(())
    }
}

//! The chat without a terminal: input lines are posted, messages are printed, and what is for people goes to standard
//! error.

use std::{collections::BTreeSet, pin::pin, time::Duration};

use hobnob_proto::{
    client::{Command, Event},
    ids::{RoomName, ServerId},
    wire::frame::Start,
};

use crate::{
    Fail, Notices, Options,
    company::Company,
    face::notice,
    output::{self, Reader},
    script,
    signals::told_to_end,
    speaker::{self, Heard, SEARCH, Speaker},
    stdin::{self, Lines},
    text,
};

/// Messages of before that are printed.
const HISTORY: u32 = 50;

/// How long the end of the input waits for what was posted to be stored.
const STORED: Duration = Duration::from_secs(5);

/// What a pipe knows.
#[derive(Debug)]
struct Pipe {
    room: RoomName,
    server: Option<ServerId>,
    company: Company,
    is_caught_up: bool,
    /// Numbers of posts that are not settled.
    waiting: BTreeSet<u64>,
    /// Whether it was said what to try where no server answers.
    is_advised: bool,
    /// Whether a line was not sent.
    is_failed: bool,
}

/// See [`crate::plain`].
pub(crate) async fn chat(options: Options, mut notices: Option<Notices>) -> Result<(), Fail> {
    let room = options.room.clone().unwrap_or_else(RoomName::lobby);
    let name = options.name.clone().unwrap_or_else(speaker::default_name);
    let mut speaker = Speaker::open(&options, name, "pipe")?;
    speaker.session().command(Command::Join { room: room.clone(), from: Start::Last(HISTORY) });
    let mut pipe = Pipe {
        room,
        server: None,
        company: Company::default(),
        is_caught_up: false,
        waiting: BTreeSet::new(),
        is_advised: false,
        is_failed: false,
    };
    let mut lines = stdin::lines();
    let mut end = pin!(told_to_end());
    loop {
        tokio::select! {
            () = &mut end => break,
            heard = speaker.hear() => {
                if pipe.heard(&mut speaker, heard?)? == Reader::Gone {
                    break;
                }
            }
            line = lines.recv() => {
                let Some(line) = line else {
                    tokio::select! {
                        finished = pipe.finish(&mut speaker, &mut notices) => finished?,
                        () = &mut end => {}
                    }
                    break;
                };
                pipe.post(&mut speaker, line, &mut lines)?;
            }
            notice = notice(&mut notices) => output::status(&notice),
        }
    }
    let outcome = pipe.outcome(&speaker);
    speaker.quit().await;
    outcome
}

impl Pipe {
    /// Posts a line, and those that are there already with it, since they share a write to the disk.
    fn post(&mut self, speaker: &mut Speaker, line: Result<String, String>, lines: &mut Lines) -> Result<(), Fail> {
        let mut bodies = Vec::new();
        let mut next = Some(line);
        while let Some(line) = next {
            match line.and_then(script::usable) {
                Ok(line) if line.is_empty() => {}
                Ok(line) => bodies.push(line),
                Err(why) => {
                    self.is_failed = true;
                    output::status(&format!("a line was not sent: {why}"));
                }
            }
            next = lines.try_recv().ok();
        }
        if !bodies.is_empty() {
            self.waiting.extend(speaker.post(&self.room, bodies)?);
        }
        Ok(())
    }

    fn heard(&mut self, speaker: &mut Speaker, heard: Heard) -> Result<Reader, Fail> {
        match heard {
            Heard::Event(event) => return self.event(speaker, event),
            Heard::Notice(notice) => output::status(&notice),
            Heard::Searching { advice } => {
                self.is_advised |= !advice.is_empty();
                output::status(speaker::SEARCHING);
                for line in advice {
                    output::status(&line);
                }
            }
            Heard::Unsent { room, seq, body, why } => {
                if room == self.room && self.waiting.remove(&seq) {
                    self.is_failed = true;
                }
                output::status(&format!("a message was refused: {why}\n{body}"));
            }
        }
        Ok(Reader::Listens)
    }

    fn event(&mut self, speaker: &mut Speaker, event: Event) -> Result<Reader, Fail> {
        match event {
            Event::Message { entry, late, .. } if entry.room == self.room && script::is_shown(&entry, false) => {
                return output::line(&script::plain(&entry, late));
            }
            Event::Acked { room, seq, stored: true, .. } if room == self.room => {
                self.waiting.remove(&seq);
            }
            Event::Connected { server, open, .. } => {
                output::status(&format!("served by server {server}"));
                if self.server.replace(server).is_none() && open {
                    output::status("Open cluster: anyone on this network can read and post.");
                }
            }
            Event::Lost { server } => output::status(&format!("server {server} went away; looking for another")),
            Event::Servers { up } => {
                if let Some(told) = self.company.heard(&up) {
                    output::status(&told);
                }
            }
            Event::Joined { room, .. } => output::status(&format!("you are in #{room}")),
            Event::CaughtUp { room } if room == self.room => self.is_caught_up = true,
            event => speaker.object(&event)?,
        }
        Ok(Reader::Listens)
    }

    /// The input is at its end: waits until all is stored, and what there was to print is printed.
    async fn finish(&mut self, speaker: &mut Speaker, notices: &mut Option<Notices>) -> Result<(), Fail> {
        let start = speaker.session().now();
        while !self.waiting.is_empty() || !self.is_caught_up {
            let span = if self.waiting.is_empty() { SEARCH } else { STORED };
            let left = (start + span).since(speaker.session().now());
            tokio::select! {
                heard = speaker.hear_within(left) => {
                    let Some(heard) = heard? else { return Ok(()) };
                    if self.heard(speaker, heard)? == Reader::Gone {
                        return Ok(());
                    }
                }
                notice = notice(notices) => output::status(&notice),
            }
        }
        Ok(())
    }

    fn outcome(&self, speaker: &Speaker) -> Result<(), Fail> {
        let kept = text::count(self.waiting.len() as u64, "message");
        let not_found = || {
            let fail = speaker.not_found();
            if self.is_advised { Fail::new(fail.code, "no server answered: see above") } else { fail }
        };
        match (self.server, self.waiting.is_empty()) {
            (None, true) => Err(not_found()),
            (None, false) => {
                let fail = not_found();
                Err(Fail::new(fail.code, format!("{}\n{kept} kept here, and sent next time", fail.message)))
            }
            (Some(_), false) => {
                let message = format!("{kept} not stored in time: kept here, and sent again next time");
                Err(Fail::new(Fail::NOT_STORED, message))
            }
            (Some(_), true) if self.is_failed => Err(Fail::new(Fail::FAILED, "not all lines were sent: see above")),
            (Some(_), true) => Ok(()),
        }
    }
}

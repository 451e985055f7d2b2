//! The chat in a terminal: what connects [`Chat`] with [`Terminal`] and [`Speaker`].

use std::{
    future,
    io::{self, IsTerminal as _},
    time::Duration,
};

use crate::{
    Fail, Notices, Options,
    chat::{Chat, Effect},
    driver::Clock,
    output, plain,
    signals::told_to_end,
    speaker::{self, Heard, Speaker},
    terminal::{Terminal, Typed},
};

/// How long leaving waits for messages that are not stored yet.
const FAREWELL: Duration = Duration::from_secs(1);

/// See [`crate::chat`].
pub(crate) async fn chat(options: Options, notices: Option<Notices>) -> Result<(), Fail> {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return plain::chat(options, notices).await;
    }
    let chat = Chat::new(options.cluster.clone(), options.name.clone(), speaker::default_name(), options.room.clone());
    let mut face = Face { chat, terminal: Terminal::open()?, speaker: None, options, notices, clock: Clock::start() };
    let result = face.run().await;
    let left = face.farewell().await;
    // Only now is the terminal as it was, and what is said last stays on the screen.
    drop(face);
    if left > 0 {
        let (are, they_are) = if left == 1 { ("is", "it is") } else { ("are", "they are") };
        output::status(&format!(
            "{left} of your messages {are} not stored yet: {they_are} kept, and sent when you chat again"
        ));
    }
    result
}

/// A chat in a terminal.
struct Face {
    chat: Chat,
    terminal: Terminal,
    speaker: Option<Speaker>,
    options: Options,
    notices: Option<Notices>,
    clock: Clock,
}

impl Face {
    async fn run(&mut self) -> Result<(), Fail> {
        let mut killed = std::pin::pin!(told_to_end());
        loop {
            if let Some(result) = self.effects()? {
                return result;
            }
            self.terminal.set_prompt(self.chat.prompt());
            tokio::select! {
                typed = self.terminal.typed() => match typed {
                    Typed::Line(line) => self.chat.line(&line),
                    Typed::Quit | Typed::Gone => return Ok(()),
                },
                heard = hear(&mut self.speaker) => self.chat.heard(heard?, self.clock.now()),
                () = sleep(self.chat.deadline().map(|deadline| self.clock.instant(deadline))) => {
                    self.chat.tick(self.clock.now());
                }
                notice = notice(&mut self.notices) => self.chat.status(&notice),
                () = &mut killed => return Ok(()),
            }
        }
    }

    /// Does what the chat wants done; how to end, once it wants that.
    fn effects(&mut self) -> Result<Option<Result<(), Fail>>, Fail> {
        while let Some(effect) = self.chat.poll() {
            match effect {
                Effect::Print(line) => self.terminal.print(&line.text, line.dimmed),
                Effect::Begin(name) => {
                    // One session of this process at a time, and its outbox is free for the next one.
                    self.speaker = None;
                    self.speaker = Some(Speaker::open(&self.options, name, "terminal")?);
                }
                Effect::Command(command) => {
                    if let Some(speaker) = &mut self.speaker {
                        speaker.session().command(command);
                    }
                }
                Effect::Post(room, body) => {
                    let Some(speaker) = &mut self.speaker else { continue };
                    match speaker.post(&room, vec![body.clone()]) {
                        Ok(seqs) => {
                            for seq in seqs {
                                self.chat.posted(room.clone(), seq, self.clock.now());
                            }
                        }
                        Err(fail) => self.chat.unsent(&body, &fail.message),
                    }
                }
                Effect::Keep(text) => self.terminal.put_back(&text),
                Effect::Quit(result) => return Ok(Some(result)),
            }
        }
        Ok(None)
    }

    /// Waits a little for messages to be stored, and says goodbye; how many are not.
    async fn farewell(&mut self) -> usize {
        let Some(mut speaker) = self.speaker.take() else { return 0 };
        let deadline = self.clock.now() + FAREWELL;
        while self.chat.pending() > 0 {
            let left = deadline.since(self.clock.now());
            match speaker.hear_within(left).await {
                Ok(Some(heard)) => self.chat.heard(heard, self.clock.now()),
                Ok(None) | Err(_) => break,
            }
        }
        // Messages of others may have come meanwhile.
        while let Some(effect) = self.chat.poll() {
            match effect {
                Effect::Print(line) => self.terminal.print(&line.text, line.dimmed),
                Effect::Keep(text) => self.terminal.print(&crate::text::printable(&text), 0..0),
                _ => {}
            }
        }
        speaker.quit().await;
        self.chat.pending()
    }
}

async fn hear(speaker: &mut Option<Speaker>) -> Result<Heard, Fail> {
    match speaker {
        Some(speaker) => speaker.hear().await,
        None => future::pending().await,
    }
}

/// Sleeps until `deadline`; for ever, where there is none.
async fn sleep(deadline: Option<std::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => future::pending().await,
    }
}

/// The next notice; waits for ever, once there will be none.
pub(crate) async fn notice(notices: &mut Option<Notices>) -> String {
    if let Some(receiver) = notices {
        if let Some(notice) = receiver.recv().await {
            return notice;
        }
        *notices = None;
    }
    future::pending().await
}

//! `hobnob demo`: three servers and four people as processes of this same program, on loopback alone. They chat in two
//! rooms, the leader is killed, the chat goes on, and every message is accounted for.
//!
//! Nothing of it is staged: the processes are what anybody would start by hand (`hobnob server`, and for each person
//! `hobnob send --json` to talk and `hobnob tail --json --follow` to listen), and all that is told is read from what
//! they print.

use std::time::{Duration, Instant};

use hobnob_client::Fail;

use crate::{
    demo::{ledger::Tally, stage::Stage},
    interrupt,
};

mod children;
mod ledger;
mod people;
pub(crate) mod stage;

/// The demo fails if it takes longer, from the kill until every member has got a new message.
const RECOVERY_MAX: Duration = Duration::from_secs(10);
/// How long people talk before the leader is killed, and how long they go on once all is well again.
const TALK: Duration = Duration::from_secs(2);

/// How long after its processes the demo itself may hear of Ctrl-C.
const GRACE: Duration = Duration::from_millis(100);

/// What the demo measured.
#[derive(Clone, Copy, Debug)]
struct Outcome {
    /// Of all messages.
    tally: Tally,
    /// From the kill until every member has got a message that was written after it; `None`: that never happened.
    recovery: Option<Duration>,
}

/// Runs the demo. Fails if a message was lost or doubled, or if it took too long.
pub(crate) fn run() -> Result<(), Fail> {
    let mut stage = Stage::set()?;
    let result = play(&mut stage).and_then(verdict);
    // Whoever stops it knows why it ended. The word of that may come after the end of those on the stage.
    if result.is_err() && interrupt::is_told_within(GRACE) {
        return Err(children::failed("interrupted"));
    }
    if result.is_err() {
        stage.tell("What the processes said last:");
        for line in stage.last_words() {
            println!("          {line}");
        }
    }
    result
}

/// The story, from the first server to the last message.
fn play(stage: &mut Stage) -> Result<Outcome, Fail> {
    let leader = stage.start_servers()?;
    stage.tell(&format!("Three servers found each other. Server {leader} leads: it has the highest id."));
    stage.start_people()?;
    stage.tell("Ada and Ben talk in #kitchen, Cleo and Dan in #garden.");
    stage.talk_for(TALK)?;
    let killed = stage.kill(leader)?;
    stage.tell(&format!("Server {leader} is killed (SIGKILL). Nobody is told."));
    let recovery = wait_for_recovery(stage, leader, killed)?;
    stage.talk_for(TALK)?;
    let tally = stage.settle()?;
    Ok(Outcome { tally, recovery })
}

/// Goes on talking until there is another leader and every member has got a message from after the kill.
fn wait_for_recovery(stage: &mut Stage, dead: u64, killed: Instant) -> Result<Option<Duration>, Fail> {
    let (mut noticed, mut led, mut recovered) = (None, None, None);
    while killed.elapsed() < RECOVERY_MAX && (led.is_none() || recovered.is_none()) {
        stage.talk_once()?;
        if noticed.is_none() {
            noticed = stage.noticed(dead, killed);
            if let Some(after) = noticed {
                stage.tell(&format!("The others have noticed, {} after the kill.", millis(after)));
            }
        }
        if led.is_none() {
            led = stage.new_leader(dead, killed);
            if let Some((leader, after)) = led {
                stage.tell(&format!("Server {leader} leads, {} after the kill.", millis(after)));
            }
        }
        if recovered.is_none() {
            recovered = stage.recovered(killed);
            if let Some(after) = recovered {
                stage.tell(&format!("Every member has got a new message, {} after the kill.", millis(after)));
            }
        }
    }
    if led.is_none() {
        stage.tell("No other server took the lead.");
    }
    Ok(recovered.filter(|_| led.is_some()))
}

/// A span as people read it.
fn millis(span: Duration) -> String {
    format!("{} ms", span.as_millis())
}

/// Tells the result, and whether it is a good one.
fn verdict(outcome: Outcome) -> Result<(), Fail> {
    let Tally { written, stored, lost, doubled } = outcome.tally;
    println!("\n{written} messages written, {stored} stored, {lost} lost, {doubled} doubled.");
    let problem = if lost > 0 || doubled > 0 {
        "messages were lost or doubled"
    } else if stored < written {
        "not every message was stored in time"
    } else if outcome.recovery.is_none_or(|recovery| recovery > RECOVERY_MAX) {
        "it took too long until everybody chatted again"
    } else {
        return Ok(());
    };
    Err(Fail::new(Fail::FAILED, format!("the demo failed: {problem}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demo_passes_only_if_all_is_well() {
        fn check(tally: [usize; 4], recovery_secs: Option<u64>, expected: bool) {
            let [written, stored, lost, doubled] = tally;
            let tally = Tally { written, stored, lost, doubled };
            let outcome = Outcome { tally, recovery: recovery_secs.map(Duration::from_secs) };
            assert_eq!(verdict(outcome).is_ok(), expected, "{outcome:?}");
        }
        check([9, 9, 0, 0], Some(1), true);
        check([9, 8, 0, 0], Some(1), false);
        check([9, 9, 1, 0], Some(1), false);
        check([9, 9, 0, 1], Some(1), false);
        check([9, 9, 0, 0], Some(11), false);
        check([9, 9, 0, 0], None, false);
    }
}

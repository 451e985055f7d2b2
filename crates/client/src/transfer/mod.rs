//! `export` and `import`: a cluster's logs as a file, a JSON object a line.
//!
//! ```text
//! {"hobnob":"export","version":1,"cluster":"hobnob","cluster_id":"5f0c…","made":1795341723456}
//! {"hobnob":"room","room":"tea","floors":{"2.1882552126147351":7}}
//! {"body":"…","client_seq":1,…,"origin":[2,1882552126147351],"room":"tea","seq":8}
//! …
//! {"hobnob":"end","entries":812}
//! ```
//!
//! A `room` line stands before the entries of its room. It names, for origins whose first entries are not in the file, the
//! last number that is missing: they were no longer kept, or are from before the time that was asked for. What is found to be
//! kept no longer while the room is written stands in another `room` line of the same room. Within a room
//! each origin's entries come in their order; that is what an import needs. A file without its `end` was cut.
//!
//! Both ways nothing is held but what is under way, whatever the length of the log.

use std::collections::BTreeMap;

use hobnob_proto::{
    ids::{ClusterId, ClusterName, Origin, RoomName},
    log::VersionVector,
    wire::frame::Ask,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Fail, Options, net, speaker::Speaker};

pub(crate) mod export;
pub(crate) mod import;
mod lines;
mod progress;
pub(crate) mod record;

/// The version of the format that is written, and the highest that is read.
const VERSION: u32 = 1;
/// Origins that one `room` line names; of more there is another line.
const FLOORS_PER_LINE: usize = 1_000;

/// A line of an export that is no entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "hobnob", rename_all = "snake_case")]
enum Mark {
    /// The first line.
    Export(Head),
    /// The entries of a room come next.
    Room {
        /// Which.
        room: RoomName,
        /// Up to where each origin has no entries here.
        #[serde(default)]
        floors: VersionVector,
    },
    /// The last line.
    End {
        /// How many entries there are.
        entries: u64,
    },
}

/// What a file is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    /// Of the format.
    version: u32,
    /// The cluster's name.
    cluster: ClusterName,
    /// The cluster's id.
    cluster_id: ClusterId,
    /// When, on cluster time: milliseconds since 1970.
    made: u64,
    /// The only room, where not all were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    room: Option<RoomName>,
    /// From when on, milliseconds since 1970, where not everything was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    since: Option<u64>,
}

/// The `room` lines of a room.
fn room_marks(room: &RoomName, floors: &VersionVector) -> Vec<Mark> {
    let floors: Vec<(Origin, u64)> = floors.iter().collect();
    let mark = |floors: &[(Origin, u64)]| Mark::Room { room: room.clone(), floors: floors.iter().copied().collect() };
    let first = mark(&floors[..floors.len().min(FLOORS_PER_LINE)]);
    std::iter::once(first).chain(floors.chunks(FLOORS_PER_LINE).skip(1).map(mark)).collect()
}

/// Somebody who asks a server that lets them: in an open cluster that is one on this machine, since only there is it known
/// who may do what; in a closed one any. The first question, and its answer.
async fn authorized(mut options: Options, ask: Ask) -> Result<(Speaker, Value), Fail> {
    let is_here = options.secret.is_none() && options.servers.is_empty() && options.interfaces.is_empty();
    if is_here {
        options.interfaces = net::loopback();
    }
    let mut speaker = Speaker::asking(&options)?;
    speaker.connect().await.map_err(|fail| match fail.code {
        Fail::NOT_FOUND if is_here => Fail::new(
            Fail::NOT_FOUND,
            "no server on this machine answers: run this command on the machine of a server, or start one here",
        ),
        _ => fail,
    })?;
    if let Some(server) = speaker.server().filter(|_| options.servers.is_empty()) {
        // From here on with that one, whatever the others' load.
        speaker.quit().await;
        options.servers = vec![server];
        speaker = Speaker::asking(&options)?;
        speaker.connect().await?;
    }
    let answer = speaker.ask(ask).await?.into_iter().next().unwrap_or_default();
    if answer["allowed"] != true {
        let why = answer["why"].as_str().unwrap_or("the server does not allow this");
        return Err(Fail::new(Fail::NOT_ALLOWED, why));
    }
    Ok((speaker, answer))
}

/// The floors of a room of a file.
type Floors = BTreeMap<Origin, u64>;

#[cfg(test)]
mod tests {
    use hobnob_proto::ids::{Boot, ServerId};

    use super::*;

    #[test]
    fn floors_of_many_origins_go_over_several_lines_and_those_of_none_over_one() {
        fn check(origins: u64, expected: usize) {
            let floors: VersionVector =
                (1..=origins).map(|boot| (Origin { id: ServerId(1), boot: Boot(boot) }, boot)).collect();
            let marks = room_marks(&RoomName::lobby(), &floors);
            let mut all = VersionVector::default();
            for mark in &marks {
                let text = serde_json::to_string(mark).unwrap();
                assert!(text.len() < lines::LINE_BYTES_MAX, "{}", text.len());
                let Mark::Room { floors, .. } = serde_json::from_str(&text).unwrap() else { panic!("{text}") };
                all.merge(&floors);
            }
            assert_eq!((marks.len(), all), (expected, floors), "{origins} origins");
        }
        check(0, 1);
        check(1_000, 1);
        check(1_001, 2);
        check(5_000, 5);
    }

    #[test]
    fn the_lines_around_the_entries_are_as_documented() {
        fn check(text: &str) {
            let mark: Mark = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&mark).unwrap(), text);
        }
        let id = "5f0c1e2d3b4a59687786958493a2b1c0";
        check(&format!(r#"{{"hobnob":"export","version":1,"cluster":"a","cluster_id":"{id}","made":7}}"#));
        check(&format!(
            r#"{{"hobnob":"export","version":1,"cluster":"a","cluster_id":"{id}","made":7,"room":"b","since":4}}"#
        ));
        check(r#"{"hobnob":"room","room":"b","floors":{"1.2":3}}"#);
        check(r#"{"hobnob":"end","entries":9}"#);
    }
}

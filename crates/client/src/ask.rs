//! `status`, `rooms`, `who`, `clusters`, `retire`, `join`: questions to the servers, answered as a table or as JSON.

use std::{net::SocketAddr, time::Duration};

use hobnob_proto::{
    client::Event,
    ids::{ClusterId, ServerId},
    wire::frame::Ask,
};
use serde_json::{Map, Value, json};

use crate::{Fail, Options, net, output, speaker::Speaker, table::Table, text};

/// How long `clusters` listens.
const LISTEN: Duration = Duration::from_secs(1);
/// How long a server may take to come over to another cluster, and when it is looked at.
const JOIN: Duration = Duration::from_secs(20);
const JOIN_LOOK: Duration = Duration::from_millis(200);

/// See [`crate::status`].
pub(crate) async fn status(options: Options, json: bool) -> Result<(), Fail> {
    let (parts, open) = answer(&options, Ask::Status).await?;
    let mut status = object(parts);
    status["open"] = json!(open);
    print(&status, json, status_text)
}

/// See [`crate::rooms`].
pub(crate) async fn rooms(options: Options, json: bool) -> Result<(), Fail> {
    let rooms = list(answer(&options, Ask::Rooms).await?.0);
    print(&rooms, json, |rooms| rooms_table(rooms).to_text())
}

/// See [`crate::who`].
pub(crate) async fn who(options: Options, json: bool) -> Result<(), Fail> {
    let people = people(&list(answer(&options, Ask::Who { room: options.room.clone() }).await?.0));
    print(&people, json, who_text)
}

/// See [`crate::retire`].
pub(crate) async fn retire(options: Options, server: Option<ServerId>) -> Result<(), Fail> {
    let mut speaker = Speaker::asking(&options)?;
    speaker.connect().await?;
    let server = match server {
        Some(server) => Some(server),
        // Whoever names an address means the server there.
        None if !options.servers.is_empty() => None,
        None => Some(server_of_this_machine(&object(speaker.ask(Ask::Status).await?))?),
    };
    let said = speaker.ask(Ask::Retire { server }).await?;
    speaker.quit().await;
    output::status(said.first().and_then(Value::as_str).unwrap_or("the server is retired"));
    Ok(())
}

/// See [`crate::join`].
pub(crate) async fn join(mut options: Options, cluster: ClusterId) -> Result<(), Fail> {
    if options.servers.is_empty() && options.interfaces.is_empty() {
        // The server that is meant is the one here: nobody else is asked.
        options.interfaces = net::loopback();
    }
    let mut speaker = Speaker::asking(&options)?;
    speaker.connect().await.map_err(|fail| match fail.code {
        Fail::NOT_FOUND if options.servers.is_empty() => Fail::new(
            Fail::NOT_FOUND,
            "no server on this machine answers: start one, or name the one to bring over with --server-ip and \
             --server-port",
        ),
        _ => fail,
    })?;
    speaker.ask(Ask::Join { cluster }).await?;
    let deadline = speaker.session().now() + JOIN;
    loop {
        let status = object(speaker.ask(Ask::Status).await?);
        if status["cluster_id"] == json!(cluster) {
            speaker.quit().await;
            let (me, name) = (cell(&status["me"]), cell(&status["cluster"]));
            output::status(&format!("server {me} is in the cluster {name} ({cluster}) now, with all that it held"));
            return Ok(());
        }
        if speaker.session().now() >= deadline {
            let why = format!(
                "no server of the cluster {cluster} has let this one in: look at `hobnob clusters`, and try again"
            );
            return Err(Fail::new(Fail::FAILED, why));
        }
        while speaker.hear_within(JOIN_LOOK).await?.is_some() {}
    }
}

/// See [`crate::clusters`].
pub(crate) async fn clusters(options: Options, json: bool) -> Result<(), Fail> {
    let mut speaker = Speaker::asking(&options)?;
    let deadline = speaker.session().now() + LISTEN;
    let mut found = Vec::new();
    while let Some(event) = speaker.session().event_before(deadline).await {
        if let Event::Found { name, cluster, addr, servers, open } = event {
            found.push(json!({ "name": name, "cluster_id": cluster, "addr": addr, "servers": servers, "open": open }));
        }
    }
    let not_found = speaker.not_found();
    speaker.quit().await;
    if found.is_empty() && !json {
        return Err(not_found);
    }
    let is_empty = found.is_empty();
    print(&Value::Array(found), json, |clusters| {
        let mut table = Table::new(&["CLUSTER", "ID", "SERVERS", "ADDRESS", ""]);
        for cluster in items(clusters) {
            let open = if cluster["open"] == true { "open" } else { "closed" };
            table.row(
                ["name", "cluster_id", "servers", "addr"]
                    .map(|key| cell(&cluster[key]))
                    .into_iter()
                    .chain([open.to_owned()]),
            );
        }
        table.to_text()
    })?;
    if is_empty { Err(not_found) } else { Ok(()) }
}

/// Everybody but those who only ask, as this very process does.
fn people(who: &Value) -> Value {
    let only_asks = |person: &Value| person["via"] == "script" && items(&person["rooms"]).is_empty();
    Value::Array(items(who).iter().filter(|person| !only_asks(person)).cloned().collect())
}

/// The parts of the answer, and whether the cluster is open.
async fn answer(options: &Options, ask: Ask) -> Result<(Vec<Value>, Option<bool>), Fail> {
    let mut speaker = Speaker::asking(options)?;
    speaker.connect().await?;
    let parts = speaker.ask(ask).await?;
    let open = speaker.open_cluster();
    speaker.quit().await;
    Ok((parts, open))
}

/// The server that runs on this machine, where there is one.
fn server_of_this_machine(status: &Value) -> Result<ServerId, Fail> {
    let is_here = |server: &&Value| {
        let addr: Option<SocketAddr> = server["addr"].as_str().and_then(|addr| addr.parse().ok());
        server["state"] != "down" && addr.is_some_and(|addr| net::is_local(addr.ip()))
    };
    let id = |server: &Value| Some(ServerId(u32::try_from(server["id"].as_u64()?).ok()?));
    let here: Vec<ServerId> = items(&status["servers"]).iter().filter(is_here).filter_map(id).collect();
    match here[..] {
        [server] => Ok(server),
        [] => {
            Err(Fail::new(Fail::USAGE, "no server runs on this machine: say which to retire, as in `hobnob retire 2`"))
        }
        _ => {
            let ids: Vec<String> = here.iter().map(ToString::to_string).collect();
            let message = format!("servers {} run on this machine: say which to retire", ids.join(", "));
            Err(Fail::new(Fail::USAGE, message))
        }
    }
}

/// One list of the parts of an answer.
pub(crate) fn list(parts: Vec<Value>) -> Value {
    let items = |part| if let Value::Array(items) = part { items } else { vec![part] };
    Value::Array(parts.into_iter().flat_map(items).collect())
}

/// One object of the parts of an answer: their lists are joined, of anything else the last one counts.
fn object(parts: Vec<Value>) -> Value {
    let mut whole = Map::new();
    for part in parts {
        let Value::Object(part) = part else { continue };
        for (key, value) in part {
            match (whole.get_mut(&key), value) {
                (Some(Value::Array(items)), Value::Array(more)) => items.extend(more),
                (_, value) => {
                    whole.insert(key, value);
                }
            }
        }
    }
    // An empty cluster has them too.
    for key in ["servers", "rooms", "interfaces"] {
        whole.entry(key).or_insert_with(|| json!([]));
    }
    Value::Object(whole)
}

fn print(answer: &Value, json: bool, to_text: impl Fn(&Value) -> String) -> Result<(), Fail> {
    let text = if json { answer.to_string() } else { to_text(answer) };
    output::line(text.trim_end()).map(|_reader| ())
}

fn items(list: &Value) -> &[Value] {
    list.as_array().map_or(&[], Vec::as_slice)
}

/// A value as a table shows it.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(", "),
        value => value.to_string(),
    }
}

/// The number that an answer gives, or the length of the list that it gives instead.
pub(crate) fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| items(value).len() as u64)
}

fn status_text(status: &Value) -> String {
    let leader = match &status["leader"] {
        Value::Null => "no leader".to_owned(),
        leader => format!("led by server {}", cell(leader)),
    };
    let mut servers = Table::new(&["SERVER", "ADDRESS", "STATE", "ROLE", "LOAD", "CLIENTS", "LAG"]);
    for server in items(&status["servers"]) {
        let lag = format!("{} ms", number(&server["lag_ms"]));
        let cells = ["id", "addr", "state", "role", "load", "sessions"].map(|key| cell(&server[key]));
        servers.row(cells.into_iter().chain([lag]));
    }
    let trust = match status["open"].as_bool() {
        Some(true) => "Open cluster: anyone on this network can read and post.\n",
        Some(false) => "Closed cluster: only who has its secret can read and post.\n",
        None => "",
    };
    format!(
        "{trust}Cluster {} ({}), {leader}, term {}; answered by server {}.\n\n{}\n{}",
        cell(&status["cluster"]),
        cell(&status["cluster_id"]),
        cell(&status["term"]),
        cell(&status["me"]),
        servers.to_text(),
        rooms_table(&status["rooms"]).to_text() + &interfaces_text(&status["me"], &status["interfaces"])
    )
}

/// The interfaces of the server that answers; nothing where it does not tell of any.
fn interfaces_text(me: &Value, interfaces: &Value) -> String {
    if items(interfaces).is_empty() {
        return String::new();
    }
    let mut table = Table::new(&["INTERFACE", "ADDRESSES", "USED", "BECAUSE"]);
    for interface in items(interfaces) {
        let used = if interface["used"] == true { "yes" } else { "no" };
        let why = interface["why"].as_str().unwrap_or_default();
        table.row([cell(&interface["name"]), cell(&interface["addrs"]), used.to_owned(), why.to_owned()]);
    }
    format!("\nInterfaces of server {}:\n{}", cell(me), table.to_text())
}

fn rooms_table(rooms: &Value) -> Table {
    let mut table = Table::new(&["ROOM", "SERVED BY", "COPIES ON", "PEOPLE", "MESSAGES"]);
    for room in items(rooms) {
        let numbers = ["members", "entries"].map(|key| number(&room[key]).to_string());
        table.row(["name", "home", "successors"].map(|key| cell(&room[key])).into_iter().chain(numbers));
    }
    table
}

fn who_text(people: &Value) -> String {
    let mut table = Table::new(&["NAME", "SERVED BY", "VIA", "ROOMS", "SINCE (UTC)"]);
    for person in items(people) {
        let since = person["since"]
            .as_u64()
            .map_or_else(|| "-".to_owned(), |since| format!("{} {}", text::day(since), text::time_of_day(since)));
        table.row(["name", "server", "via", "rooms"].map(|key| cell(&person[key])).into_iter().chain([since]));
    }
    table.to_text()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_status_make_one_object() {
        let parts = vec![
            json!({ "cluster": "hobnob", "term": 3 }),
            json!({ "servers": [1] }),
            json!({ "servers": [2], "rooms": ["a"] }),
            json!({ "rooms": ["b"] }),
        ];
        let expected =
            json!({ "cluster": "hobnob", "term": 3, "servers": [1, 2], "rooms": ["a", "b"], "interfaces": [] });
        assert_eq!(object(parts), expected);
        assert_eq!(object(vec![]), json!({ "servers": [], "rooms": [], "interfaces": [] }));
    }

    #[test]
    fn who_only_asks_is_nobody() {
        let anna = json!({ "name": "anna", "via": "terminal", "rooms": [] });
        let tail = json!({ "name": "ben", "via": "script", "rooms": ["tea"] });
        let asks = json!({ "name": "asking-1", "via": "script", "rooms": [] });
        assert_eq!(people(&json!([anna, tail, asks])), json!([anna, tail]));
    }

    #[test]
    fn the_parts_of_a_list_make_one_list() {
        assert_eq!(list(vec![json!([1, 2]), json!([]), json!([3])]), json!([1, 2, 3]));
    }

    #[test]
    fn a_status_is_a_text_for_people() {
        let status = json!({
            "cluster": "hobnob", "cluster_id": "00ff", "open": true, "leader": 2, "term": 7, "me": 1,
            "servers": [{ "id": 2, "addr": "127.0.0.1:5001", "role": "leader", "load": 4, "sessions": 1, "lag_ms": 0, "state": "up" }],
            "rooms": [{ "name": "lobby", "home": 2, "successors": [1, 3], "members": 2, "entries": 40 }],
            "interfaces": [
                { "name": "eth0", "addrs": ["192.0.2.7"], "used": true, "why": null },
                { "name": "wg0", "addrs": ["10.9.0.1"], "used": false, "why": "it is a VPN or a tunnel" },
            ],
        });
        let expected = "\
Open cluster: anyone on this network can read and post.
Cluster hobnob (00ff), led by server 2, term 7; answered by server 1.

SERVER  ADDRESS         STATE  ROLE    LOAD  CLIENTS  LAG
2       127.0.0.1:5001  up     leader  4     1        0 ms

ROOM   SERVED BY  COPIES ON  PEOPLE  MESSAGES
lobby  2          1, 3       2       40

Interfaces of server 1:
INTERFACE  ADDRESSES  USED  BECAUSE
eth0       192.0.2.7  yes
wg0        10.9.0.1   no    it is a VPN or a tunnel
";
        assert_eq!(status_text(&status), expected);
    }

    #[test]
    fn the_server_of_this_machine_is_found_by_its_address() {
        fn check(servers: &Value, expected: Option<u32>) {
            let server = server_of_this_machine(&json!({ "servers": servers }));
            assert_eq!(server.ok(), expected.map(ServerId));
        }
        let here = json!({ "id": 4, "addr": "127.0.0.1:5001", "state": "up" });
        let down = json!({ "id": 5, "addr": "127.0.0.1:5002", "state": "down" });
        let away = json!({ "id": 6, "addr": "203.0.113.9:5001", "state": "up" });
        check(&json!([here, down, away]), Some(4));
        check(&json!([away]), None);
        check(&json!([here, here]), None);
        check(&json!("nonsense"), None);
    }
}

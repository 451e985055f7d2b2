//! What is as long as a keepalive, at the session port of a server. While many come, they come in through a second socket
//! there, and a broadcast comes to both. What is held here is the sum: through which socket each came, nobody tells.

use std::{thread, time::Duration};

use crate::{
    common::{patience, wait_for},
    network::{Host, Network},
};

/// What is as long as a keepalive, and counted as nothing that anybody says.
const JUNK: [u8; 50] = [b'x'; 50];

/// How much of it the server there has heard.
fn heard(host: &Host) -> Option<u64> {
    host.status()?["counters"]["packet_type"].as_u64()
}

#[test]
fn a_broadcast_as_long_as_a_keepalive_is_heard_once() {
    let Some(mut network) = Network::flat(2) else { return };
    network.serve(1, &[]);
    let (host, stranger) = (&network.hosts[0], network.hosts[1].socket());
    stranger.set_broadcast(true).unwrap();
    let port = host.server.as_ref().expect("it serves").port;
    let mut sent = 0;
    let mut send = |count: u64, to: &str| {
        for _ in 0..count {
            assert_eq!(stranger.send_to(&JUNK, (to, port)).unwrap(), JUNK.len());
        }
        sent += count;
    };
    // So many at once that they are many, and so few in all that none is lost where the server has to wait.
    send(100, &host.ip.to_string());
    for _ in 0..30 {
        thread::sleep(Duration::from_millis(2));
        send(4, &host.ip.to_string());
        send(1, "10.77.1.255");
    }
    wait_for("all is heard", patience(5_000), || heard(host).filter(|heard| *heard >= sent));
    thread::sleep(Duration::from_millis(100));
    assert_eq!(heard(host), Some(sent));
}

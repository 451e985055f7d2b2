//! What is said in a handshake: by whoever opens a session, and by whoever answers.

use hobnob_proto::{
    limits,
    rng::Rng,
    session::{
        Datagrams, Endpoint, Event,
        keys::{KeyPair, Suite},
    },
    time::Time,
    wire::Greeting,
};

/// A greeting that is read, and written again, is read as the same; and any bytes at all come out of a handshake as they
/// went in.
///
/// # Panics
/// If not.
pub fn run(data: &[u8]) {
    if let Some(greeting) = Greeting::from_payload(data) {
        let payload = greeting.to_payload();
        let again = Greeting::from_payload(&payload).expect("what we write can be read");
        assert_eq!(again.to_payload(), payload);
        assert_eq!(format!("{again:?}"), format!("{greeting:?}"));
    }
    if data.len() <= limits::HANDSHAKE_PAYLOAD_BYTES_MAX {
        shake_hands(data);
    }
}

fn shake_hands(payload: &[u8]) {
    let suite = if payload.len().is_multiple_of(2) { Suite::AesGcm } else { Suite::ChaChaPoly };
    let (local, remote) = (KeyPair::from_private([7; 32].into()), KeyPair::from_private([9; 32].into()));
    let (server_key, now) = (remote.public, Time::ZERO);
    let mut server = Endpoint::new(Some(remote), Rng::from_seed([1; 32]));
    let mut client = Endpoint::new(None, Rng::from_seed([2; 32]));
    let (here, there) = (([127, 0, 0, 1], 1).into(), ([127, 0, 0, 1], 2).into());
    client.connect(there, &local, &server_key, suite, payload, now);
    let mut out = Datagrams::default();
    client.flush(now, &mut out);
    let asked = last(&mut out).expect("a handshake begins");
    server.handle(here, &asked, now);
    server.tick(now);
    let Some(Event::Asked { session, key, payload: told, .. }) = server.poll_event() else {
        panic!("the handshake did not arrive");
    };
    assert_eq!((key, &told[..]), (local.public, payload));
    server.accept(session, payload, now);
    server.flush(now, &mut out);
    let Some(answer) = last(&mut out) else {
        assert_eq!(server.counters().keys().collect::<Vec<_>>(), [&"answer_too_large"]);
        return;
    };
    assert!(answer.len() <= asked.len(), "an answer is not larger than what asked for it");
    client.handle(there, &answer, now);
    let Some(Event::Up { key, payload: told, .. }) = client.poll_event() else { panic!("the answer is not taken") };
    assert_eq!((key, &told[..]), (server_key, payload));
    client.flush(now, &mut out);
    server.handle(here, &last(&mut out).expect("it confirms"), now);
    assert!(matches!(server.poll_event(), Some(Event::Up { payload: told, .. }) if told == payload));
}

/// The newest of these datagrams; all are forgotten.
fn last(out: &mut Datagrams) -> Option<Vec<u8>> {
    let last = out.iter().last().map(|(_, bytes)| bytes.to_vec());
    out.clear();
    last
}

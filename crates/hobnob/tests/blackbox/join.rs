//! `join`: two clusters of one name that are older than a minute stay apart until somebody brings a server over.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::common::{Place, patience, wait_for};

/// So old clusters that hold messages do not unite by themselves.
const OLD: Duration = Duration::from_secs(61);
/// Answers that come back through the relay before the clusters count as knowing of each other: a few rounds of HELLO.
const ROUNDS: u32 = 4;

/// Carries datagrams between whoever sends to its port and a server, once it is told to.
struct Relay {
    port: u16,
    is_open: Arc<AtomicBool>,
    is_over: Arc<AtomicBool>,
    answers: Arc<AtomicU32>,
    threads: Vec<JoinHandle<()>>,
}

impl Relay {
    /// A relay to the session port `to`; at first it loses everything.
    fn new(to: u16) -> Self {
        let near = Arc::new(UdpSocket::bind("127.0.0.1:0").unwrap());
        let far = Arc::new(UdpSocket::bind("127.0.0.1:0").unwrap());
        far.connect(("127.0.0.1", to)).unwrap();
        let port = near.local_addr().unwrap().port();
        let (is_open, is_over) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let answers = Arc::<AtomicU32>::default();
        let asker: Arc<std::sync::Mutex<Option<SocketAddr>>> = Arc::default();
        let carry = |from: Arc<UdpSocket>, to: Arc<UdpSocket>, is_back: bool| {
            let (is_open, is_over, asker) = (Arc::clone(&is_open), Arc::clone(&is_over), Arc::clone(&asker));
            let answers = Arc::clone(&answers);
            thread::spawn(move || {
                from.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
                let mut buffer = [0; 2_048];
                while !is_over.load(Ordering::Relaxed) {
                    let Ok((len, sender)) = from.recv_from(&mut buffer) else { continue };
                    if !is_open.load(Ordering::Relaxed) {
                        continue;
                    }
                    let mut asker = asker.lock().unwrap();
                    let _lost = if is_back {
                        answers.fetch_add(1, Ordering::Relaxed);
                        asker.map(|asker| to.send_to(&buffer[..len], asker))
                    } else {
                        *asker = Some(sender);
                        Some(to.send(&buffer[..len]))
                    };
                }
            })
        };
        let threads = vec![carry(Arc::clone(&near), Arc::clone(&far), false), carry(far, near, true)];
        Self { port, is_open, is_over, answers, threads }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _panicked = thread.join();
        }
    }
}

#[test]
fn a_server_is_brought_into_another_cluster_with_all_that_it_holds() {
    let (here, there) = (Place::new(), Place::new());
    let first = here.server(1);
    let relay = Relay::new(first.port);
    let peer = format!("127.0.0.1:{}", relay.port);
    let second = there.server_with(Some(2), &["--cluster", &here.cluster, "--peer", &peer]);
    for (place, server) in [(&here, &first), (&there, &second)] {
        let ended = place.ask(server, &["send", "--cluster", &here.cluster, "--room", "tea", "hello"]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }
    thread::sleep(OLD);
    relay.is_open.store(true, Ordering::Relaxed);

    let id_of = |place: &Place, server| {
        let ended = place.ask(server, &["status", "--cluster", &here.cluster, "--json"]);
        serde_json::from_str::<serde_json::Value>(&ended.out).unwrap()["cluster_id"].as_str().unwrap().to_owned()
    };
    let (id, other) = (id_of(&here, &first), id_of(&there, &second));
    assert_ne!(id, other, "they are two clusters");
    wait_for("they have heard each other for a few rounds", patience(30_000), || {
        (relay.answers.load(Ordering::Relaxed) >= ROUNDS).then_some(())
    });
    assert_eq!((id_of(&here, &first), id_of(&there, &second)), (id.clone(), other), "they do not unite by themselves");
    let join = || there.ask(&second, &["join", &id, "--cluster", &here.cluster]);
    let joined = wait_for("the server has heard of the other cluster", patience(5_000), || {
        let ended = join();
        let is_early = ["was heard in the last 30 s", "has let this one in"].iter().any(|why| ended.err.contains(why));
        assert!(ended.code == Some(0) || is_early, "{ended:?}");
        (ended.code == Some(0)).then_some(ended)
    });
    assert!(joined.err.contains(&format!("is in the cluster {} ({id}) now", here.cluster)), "{}", joined.err);
    for (place, server) in [(&here, &first), (&there, &second)] {
        wait_for("both hold what was said in both", patience(10_000), || {
            let ended =
                place.ask(server, &["tail", "--cluster", &here.cluster, "--json", "--since", "all", "--room", "tea"]);
            (ended.json_lines().len() == 2).then_some(())
        });
    }
}

#[test]
fn a_cluster_that_nobody_has_heard_of_is_not_joined() {
    let place = Place::new();
    let server = place.server(1);
    let ended = place.ask(&server, &["join", &"0".repeat(32)]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.err.contains("`hobnob clusters` lists those that answer"), "{}", ended.err);
    let nowhere = Place::new().run(&["join", &"0".repeat(32)]);
    assert_eq!(nowhere.code, Some(3), "{nowhere:?}");
}

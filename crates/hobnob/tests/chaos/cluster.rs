//! A cluster that things happen to, and the people who post meanwhile.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    common::{Place, STATUS_POLL, Server, agreement, wait_for},
    faults::{Fault, SERVERS},
    network::{self, Network},
    posters::Poster,
};

/// Who posts where. The first is on the machine of a server, which may be cut off with it.
const POSTERS: [(&str, &str, usize); 4] =
    [("ada", "tea", 0), ("ben", "tea", 3), ("cleo", "milk", 3), ("dan", "milk", 3)];
/// Between two lines of anybody.
const GAP: Duration = Duration::from_millis(25);
/// How long people talk before something happens, and after it was mended.
const CALM: Duration = Duration::from_millis(700);
/// How long a pause or a cut lasts.
const SPAN: Duration = Duration::from_secs(3);
/// How long all may take to be well again.
const HEALED_MAX: Duration = Duration::from_secs(90);

/// Servers, each with a data directory of its own, and people.
#[derive(Debug)]
pub(crate) struct Cluster {
    posters: Vec<Poster>,
    servers: Vec<Option<Server>>,
    /// On machines of their own.
    network: Option<Network>,
    /// All on this one.
    here: Option<Place>,
    turn: usize,
}

/// What came of a cycle.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// Messages posted.
    pub(crate) said: u64,
    /// Of these, acknowledged as stored: all, or the cycle would not have ended.
    pub(crate) stored: u64,
    /// Stored since the cluster began, and not shown by some server.
    pub(crate) lost: u64,
    /// Shown more than once.
    pub(crate) doubled: u64,
    /// Servers that show another order than the first.
    pub(crate) disordered: u64,
    /// The longest time without word of any post.
    pub(crate) longest: Duration,
    /// How long it took.
    pub(crate) took: Duration,
}

impl Cluster {
    /// Starts it, and waits until people are there and are heard.
    pub(crate) fn start() -> Self {
        let network = if network::possible().is_ok() { Network::flat(SERVERS + 1) } else { None };
        let here = network.is_none().then(Place::new);
        let servers = (0..SERVERS).map(|_| None).collect();
        let mut cluster = Self { posters: Vec::new(), servers, network, here, turn: 0 };
        for at in 0..SERVERS {
            cluster.serve(at);
        }
        cluster.wait_until_well(Instant::now());
        cluster.posters =
            POSTERS.iter().map(|&(name, room, at)| Poster::arrive(cluster.place(at), name, room)).collect();
        cluster.talk_until(|cluster| cluster.posters.iter().all(|poster| !poster.stored().is_empty()));
        cluster
    }

    /// Something happens, is mended, and everything is checked.
    pub(crate) fn cycle(&mut self, fault: &Fault) -> Told {
        let start = Instant::now();
        let (said, stored) = (self.said(), self.stored());
        self.talk_for(CALM);
        self.suffer(*fault);
        self.talk_for(CALM);
        self.wait_until_well(start);
        let longest = self.longest_silence(start);
        let mut told = self.check();
        told.said = self.said() - said;
        told.stored = self.stored() - stored;
        (told.longest, told.took) = (longest, start.elapsed());
        told
    }

    fn suffer(&mut self, fault: Fault) {
        match fault {
            Fault::Kill(at, gap) => {
                self.kill(at);
                self.talk_for(gap);
                self.serve(at);
            }
            Fault::Pause(at) => {
                self.server(at).process.signal("STOP");
                self.talk_for(SPAN);
                self.server(at).process.signal("CONT");
            }
            Fault::KillAll(gap) => {
                for at in 0..SERVERS {
                    self.server(at).process.signal("KILL");
                }
                (0..SERVERS).for_each(|at| self.kill(at));
                self.talk_for(gap);
                (0..SERVERS).for_each(|at| self.serve(at));
            }
            Fault::Wipe(at, gap) => {
                self.kill(at);
                std::fs::remove_dir_all(self.directory(at)).unwrap();
                self.talk_for(gap);
                self.serve(at);
            }
            Fault::Unplug(at) => {
                self.machines().unplug(at);
                self.talk_for(SPAN);
                self.machines().plug(at);
            }
            Fault::Deafen(at) => self.cut(at, |network| network.hosts[at].deafen()),
            Fault::Silence(at) => self.cut(at, |network| network.hosts[at].silence()),
            Fault::DeafenTo(at, other) => self.cut(at, |network| network.hosts[at].deafen_to(&network.hosts[other])),
        }
    }

    fn cut(&mut self, at: usize, cut: impl Fn(&Network)) {
        cut(self.machines());
        self.talk_for(SPAN);
        self.machines().hosts[at].hear_and_be_heard();
    }

    // ---- servers

    fn machines(&self) -> &Network {
        self.network.as_ref().expect("cuts are drawn only where there are cables")
    }

    fn place(&self, at: usize) -> &Place {
        match (&self.network, &self.here) {
            (Some(network), _) => &network.hosts[at].place,
            (None, here) => here.as_ref().expect("it is one or the other"),
        }
    }

    fn directory(&self, at: usize) -> PathBuf {
        self.place(at).home.join(format!("data-{at}"))
    }

    fn serve(&mut self, at: usize) {
        let directory = self.directory(at);
        let args = ["--data-dir", directory.to_str().expect("it is text")];
        self.servers[at] = Some(self.place(at).start_server(Some(at as u64 + 1), &args));
    }

    fn kill(&mut self, at: usize) {
        self.servers[at].take().expect("it runs").process.kill();
    }

    fn server(&self, at: usize) -> &Server {
        self.servers[at].as_ref().expect("it runs")
    }

    // ---- people

    fn said(&self) -> u64 {
        self.posters.iter().map(|poster| poster.said).sum()
    }

    fn stored(&self) -> u64 {
        self.posters.iter().map(|poster| poster.stored().len() as u64).sum()
    }

    fn say(&mut self) {
        self.turn = (self.turn + 1) % self.posters.len();
        self.posters[self.turn].say();
        thread::sleep(GAP);
    }

    fn talk_for(&mut self, span: Duration) {
        let end = Instant::now() + span;
        while Instant::now() < end {
            self.say();
        }
    }

    fn talk_until(&mut self, enough: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !enough(self) {
            assert!(start.elapsed() < HEALED_MAX, "nothing is stored for {HEALED_MAX:?}");
            (0..8).for_each(|_| self.say());
        }
    }

    /// Waits until all servers agree, and all that was said is stored.
    fn wait_until_well(&mut self, since: Instant) {
        let mut view = None;
        while view.is_none() {
            assert!(since.elapsed() < HEALED_MAX, "the servers do not agree");
            thread::sleep(STATUS_POLL);
            view = agreement((0..SERVERS).map(|at| self.place(at).status(self.server(at))));
        }
        for poster in &mut self.posters {
            assert_eq!(poster.end(), None);
        }
        wait_for("all that was said is stored", HEALED_MAX, || (self.stored() == self.said()).then_some(()));
    }

    /// The longest time since then without word of any post.
    fn longest_silence(&self, since: Instant) -> Duration {
        let mut heard: Vec<Instant> = self.posters.iter().flat_map(Poster::heard).filter(|at| *at > since).collect();
        heard.sort_unstable();
        let times: Vec<Instant> = std::iter::once(since).chain(heard).collect();
        times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }

    // ---- the check

    /// Every server shows every stored message once, and all in the same order. What is late may come for a while.
    fn check(&self) -> Told {
        let rooms: BTreeSet<&str> = self.posters.iter().map(|poster| poster.room).collect();
        let start = Instant::now();
        loop {
            let mut told = Told::default();
            for room in &rooms {
                self.check_room(room, &mut told);
            }
            if told.lost + told.disordered == 0 || start.elapsed() > HEALED_MAX {
                return told;
            }
            thread::sleep(STATUS_POLL);
        }
    }

    fn check_room(&self, room: &str, told: &mut Told) {
        let mut first: Option<Vec<String>> = None;
        for at in 0..SERVERS {
            let log = self.place(at).log_of(self.server(at), room);
            let mut shown: BTreeMap<(&str, u64), u64> = BTreeMap::new();
            for entry in &log {
                let key =
                    (entry["from"].as_str().unwrap_or_default(), entry["client_seq"].as_u64().unwrap_or_default());
                *shown.entry(key).or_default() += 1;
            }
            for poster in self.posters.iter().filter(|poster| poster.room == room) {
                let is_lost = |seq: &&u64| !shown.contains_key(&(poster.name, **seq));
                let stored = poster.stored();
                let lost: Vec<&u64> = stored.iter().filter(is_lost).collect();
                if !lost.is_empty() {
                    println!("server {} lacks {} of {} in {room}: {lost:?}", at + 1, lost.len(), poster.name);
                }
                told.lost += lost.len() as u64;
            }
            let bodies: Vec<String> = log.iter().map(body).collect();
            let once: BTreeSet<&String> = bodies.iter().collect();
            told.doubled += (bodies.len() - once.len()) as u64;
            match &first {
                Some(first) => told.disordered += u64::from(*first != bodies),
                None => first = Some(bodies),
            }
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // People first, and machines last.
        self.posters.clear();
        self.servers.clear();
    }
}

fn body(entry: &Value) -> String {
    entry["body"].as_str().unwrap_or_default().to_owned()
}

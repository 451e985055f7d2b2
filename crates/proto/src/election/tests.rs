//! One server against a scripted world. (Whole clusters: `tests/detect`.)

use super::*;
use crate::{
    rng::Rng,
    time::{Duration, Time},
};

const ME: u32 = 3;

fn origin(id: u32) -> Origin {
    Origin { id: ServerId(id), boot: Boot(u64::from(id) * 10) }
}

fn epoch(term: u64, leader: u32) -> Epoch {
    Epoch { term, leader: ServerId(leader), boot: origin(leader).boot }
}

/// Server 3 in a virtual world, and what it wants done.
struct Bench {
    election: Election,
    now: Time,
    outputs: Vec<Output>,
    /// Whether its disk makes nothing durable by itself.
    is_slow: bool,
}

impl Bench {
    /// It has joined `live`, who follow the leader of `epoch`.
    fn new(live: &[u32], epoch: Epoch) -> Self {
        let election = Election::new(origin(ME), 0, Rng::from_seed([1; 32]));
        let mut bench = Self { election, now: Time::ZERO, outputs: Vec::new(), is_slow: false };
        bench.view(live, epoch);
        bench.input(Input::Joined);
        bench
    }

    fn input(&mut self, input: Input) -> &mut Self {
        self.election.handle(input, self.now);
        while let Some(output) = self.election.poll() {
            if let Output::PersistTerm(term) = output
                && !self.is_slow
            {
                self.election.handle(Input::TermDurable(term), self.now);
            }
            self.outputs.push(output);
        }
        self
    }

    fn view(&mut self, live: &[u32], epoch: Epoch) -> &mut Self {
        self.view_past(live, &[], epoch)
    }

    /// The same, with servers that only others hear.
    fn view_past(&mut self, live: &[u32], unheard: &[u32], epoch: Epoch) -> &mut Self {
        let led = epoch.term > 0;
        let peer = |id: &u32, heard| {
            (ServerId(*id), PeerView { boot: origin(*id).boot, heard, eligible: true, leaving: false, led, epoch })
        };
        let unheard = unheard.iter().map(|id| peer(id, false));
        let live = live.iter().map(|id| peer(id, true)).chain(unheard).collect();
        self.input(Input::View { live, eligible: true })
    }

    fn says(&mut self, from: u32, message: Message) -> &mut Self {
        self.input(Input::Message { from: origin(from), message })
    }

    /// Its next deadline comes.
    fn tick(&mut self) -> &mut Self {
        self.now = self.election.deadline().expect("it waits for nothing");
        self.input(Input::Tick)
    }

    /// Deadlines come until it stands like that.
    fn until(&mut self, state: State) -> &mut Self {
        for _ in 0..10 {
            if self.election.state() == state {
                return self;
            }
            self.tick();
        }
        panic!("still {:?}", self.election.state());
    }

    /// What it wanted done since the last call.
    fn took(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.outputs)
    }
}

fn to(to: u32, message: Message) -> Output {
    Output::Send { to: ServerId(to), message }
}

#[test]
fn a_term_is_durable_before_it_is_announced() {
    let mut bench = Bench::new(&[1, 2], Epoch::NONE);
    bench.is_slow = true;
    bench.until(State::Electing).tick().tick();
    let won = epoch(1, 3);
    assert_eq!(bench.took()[3..], [Output::PersistTerm(1)]);
    bench.view(&[1, 2], Epoch::NONE).input(Input::TermDurable(0));
    assert_eq!((bench.took(), bench.election.epoch(), bench.election.deadline()), (vec![], Epoch::NONE, None));
    bench.input(Input::TermDurable(1));
    assert_eq!(
        bench.took(),
        [Output::Broadcast(Message::Coordinator { epoch: won }), Output::Won(won), Output::Leader(Some(won)),]
    );
    bench.input(Input::Synced(epoch(0, 3)));
    assert_eq!(bench.election.state(), State::Syncing, "that was another epoch's directory");
    bench.input(Input::Synced(won));
    assert_eq!(bench.election.state(), State::Leader);
}

#[test]
fn a_term_that_becomes_durable_too_late_is_not_announced() {
    fn check(meanwhile: impl Fn(&mut Bench) -> &mut Bench, leads: bool) {
        let mut bench = Bench::new(&[1, 2], Epoch::NONE);
        bench.is_slow = true;
        bench.until(State::Electing).tick().tick();
        meanwhile(&mut bench);
        bench.input(Input::TermDurable(1));
        assert_eq!(bench.election.leader() == Some(ServerId(ME)), leads);
    }
    check(|bench| bench, true);
    check(|bench| bench.says(2, Message::Coordinator { epoch: epoch(2, 2) }), false);
    check(|bench| bench.view(&[1, 2, 4], epoch(7, 4)), false);
    check(|bench| bench.view(&[], Epoch::NONE), true);
}

#[test]
fn a_server_alone_wins_at_once() {
    assert_eq!(Bench::new(&[], Epoch::NONE).election.state(), State::Syncing);
}

#[test]
fn a_candidate_is_answered_by_what_it_should_know() {
    fn check(bench: &mut Bench, from: u32, expected: &[Output]) {
        bench.took();
        bench.says(from, Message::Election { term: 7 });
        assert_eq!(bench.took(), expected, "a candidacy of {from}");
    }
    let (alive, ask) = (Message::Alive { term: 7 }, Output::Broadcast(Message::Election { term: 8 }));
    // Without a leader: from below, it takes over; from above, it waits.
    check(&mut Bench::new(&[2, 4], Epoch::NONE), 2, &[to(2, alive), ask]);
    check(&mut Bench::new(&[2, 4], Epoch::NONE), 4, &[]);
    // Behind a leader: it says so, unless the candidate is above that leader.
    let led = epoch(5, 4);
    check(&mut Bench::new(&[2, 4, 5], led), 2, &[to(2, Message::LeaderOk { epoch: led })]);
    check(&mut Bench::new(&[2, 4, 5], led), 5, &[]);
    // As the leader.
    let mut leader = Bench::new(&[], Epoch::NONE);
    leader.view(&[2, 4], Epoch::NONE);
    let mine = epoch(1, 3);
    check(&mut leader, 2, &[to(2, alive), to(2, Message::Coordinator { epoch: mine })]);
    check(&mut leader, 4, &[]);
}

#[test]
fn a_higher_one_answers_and_is_waited_for() {
    let mut bench = Bench::new(&[1, 4], Epoch::NONE);
    bench.until(State::Electing).says(1, Message::Alive { term: 1 });
    assert_eq!(bench.election.state(), State::Electing, "1 is below");
    bench.says(4, Message::Alive { term: 9 });
    assert_eq!(bench.election.state(), State::Electing, "that answers another question");
    bench.says(4, Message::Alive { term: 1 });
    assert_eq!(bench.election.state(), State::AwaitingCoordinator);
    let asked = bench.now;
    bench.until(State::Electing);
    assert!((300..=500).contains(&bench.now.since(asked).as_millis()), "then it asks again");
    bench.says(4, Message::Coordinator { epoch: epoch(6, 4) });
    assert_eq!((bench.election.state(), bench.election.leader()), (State::Follower, Some(ServerId(4))));
    assert_eq!(bench.election.deadline(), None);
}

#[test]
fn those_who_hear_the_leader_hold_a_suspecter_back() {
    fn check(live: &[u32], content: &[u32], expected: State) {
        let mut bench = Bench::new(&[1, 2, 4, 5, 9], epoch(5, 9));
        bench.view(live, epoch(5, 9)).until(State::Electing);
        for from in content {
            bench.says(*from, Message::LeaderOk { epoch: epoch(5, 9) });
        }
        if bench.election.state() == State::Electing {
            bench.until(State::Syncing);
        }
        assert_eq!(bench.election.state(), expected, "{live:?}, of whom {content:?} hear it");
    }
    check(&[1], &[1], State::Follower);
    check(&[1], &[], State::Syncing);
    check(&[1, 2], &[1], State::Syncing);
    check(&[1, 2], &[1, 2], State::Follower);
    check(&[1, 2, 4, 5], &[1, 2], State::Syncing);
    check(&[1, 2, 4, 5], &[1, 2, 4], State::Follower);
}

#[test]
fn one_that_stood_down_tries_again_when_the_others_lose_the_leader_too() {
    let mut bench = Bench::new(&[1, 2, 9], epoch(5, 9));
    bench.view(&[1, 2], epoch(5, 9)).until(State::Electing);
    for from in [1, 2] {
        bench.says(from, Message::LeaderOk { epoch: epoch(5, 9) });
    }
    let retry = bench.election.deadline().unwrap();
    assert!(retry.since(bench.now) >= Duration::from_millis(300));
    bench.view(&[1, 2], Epoch::NONE);
    let sooner = bench.election.deadline().unwrap();
    assert!(sooner.since(bench.now) <= Duration::from_millis(30));
}

#[test]
fn an_epoch_deposes_only_a_lower_one() {
    fn check(heard: Epoch, expected: State) {
        let mut bench = Bench::new(&[], Epoch::NONE);
        bench.view(&[2, 4], Epoch::NONE).input(Input::Synced(epoch(1, 3))).took();
        let from = Origin { id: heard.leader, boot: heard.boot };
        bench.input(Input::HeardEpoch { from, epoch: heard });
        assert_eq!(bench.election.state(), expected, "{heard:?}");
        assert!(bench.election.epoch() >= epoch(1, 3));
        let told = bench.took().contains(&to(heard.leader.0, Message::Coordinator { epoch: epoch(1, 3) }));
        assert_eq!(told, heard < epoch(1, 3), "a lower one hears of the higher");
    }
    check(epoch(1, 2), State::Leader);
    check(epoch(1, 4), State::Follower);
    check(epoch(2, 2), State::Follower);
    check(Epoch { boot: Boot(31), ..epoch(1, 3) }, State::Follower);
    check(epoch(u64::MAX, 4), State::Leader);
}

#[test]
fn a_lower_leader_is_bullied_but_not_at_once() {
    let mut bench = Bench::new(&[1, 2], epoch(5, 2));
    assert_eq!(bench.election.leader(), Some(ServerId(2)));
    let wait = bench.election.deadline().unwrap().since(bench.now).as_millis();
    assert!((200..=400).contains(&wait), "{wait} ms");
    bench.until(State::Syncing);
    assert_eq!(bench.election.epoch(), epoch(6, 3));
}

#[test]
fn nobody_coordinates_in_the_name_of_another() {
    let mut bench = Bench::new(&[1, 4], Epoch::NONE);
    bench.says(1, Message::Coordinator { epoch: epoch(9, 4) });
    assert_eq!(bench.election.epoch(), Epoch::NONE);
}

#[test]
fn a_restart_forgets_no_term() {
    let election = Election::new(origin(ME), 7, Rng::from_seed([1; 32]));
    assert!(!election.accepts(epoch(6, 9)));
    assert!(election.accepts(epoch(7, 1)));
    assert_eq!(election.leader(), None);
}

#[test]
fn a_lie_about_our_own_epoch_makes_us_no_leader() {
    let mut bench = Bench::new(&[1, 2], epoch(5, 2));
    bench.input(Input::HeardEpoch { from: origin(1), epoch: epoch(8, 3) });
    assert_eq!((bench.election.state(), bench.election.leader()), (State::Follower, None));
    bench.until(State::Syncing);
    assert_eq!(bench.election.epoch(), epoch(9, 3));
}

#[test]
fn a_newer_boot_of_the_leader_is_not_the_leader() {
    let mut bench = Bench::new(&[1, 9], Epoch { boot: Boot(89), ..epoch(5, 9) });
    assert_eq!(bench.election.leader(), None);
    bench.until(State::Electing);
}

#[test]
fn a_leader_that_only_others_hear_still_leads() {
    let mut bench = Bench::new(&[1, 2, 9], epoch(5, 9));
    bench.view_past(&[1, 2], &[9], epoch(5, 9));
    assert_eq!((bench.election.leader(), bench.election.deadline()), (Some(ServerId(9)), None));
    bench.view(&[1, 2], epoch(5, 9));
    assert_eq!(bench.election.leader(), None, "it died");
}

#[test]
fn a_lower_leader_that_only_others_hear_is_bullied() {
    let mut bench = Bench::new(&[1], epoch(5, 2));
    bench.view_past(&[1], &[2], epoch(5, 2)).until(State::Syncing);
    assert_eq!(bench.election.epoch(), epoch(6, 3));
}

#[test]
fn whom_we_do_not_hear_is_no_answer_and_no_question() {
    // 9 has died. Of 1, 2, 4, only 1 hears it still; 4 and 5 we do not hear.
    let mut bench = Bench::new(&[1, 2, 9], epoch(5, 9));
    bench.view_past(&[1, 2], &[4, 5], epoch(5, 9)).until(State::Electing).took();
    bench.says(1, Message::LeaderOk { epoch: epoch(5, 9) });
    assert_eq!(bench.election.state(), State::Electing, "one of two that it hears");
    bench.tick();
    assert_eq!(bench.took(), [to(2, Message::Election { term: 6 })], "only those who have not answered, and hear it");
    bench.until(State::Syncing);
    // One that hears nobody, and of whom nobody tells, has nobody to ask.
    let mut alone = Bench::new(&[9], epoch(5, 9));
    alone.view_past(&[], &[4], epoch(5, 9));
    assert_eq!(alone.election.state(), State::Syncing);
}

#[test]
fn a_higher_epoch_of_one_that_may_not_lead_deposes_nobody_who_may() {
    let meets = |bench: &mut Bench, eligible: bool| {
        let view = |id: u32, eligible, epoch| {
            (ServerId(id), PeerView { boot: origin(id).boot, heard: true, eligible, leaving: false, led: true, epoch })
        };
        let live = [view(2, true, epoch(5, 2)), view(9, eligible, epoch(8, 9))].into();
        bench.input(Input::View { live, eligible: true });
        (bench.election.leader(), bench.election.epoch())
    };
    let mut follower = Bench::new(&[2], epoch(5, 2));
    assert_eq!(meets(&mut follower, false), (Some(ServerId(2)), epoch(5, 2)));
    assert_eq!(meets(&mut follower, true), (Some(ServerId(9)), epoch(8, 9)));
    let mut leader = Bench::new(&[], epoch(0, 0));
    assert_eq!(meets(&mut leader, false), (Some(ServerId(3)), epoch(9, 3)), "it leads on in a term above");
    assert_eq!(leader.took().iter().filter(|output| matches!(output, Output::PersistTerm(9))).count(), 1);
}

#[test]
fn a_term_that_is_only_remembered_deposes_nobody_who_leads() {
    let remembered = |term| Epoch { term, ..Epoch::NONE };
    let meets = |bench: &mut Bench| {
        let view = |id: u32, epoch| {
            (
                ServerId(id),
                PeerView { boot: origin(id).boot, heard: true, eligible: true, leaving: false, led: true, epoch },
            )
        };
        bench.input(Input::View { live: [view(2, epoch(5, 2)), view(1, remembered(8))].into(), eligible: false });
        (bench.election.leader(), bench.election.epoch())
    };
    assert_eq!(meets(&mut Bench::new(&[2], epoch(5, 2))), (Some(ServerId(2)), epoch(5, 2)));
    let mut leader = Bench::new(&[], Epoch::NONE);
    leader.view(&[1], remembered(8));
    assert_eq!((leader.election.leader(), leader.election.epoch()), (Some(ServerId(ME)), epoch(9, 3)));
    let leaders = leader.took().into_iter().filter(|output| *output == Output::Leader(None)).count();
    assert_eq!(leaders, 0, "it has led all the time");
}

#[test]
fn one_that_has_won_and_is_overtaken_meanwhile_tries_again() {
    let mut bench = Bench::new(&[1, 2], Epoch::NONE);
    bench.is_slow = true;
    bench.until(State::Electing).tick().tick();
    assert_eq!(bench.election.deadline(), None, "it has won, and waits for its disk");
    bench.view(&[1, 2], Epoch { term: 9, ..Epoch::NONE });
    bench.is_slow = false;
    bench.until(State::Syncing);
    assert_eq!(bench.election.epoch(), epoch(10, 3));
}

#[test]
fn one_that_may_not_lead_takes_nothing_over_from_a_live_leader() {
    // Neither may lead: 2 leads, and 3 is above it.
    let view = |live: &[u32]| {
        let epoch = epoch(5, 2);
        let peer = |id: &u32| PeerView {
            boot: origin(*id).boot,
            heard: true,
            eligible: false,
            leaving: false,
            led: true,
            epoch,
        };
        Input::View { live: live.iter().map(|id| (ServerId(*id), peer(id))).collect(), eligible: false }
    };
    let mut bench = Bench::new(&[1, 2], epoch(5, 2));
    bench.input(view(&[1, 2]));
    assert_eq!((bench.election.leader(), bench.election.deadline()), (Some(ServerId(2)), None));
    bench.took();
    bench.says(1, Message::Election { term: 6 });
    assert_eq!(bench.took(), [to(1, Message::LeaderOk { epoch: epoch(5, 2) })]);
    bench.input(view(&[1])).until(State::Syncing);
}

#[test]
fn a_leader_that_leaves_is_succeeded_at_once() {
    let mut bench = Bench::new(&[1, 9], epoch(5, 9));
    assert_eq!(bench.election.deadline(), None);
    let peer = |id: u32, leaving: bool| {
        let (boot, epoch) = (origin(id).boot, epoch(5, 9));
        (ServerId(id), PeerView { boot, heard: true, eligible: !leaving, leaving, led: true, epoch })
    };
    bench.input(Input::View { live: [peer(1, false), peer(9, true)].into(), eligible: true });
    let wait = bench.election.deadline().unwrap().since(bench.now);
    assert!(wait <= Duration::from_millis(30), "{wait:?}");
    bench.until(State::Syncing);
    assert!(bench.now <= Time::ZERO + Duration::from_millis(130));
}

#[test]
fn one_that_may_not_lead_and_names_ever_higher_terms_makes_no_term_of_each() {
    let mut bench = Bench::new(&[], epoch(0, 0));
    for beat in 0..20 {
        let epoch = epoch(1_000 * (beat + 1), 9);
        let view = PeerView { boot: origin(9).boot, heard: true, eligible: false, leaving: false, led: true, epoch };
        bench.input(Input::View { live: [(ServerId(9), view)].into(), eligible: true });
        bench.now = bench.now + Duration::from_millis(100);
    }
    let terms = bench.took().iter().filter(|output| matches!(output, Output::Won(_))).count();
    assert!(terms <= 3, "{terms} terms in two seconds");
    assert_eq!(bench.election.leader(), Some(ServerId(ME)));
}

#[test]
fn a_term_far_above_all_that_are_known_is_a_lie() {
    let check = |known: u64, told: u64, expected: u64| {
        let mut bench = Bench::new(&[2], epoch(known, 2));
        bench.view(&[2], epoch(told, 2));
        assert_eq!(bench.election.epoch().term, expected, "{known} {told}");
    };
    check(5, 5 + (1 << 20), 5 + (1 << 20));
    check(5, 6 + (1 << 20), 5);
    check(0, 1 << 30, 1 << 30);
}

//! What goes into a client and what comes out of it.

use std::net::SocketAddr;

use crate::{
    hlc::Hlc,
    ids::{ClusterId, ClusterName, DeviceId, Origin, PersonName, RoomName, ServerId},
    log::Entry,
    wire::frame::{Ask, Refusal, Start},
};

/// What happens to a client.
#[derive(Debug)]
pub enum Input<'a> {
    /// A datagram arrived.
    Datagram {
        /// From whom.
        from: SocketAddr,
        /// What.
        bytes: &'a [u8],
    },
    /// [`Client::deadline`] has passed.
    Tick,
    /// The interfaces of this machine, or their addresses, are not what they were: asks at once whether its servers are
    /// still there.
    Network,
    /// The person, or the program, wants something.
    Command(Command),
}

/// What a person or a program can want.
#[derive(Clone, Debug)]
pub enum Command {
    /// Follow a room; answered by [`Event::Joined`]. At most
    /// [`limits::ROOMS_PER_CLIENT_MAX`](crate::limits::ROOMS_PER_CLIENT_MAX) rooms; nothing comes of more, nor of a room
    /// that is followed already.
    Join {
        /// Which.
        room: RoomName,
        /// From where on.
        from: Start,
    },
    /// Follow a room no longer.
    Part {
        /// Which.
        room: RoomName,
    },
    /// Post a message; repeated until it is settled. The caller has made `seq` durable before.
    Post {
        /// Where.
        room: RoomName,
        /// The device's number of it in that room: the last one + 1, from 1.
        seq: u64,
        /// The text.
        body: String,
    },
    /// Ask something; answered by [`Event::Answer`] or [`Event::AnswerError`].
    Ask {
        /// Chosen by the caller.
        id: u64,
        /// What.
        ask: Ask,
    },
    /// Take another name; answered by [`Event::Connected`] or [`Event::NotWelcome`].
    Rename {
        /// The name.
        name: PersonName,
    },
    /// Be another device, after [`Event::Refused`] with [`Refusal::Clash`]. It posts again what was not accepted. Of what
    /// was, nothing more is told: it is in the log as the old device's, and comes to be stored without us, or is repeated
    /// by whoever is the old device next.
    NewDevice {
        /// The new device.
        device: DeviceId,
    },
    /// Say goodbye to the server.
    Quit,
}

/// What a client wants done.
#[derive(Debug)]
pub enum Output {
    /// Send a datagram.
    Send {
        /// To whom.
        to: SocketAddr,
        /// What.
        bytes: Vec<u8>,
    },
    /// Send a datagram to the discovery port on every interface.
    Broadcast {
        /// What.
        bytes: Vec<u8>,
    },
    /// Tell the person or the program.
    Event(Event),
}

/// What a client tells its person or program.
#[derive(Clone, Debug)]
pub enum Event {
    /// A cluster has answered. Once for each cluster that is seen, ours or not.
    Found {
        /// Its name.
        name: ClusterName,
        /// Its id.
        cluster: ClusterId,
        /// The address that answered.
        addr: SocketAddr,
        /// How many servers it has.
        servers: usize,
        /// Whether it needs no secret.
        open: bool,
    },
    /// No server has answered yet; repeated while that is so, at growing intervals (the first after 1 s).
    Searching,
    /// A server serves us: the first time, and after each move.
    Connected {
        /// Which.
        server: ServerId,
        /// At which address.
        addr: SocketAddr,
        /// In which cluster.
        cluster: ClusterId,
        /// Whether the cluster has no secret.
        open: bool,
    },
    /// The server does not answer, or said that it dies; another is looked for.
    Lost {
        /// Which.
        server: ServerId,
    },
    /// Which servers our server hears, whenever that changes, or another server serves us.
    Servers {
        /// Those, and itself.
        up: Vec<ServerId>,
    },
    /// Our name is taken.
    NotWelcome {
        /// A sentence that says what to do.
        why: String,
        /// A name that is free.
        suggestion: Option<PersonName>,
    },
    /// A server answered that cannot prove the secret we have, or asks for one that we lack.
    NotTrusted {
        /// A sentence that says what to do.
        why: String,
    },
    /// A room is followed.
    Joined {
        /// Which.
        room: RoomName,
        /// How many entries of history will follow.
        history: u64,
    },
    /// A room had more history than is kept.
    HistoryGone {
        /// Which room.
        room: RoomName,
        /// When the first message of what is kept was sent (cluster time, milliseconds since 1970); `None` where there is
        /// none.
        before: Option<u64>,
    },
    /// All history that there was on joining has been shown.
    CaughtUp {
        /// In which room.
        room: RoomName,
    },
    /// A message to be shown: each post once.
    Message {
        /// The message.
        entry: Entry,
        /// Whether it was there before we joined.
        history: bool,
        /// Whether it belongs above one that has been shown already.
        late: bool,
    },
    /// What became of a post of ours. Once for each step.
    Acked {
        /// Where.
        room: RoomName,
        /// Our number.
        seq: u64,
        /// The entry's origin.
        origin: Origin,
        /// The entry's seq.
        entry: u64,
        /// The entry's time.
        hlc: Hlc,
        /// On how many servers it is.
        copies: u32,
        /// `false`: accepted at its home; `true`: stored, and so settled.
        stored: bool,
        /// Whether the copies are on disk.
        durable: bool,
    },
    /// A post of ours will not be stored: settled, and the text is still the caller's. After [`Refusal::CannotStore`] it is
    /// not settled: it is kept, and repeated until some home can write.
    Refused {
        /// Where.
        room: RoomName,
        /// Our number.
        seq: u64,
        /// Why.
        why: Refusal,
    },
    /// A part of the answer to [`Command::Ask`], in order.
    Answer {
        /// The caller's number.
        id: u64,
        /// The part.
        data: serde_json::Value,
        /// Whether it is the last.
        last: bool,
    },
    /// A question cannot be answered.
    AnswerError {
        /// The caller's number.
        id: u64,
        /// A sentence that says what to do.
        why: String,
    },
}

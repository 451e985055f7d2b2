//! Every bound of the protocol, in one place.

use std::{ops::RangeInclusive, time::Duration};

/// Servers between two that do not hear each other, over which they know of each other, and what one says is passed on to
/// the other. It bounds how often news of a server that has died may go in a circle.
pub const HOPS_MAX: u8 = 3;
/// Characters of a room's, a person's or a cluster's name.
pub const NAME_CHARS_MAX: usize = 32;
/// Bytes of a message's body.
pub const BODY_BYTES_MAX: usize = 16 * 1024;
/// Bytes of frames in one sealed packet.
pub const PAYLOAD_BYTES_MAX: usize = 1200;
/// Bytes of one frame on its own, so that a few fit where a packet has other frames too.
pub const FRAME_BYTES_MAX: usize = PAYLOAD_BYTES_MAX;
/// Bytes of a datagram that anybody may send us; longer ones are dropped unread.
pub const DATAGRAM_BYTES_MAX: usize = 2048;
/// Bytes of what the opener of a handshake says with it.
pub const HANDSHAKE_PAYLOAD_BYTES_MAX: usize = 1_024;
/// Bytes to which that is padded, so that the answer is never larger than what asked for it.
pub const HANDSHAKE_PADDED_BYTES_MIN: usize = 256;
/// How long a handshake may take, at either side.
pub const HANDSHAKE_SPAN_MAX: Duration = Duration::from_secs(3);
/// How long a session may be silent: three keepalives of 25 s.
pub const SILENCE_MAX: Duration = Duration::from_secs(75);
/// How long the datagram of a keepalive is: nothing but a ping, of the first 99,999 of a client (29 days of one each 25 s,
/// half of that with a standby, which is pinged too). Later ones are longer, and come in as anything else does.
pub const KEEPALIVE_BYTES: RangeInclusive<usize> = 48..=52;
/// How far behind the newest packet of a session an older one may arrive, in packets.
pub const REPLAY_WINDOW: u64 = 1_024;
/// Bytes of lines that wait in a session until its handshake is done.
pub const UNSENT_BYTES_MAX: usize = 64 * 1024;
/// Bytes that may wait in a session that is up when an entry or a post is added; past that it is dropped, and pulled or
/// repeated later.
pub const UNSENT_LARGE_BYTES_MAX: usize = 256 * 1024;
/// Bytes of lines of any kind that may wait in a session that is up: a new leader gets the records of all rooms at once.
pub const UNSENT_UP_BYTES_MAX: usize = 24 * 1024 * 1024;
/// Bytes of a line that goes as fragments: a body of control characters only, each written as six, and its header.
pub const FRAGMENTED_LINE_BYTES_MAX: usize = 6 * BODY_BYTES_MAX + 2 * 1024;
/// Lines that one session puts together from fragments at a time.
pub const FRAGMENTED_LINES_MAX: usize = 4;
/// Bytes that it holds for them, each piece counted with what it costs to keep: one line of the greatest length fits.
pub const FRAGMENTS_BYTES_MAX: usize = 128 * 1024;
/// How long a line of which no new piece has come keeps its place when another one wants it.
pub const FRAGMENTED_LINE_SPAN_MAX: Duration = Duration::from_secs(3);
/// Bytes of posts in one room that a client has under way beyond the oldest.
pub const POSTS_AHEAD_BYTES_MAX: usize = 32 * 1024;
/// Sessions that one server holds.
pub const SESSIONS_MAX: usize = 200_000;
/// Of these, with clients: the other places are for servers, and for handshakes that are under way.
pub const CLIENT_SESSIONS_MAX: usize = SESSIONS_MAX - 4 * HALF_OPEN_MAX;
/// Handshakes answered whose initiator has not yet proved itself.
pub const HALF_OPEN_MAX: usize = 1_024;
/// Of these, from one source: an IPv4 address, or an IPv6 /64. A host has as many clients as that may start in one round
/// trip; others try again 100 ms later.
pub const HALF_OPEN_PER_SOURCE_MAX: usize = 128;
/// Half-open sessions from which on a handshake has to show a cookie.
pub const HALF_OPEN_LOADED: usize = 256;
/// Handshakes computed in one turn, at 0.4 ms each: so a turn is short whoever calls.
pub const HANDSHAKES_PER_TURN: u32 = 8;
/// Rekeys answered in one turn. They have a ration of their own, so that strangers cannot use it up.
pub const REKEYS_PER_TURN: u32 = 4;
/// Handshakes that wait for a later turn; each has shown a cookie.
pub const HANDSHAKES_WAITING_MAX: usize = 256;
/// Of these, from one source.
pub const HANDSHAKES_WAITING_PER_SOURCE_MAX: usize = 64;
/// Cookies given out in one turn.
pub const COOKIES_PER_TURN: usize = 256;
/// How old the keys of a session get, +-25 %.
pub const REKEY_EVERY: Duration = Duration::from_hours(1);
/// How long an initiator asks for new keys before it drops the session.
pub const REKEY_SPAN_MAX: Duration = Duration::from_hours(2);
/// How long packets under the last keys of a session are still opened.
pub const LAST_KEYS_KEPT: Duration = Duration::from_secs(10);
/// Rooms that one client follows at a time.
pub const ROOMS_PER_CLIENT_MAX: usize = 256;
/// Rooms that a cluster holds.
pub const ROOMS_MAX: usize = 100_000;
/// Servers in a cluster.
pub const SERVERS_MAX: usize = 16;
/// Servers up to which each of them holds a copy of every room.
pub const FULL_COPY_SERVERS_MAX: usize = 7;
/// Copies of a room in a larger cluster.
pub const COPIES: usize = 3;
/// Entries that wait in memory above a hole, for each room and follower.
pub const STRANDED_MAX: usize = 4_096;
/// Origins of one room that a follower keeps apart: a room sees one more with each start of one of its homes.
pub const ORIGINS_MAX: usize = 65_536;
/// Entries pushed beyond what a follower has acknowledged; past that it pulls.
pub const PUSH_AHEAD_MAX: u64 = 1_024;
/// Lines of an import that are under way, or held and not on the disk yet, for each session.
pub const IMPORT_AHEAD_MAX: usize = 512;
/// Bytes of their bodies; the first goes whatever its length.
pub const IMPORT_AHEAD_BYTES_MAX: usize = 32 * 1024;
/// Bytes of the kind of an entry that is imported.
pub const KIND_BYTES_MAX: usize = 32;
/// Numbers of entries are below this: what a store can hold of one origin in one room.
pub const SEQ_BOUND: u64 = 1 << 36;
/// Entries that one pull may ask for.
pub const PULL_ENTRIES_MAX: u32 = 1_024;
/// Cluster time is below this, in milliseconds since 1970: a leader that says more is not followed.
pub const CLUSTER_MILLIS_BOUND: u64 = 1 << 52;
/// The latest that a clock on a wall may say: 2^32 seconds since 1970, in milliseconds.
pub const CLOCK_MILLIS_MAX: u64 = 1_000 << 32;
/// How far beyond cluster time and [`CLOCK_MILLIS_MAX`] an entry of another server may be.
pub const ENTRY_AHEAD_MAX: Duration = Duration::from_hours(24);
/// Bytes of entries, as lines, past which the answer to a pull ends; the first entry goes whatever its length.
pub const PULL_BYTES_MAX: usize = 64 * 1024;
/// How far beyond cluster time a client's own claim of what it was shown may push a new message.
pub const CLAIM_AHEAD_MAX: Duration = Duration::from_mins(1);
/// The number of pulls for entries that are rotten at the asker. A receiver counts its pulls from 1.
pub const PULL_ROTTEN_ID: u32 = u32::MAX;

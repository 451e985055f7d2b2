//! Frames: each to the part that it concerns, if whoever sent it may say such a thing.

use super::{Node, Party, handoff, leave};
use crate::{election, session::SessionId, wire::Frame};

impl Node {
    pub(super) fn on_frame(&mut self, session: SessionId, frame: Frame) {
        match self.sessions.get(&session) {
            Some(Party::Server(id)) => {
                let id = *id;
                self.on_server_frame(session, id, frame);
            }
            Some(Party::Client(_)) => self.on_client_frame(session, frame),
            Some(Party::Rival(_)) => match frame {
                Frame::Collision { boot, asked, starting } => self.on_collision(session, boot, asked, starting),
                _ => self.count("frame_out_of_place"),
            },
            None => self.count("frame_out_of_place"),
        }
    }

    fn on_server_frame(&mut self, session: SessionId, id: crate::ids::ServerId, frame: Frame) {
        match frame {
            Frame::Beat(beat) => self.on_beat(session, id, beat),
            Frame::Entry(entry) => self.on_entry(session, entry),
            Frame::Pull(pull) => self.on_pull(session, &pull),
            Frame::Pulled(pulled) => self.on_pulled(session, &pulled),
            Frame::Cursor { rooms } => self.on_cursor(session, rooms),
            Frame::Heads { rooms } => self.on_heads(session, &rooms),
            Frame::Keeps { rooms } => {
                self.on_keeps(id, &rooms);
                self.on_keeps_for_imports(id, &rooms);
                self.on_keeps_for_floors(id, &rooms);
            }
            Frame::Survey { room, origins } => self.on_survey(session, &room, &origins),
            Frame::Surveyed { room, parts } => self.on_surveyed(session, &room, &parts),
            Frame::Join { room, from } => self.on_join(session, &room, from),
            Frame::Joined { room, heads, .. } => self.on_joined(session, &room, &heads),
            Frame::Part { room } => self.unfollow(session, &room),
            Frame::Post(post) => self.on_post(session, post),
            Frame::Ack(ack) => self.on_ack(session, ack),
            Frame::Refuse(refuse) => self.on_refuse(session, refuse),
            Frame::Compare { rooms } => self.on_compare(session, &rooms),
            Frame::Election(message) => self.on_election_message(id, message),
            Frame::Members { members } => {
                let members = self.believable(session, members);
                self.on_members(members);
            }
            Frame::Rooms { rooms } => self.on_rooms(session, rooms),
            Frame::Assign { epoch, rooms } => self.on_assign(session, id, epoch, rooms),
            Frame::Place { room, detour } => self.on_place(Some(id), &room, detour),
            Frame::SyncReq { epoch } => self.on_sync_req(session, id, epoch),
            Frame::SyncRep { epoch, part, last, rooms } => self.on_sync_rep(session, id, epoch, part, last, rooms),
            Frame::Clients(clients) => self.on_clients(session, id, clients),
            Frame::ClientsReq => self.share_clients(session),
            Frame::Handoff { room, fence, heads, origins } => {
                self.on_handoff(session, id, &room, &handoff::Told { fence, heads, origins });
            }
            Frame::Handed { room, fence } => self.on_handed(id, &room, fence),
            Frame::Leave { who, detour } => self.on_leave(id, who, detour),
            Frame::Leaving { epoch, who, detour } => self.on_leaving(id, epoch, who, detour),
            Frame::Retire => self.leave(leave::Why::Retired),
            Frame::Fragment(_)
            | Frame::Hi(_)
            | Frame::Ask { .. }
            | Frame::Import(_)
            | Frame::Imported { .. }
            | Frame::Bye
            | Frame::Ping { .. }
            | Frame::Welcome(_)
            | Frame::NotWelcome { .. }
            | Frame::Servers { .. }
            | Frame::Answer { .. }
            | Frame::AnswerError { .. }
            | Frame::HiFirst { .. }
            | Frame::Come { .. }
            | Frame::Pong { .. }
            | Frame::Collision { .. } => self.count("frame_out_of_place"),
        }
    }

    fn on_client_frame(&mut self, session: SessionId, frame: Frame) {
        if !matches!(frame, Frame::Hi(_) | Frame::Bye | Frame::Ping { .. } | Frame::Pong { .. })
            && !self.is_served(session)
        {
            self.count("hi_first");
            return self.say_hi_first(session);
        }
        match frame {
            Frame::Hi(hi) => self.on_hi(session, hi),
            Frame::Join { room, from } => self.on_join(session, &room, from),
            Frame::Part { room } => {
                self.unfollow(session, &room);
                self.client_rooms_changed(session);
            }
            Frame::Pull(pull) => self.on_pull(session, &pull),
            Frame::Cursor { rooms } => self.on_cursor(session, rooms),
            Frame::Post(post) => self.on_post(session, post),
            Frame::Ask { id, ask } => self.on_ask(session, id, ask),
            Frame::Import(import) => self.on_import(session, import),
            Frame::Ping { n } => self.on_ping(session, n),
            Frame::Bye => {
                self.endpoint.close(session);
                self.on_closed(session);
            }
            _ => self.count("frame_out_of_place"),
        }
    }

    fn on_election_message(&mut self, id: crate::ids::ServerId, message: election::Message) {
        let Some(from) = self.peers.get(&id).map(|peer| peer.origin) else { return };
        if self.is_live(from) {
            self.elect(election::Input::Message { from, message });
        } else {
            // A server that we do not hear, or that does not hear us, has no say.
            self.count("election_of_unheard");
        }
    }
}

//! Questions that the chat asks the servers, and how their answers read.

use hobnob_proto::{client::Command, wire::frame::Ask};
use serde_json::Value;

use super::{Chat, Effect, Question, Stage};
use crate::{
    ask::{list, number},
    text,
};

impl Chat {
    pub(super) fn ask(&mut self, question: Question, ask: Ask) {
        self.asks += 1;
        self.asked.insert(self.asks, (question, Vec::new()));
        self.effects.push_back(Effect::Command(Command::Ask { id: self.asks, ask }));
    }

    pub(super) fn answer(&mut self, id: u64, data: Value, last: bool) {
        let Some((_, parts)) = self.asked.get_mut(&id) else { return };
        parts.push(data);
        if last && let Some((question, parts)) = self.asked.remove(&id) {
            let answer = list(parts);
            let items = answer.as_array().map_or(&[][..], Vec::as_slice);
            match question {
                Question::FirstRooms => {
                    self.show_rooms(items);
                    if self.stage == Stage::Search {
                        self.stage = Stage::Room;
                    }
                }
                Question::Rooms => self.show_rooms(items),
                Question::Who => self.show_people(items),
            }
        }
    }

    fn show_rooms(&mut self, rooms: &[Value]) {
        if rooms.is_empty() {
            self.status("there are no rooms yet");
        }
        for room in rooms {
            let people = match number(&room["members"]) {
                1 => "1 person".to_owned(),
                n => format!("{n} people"),
            };
            let messages = text::count(number(&room["entries"]), "message");
            self.status(&format!("#{}: {people}, {messages}", word(&room["name"])));
        }
    }

    fn show_people(&mut self, people: &[Value]) {
        if people.is_empty() {
            self.status("nobody is here");
        }
        for person in people {
            let (name, server, via) = (word(&person["name"]), word(&person["server"]), word(&person["via"]));
            self.status(&format!("{name}, served by server {server} ({via})"));
        }
    }
}

fn word(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

//! Whether our server hears any other: words for people, when it no longer does and when it does again.

use hobnob_proto::ids::ServerId;

use crate::text;

/// What is known of it.
#[derive(Debug, Default)]
pub(crate) struct Company {
    /// How many servers our server heard last, itself included.
    servers: usize,
    /// Whether people were told that it is alone.
    is_alone: bool,
}

impl Company {
    /// Our server hears these. What is to be told of that, if anything: nothing where a server is alone from the start.
    pub(crate) fn heard(&mut self, up: &[ServerId]) -> Option<String> {
        let before = std::mem::replace(&mut self.servers, up.len());
        match (up, self.is_alone) {
            ([only], false) if before > 1 => {
                self.is_alone = true;
                Some(format!(
                    "server {only} hears no other server now: what you send is on it alone for the time being"
                ))
            }
            ([_, _, ..], true) => {
                self.is_alone = false;
                let others = text::count(up.len() as u64 - 1, "other server");
                Some(format!("your server hears {others} again"))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn to_be_alone_is_told_and_to_be_no_longer_so_each_once() {
        fn check(lists: &[&[u32]], expected: &[&str]) {
            let mut company = Company::default();
            let lists = lists.iter().map(|list| list.iter().copied().map(ServerId).collect::<Vec<_>>());
            let told: Vec<_> = lists.filter_map(|list| company.heard(&list)).collect();
            assert_eq!(told, expected);
        }
        let alone = "server 1 hears no other server now: what you send is on it alone for the time being";
        check(&[&[1], &[1, 2], &[1, 2, 3], &[1, 2]], &[]);
        check(&[&[1, 2], &[1], &[1], &[1, 2]], &[alone, "your server hears 1 other server again"]);
        check(&[&[1, 2, 3], &[1], &[2, 3, 4], &[2, 3]], &[alone, "your server hears 2 other servers again"]);
    }
}

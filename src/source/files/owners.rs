//! Names of owners and groups, from `/etc/passwd` and `/etc/group`. Other name services are not asked: ownership goes by number,
//! the names only help people and stock tar.

use std::collections::HashMap;

/// Number to name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Owners {
    users: HashMap<u32, Vec<u8>>,
    groups: HashMap<u32, Vec<u8>>,
}

impl Owners {
    /// As this machine has them; a file that cannot be read gives no names.
    pub fn of_machine() -> Self {
        Owners { users: read("/etc/passwd"), groups: read("/etc/group") }
    }

    /// A user's name, or nothing.
    pub fn user(&self, uid: u32) -> &[u8] {
        self.users.get(&uid).map_or(&[], Vec::as_slice)
    }

    /// A group's name, or nothing.
    pub fn group(&self, gid: u32) -> &[u8] {
        self.groups.get(&gid).map_or(&[], Vec::as_slice)
    }
}

fn read(path: &str) -> HashMap<u32, Vec<u8>> {
    parse(&std::fs::read(path).unwrap_or_default())
}

/// `name:password:number:…` a line; the first line of a number holds.
fn parse(text: &[u8]) -> HashMap<u32, Vec<u8>> {
    let mut out = HashMap::new();
    for line in text.split(|b| *b == b'\n') {
        let mut fields = line.split(|b| *b == b':');
        let (Some(name), Some(_), Some(number)) = (fields.next(), fields.next(), fields.next()) else { continue };
        let Some(number) = std::str::from_utf8(number).ok().and_then(|n| n.parse().ok()) else { continue };
        if !name.is_empty() && !name.starts_with(b"#") {
            out.entry(number).or_insert_with(|| name.to_vec());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_name_of_a_number_holds() {
        let names = parse(b"root:x:0:0:root:/root:/bin/sh\ntoor:x:0:0\n#no:x:5:\nbad\nx:y:z\n\ng:x:7");
        assert_eq!(names.get(&0).unwrap(), b"root");
        assert_eq!(names.get(&7).unwrap(), b"g");
        assert_eq!(names.len(), 2);
    }
}

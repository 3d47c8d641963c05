//! Names of what a restore lays beside live data: `<name>.drctl-<id>` (being loaded), `<name>.drctl-old-<id>` (the data it
//! replaced), `<name>.drctl-undone-<id>` (what an undo took away again). Inside a mount root the name is empty.

/// The three sorts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beside {
    /// Being loaded.
    Stage,
    /// Replaced by a restore.
    Old,
    /// Taken away again by an undo.
    Undone,
}

/// The name beside `name` for a restore's id.
pub(crate) fn beside(name: &[u8], sort: Beside, restore: &str) -> Vec<u8> {
    let mark: &[u8] = match sort {
        Beside::Stage => b".drctl-",
        Beside::Old => b".drctl-old-",
        Beside::Undone => b".drctl-undone-",
    };
    [name, mark, restore.as_bytes()].concat()
}

/// Whether a restore of drctl may have made this name: it ends with an id of eight characters, as all restores have. Such trees are not
/// backed up again; a restore leaves them where they are.
pub(crate) fn is_leftover(name: &[u8]) -> bool {
    let Some(at) = memchr::memmem::rfind(name, b".drctl-") else { return false };
    let id = &name[at + b".drctl-".len()..];
    let id = id.strip_prefix(b"old-").or_else(|| id.strip_prefix(b"undone-")).unwrap_or(id);
    let id = id.strip_suffix(b".steps").unwrap_or(id);
    id.len() == 8 && id.iter().all(|b| ID_ALPHABET.contains(b))
}

/// What restore ids are made of: digits and letters without `i`, `l`, `o`, `u`.
const ID_ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Whether these bytes are a restore's id: `[a-z0-9]{4,16}`.
pub(crate) fn is_id(id: &[u8]) -> bool {
    (4..=16).contains(&id.len()) && id.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftovers_are_known_by_name() {
        for sort in [Beside::Stage, Beside::Old, Beside::Undone] {
            assert!(is_leftover(&beside(b"uploads", sort, "7k3q9xz0")));
            assert!(is_leftover(&beside(b"", sort, "7k3q9xz0")));
        }
        for name in [
            "uploads",
            "a.drctl-",
            "a.drctl-ABCD",
            "a.drctl-7k3",
            "a.drctl-old-",
            "a.drctl-7k3q9xz0.txt",
            "drctl-7k3q9xz0",
            "conf.drctl-2024",
            "a.drctl-failover",
        ] {
            assert!(!is_leftover(name.as_bytes()), "{name}");
        }
    }
}

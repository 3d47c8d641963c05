//! Whether the disk of the server has room for what is loaded. Sizes are those that the databases had when they were dumped.

use crate::process::human_bytes;

/// Beside what is live, where a mistake costs nothing, there must be room for what grows while it is loaded: sorting for indexes, WAL.
const BESIDE_PERCENT: u64 = 110;

/// One database: the bytes it needs, and those of the live one that has its name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Takes {
    pub(super) needs: u64,
    pub(super) live: u64,
}

/// Bytes that are missing at the worst moment of a load in place: one after the other is dropped and loaded. The size of what is loaded is taken
/// as it was, with whatever lay unused in it: mostly it will need less.
fn short_in_place(free: u64, grows: u64, takes: &[Takes]) -> Option<u64> {
    let (mut left, mut least) = (i128::from(free) - i128::from(grows), i128::from(free) - i128::from(grows));
    for one in takes {
        left += i128::from(one.live) - i128::from(one.needs);
        least = least.min(left);
    }
    (least < 0).then(|| u64::try_from(-least).unwrap_or(u64::MAX))
}

fn needs(takes: &[Takes]) -> u64 {
    takes.iter().fold(0, |sum, one| sum.saturating_add(one.needs))
}

/// Why what is loaded beside the live databases does not fit, with the way on.
pub(super) fn beside(folder: &str, free: u64, takes: &[Takes]) -> Option<String> {
    let wanted = (needs(takes) / 100).saturating_mul(BESIDE_PERCENT);
    if free >= wanted {
        return None;
    }
    let way = match short_in_place(free, 0, takes) {
        None => "make room, or restore --in-place, which drops what is live before it loads",
        Some(_) => "make room, or restore to a server with more of it (--target); in place they would not fit either",
    };
    Some(format!("{folder} has {} free, the databases need about {}: {way}", human_bytes(free), human_bytes(wanted)))
}

/// Why what is loaded in place of the live databases does not fit, with the way on. `grows`: bytes of a safety set that goes to the same disk first.
pub(super) fn in_place(folder: &str, free: u64, grows: u64, takes: &[Takes]) -> Option<String> {
    let short = short_in_place(free, grows, takes)?;
    let live = takes.iter().fold(0, |sum: u64, one| sum.saturating_add(one.live));
    let (safety, elsewhere) = match grows {
        0 => (String::new(), ""),
        bytes => (
            format!(", and the safety set, which goes to that disk first, takes about {}", human_bytes(bytes)),
            "have the sets on another disk (drctl doctor shows the room of each), ",
        ),
    };
    Some(format!(
        "{folder} has {} free, what is live gives back {}, the databases need about {}{safety}: {} are missing, and nothing is dropped for what \
         would not fit: make room, {elsewhere}or restore to a server with more of it (--target)",
        human_bytes(free),
        human_bytes(live),
        human_bytes(needs(takes)),
        human_bytes(short)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GB: u64 = 1 << 30;

    fn takes(pairs: &[(u64, u64)]) -> Vec<Takes> {
        pairs.iter().map(|&(needs, live)| Takes { needs: needs * GB, live: live * GB }).collect()
    }

    #[test]
    fn f112_in_place_needs_room_too_where_what_is_live_does_not_free_enough() {
        let refused = |free: u64, grows: u64, pairs: &[(u64, u64)]| in_place("/pg", free * GB, grows * GB, &takes(pairs));
        assert_eq!(refused(0, 0, &[(100, 100)]), None, "what is freed counts, and that is why it is restored in place");
        assert_eq!(refused(10, 10, &[(100, 100)]), None);
        let lost = refused(10, 0, &[(100, 1)]).unwrap();
        assert!(lost.contains("/pg has 10 GiB free, what is live gives back 1.0 GiB") && lost.contains("about 100 GiB"), "{lost}");
        assert!(lost.contains("89 GiB are missing") && lost.contains("--target"), "{lost}");
        let safety = refused(10, 11, &[(100, 100)]).unwrap();
        assert!(
            safety.contains("the safety set, which goes to that disk first, takes about 11 GiB") && safety.contains("another disk"),
            "{safety}"
        );
        // One after the other: what the second frees is not there yet when the first one is loaded.
        assert!(refused(5, 0, &[(10, 1), (1, 10)]).is_some());
        assert_eq!(refused(5, 0, &[(1, 10), (10, 1)]), None);
    }

    #[test]
    fn f112_beside_names_in_place_only_where_that_would_fit() {
        let refused = |free: u64, pairs: &[(u64, u64)]| beside("/pg", free * GB, &takes(pairs));
        assert_eq!(refused(111, &[(100, 100)]), None);
        assert!(refused(105, &[(100, 100)]).unwrap().contains("or restore --in-place"));
        let neither = refused(50, &[(100, 1)]).unwrap();
        assert!(neither.contains("--target") && neither.contains("in place they would not fit either"), "{neither}");
    }
}

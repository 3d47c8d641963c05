//! Whether a process that wrote something down is still alive.

use serde::{Deserialize, Serialize};

/// A process, told from a later one that got the same number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its number, in its own process namespace.
    pub pid: u32,
    /// When it started, in clock ticks since boot (field 22 of `/proc/<pid>/stat`, proc_pid_stat(5)).
    pub start_ticks: u64,
    /// The boot it ran in.
    pub boot: String,
}

impl Process {
    /// This process.
    pub fn this() -> Process {
        let pid = std::process::id();
        Process { pid, start_ticks: start_ticks(pid).unwrap_or(0), boot: boot() }
    }

    /// Whether it still runs, as far as this process namespace shows. A process of another container of the same machine cannot be seen from
    /// here and counts as dead: where that matters a lock decides, as for runs.
    pub fn is_alive(&self) -> bool {
        self.boot == boot() && start_ticks(self.pid).is_some_and(|ticks| ticks == self.start_ticks)
    }
}

/// Whether any process of this number runs here. A later process may have got the number: prefer [`Process::is_alive`].
pub fn process_is_alive(pid: u32) -> bool {
    start_ticks(pid).is_some()
}

/// This boot's id; empty where the kernel does not say.
fn boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}

/// Start of a process that runs; `None` when there is none of this number or only its exit status is left.
fn start_ticks(pid: u32) -> Option<u64> {
    parse_stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// State and start time stand behind the program's name, which is in brackets and may itself hold brackets and spaces.
fn parse_stat(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    // The state is field 3; the start time field 22.
    fields.nth(22 - 4)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_lives_and_others_do_not() {
        let this = Process::this();
        assert!(this.start_ticks > 0 && !this.boot.is_empty());
        assert!(this.is_alive() && process_is_alive(this.pid));
        assert!(!Process { start_ticks: this.start_ticks + 1, ..this.clone() }.is_alive(), "the number was given anew");
        assert!(!Process { boot: "another".into(), ..this.clone() }.is_alive(), "the machine was booted since");
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        while process_is_alive(pid) {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        // Not waited for yet: only its exit status is left, and that is dead.
        assert!(std::path::Path::new(&format!("/proc/{pid}")).exists());
        child.wait().unwrap();
        assert!(!process_is_alive(pid));
    }

    #[test]
    fn names_with_brackets_are_read_over() {
        let tail = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20 21";
        for name in ["sh", "a) Z 1 (b", ") ", "("] {
            assert_eq!(parse_stat(&format!("7 ({name}) {tail}")), Some(4242), "{name}");
        }
        for bad in ["", "7 (sh", "7 (sh) S 1 2", "7 (sh) Z 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20"] {
            assert_eq!(parse_stat(bad), None, "{bad}");
        }
    }
}

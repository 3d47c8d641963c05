//! The inner half of a test that mounts, in a mount namespace of its own (`unshare -m`), by starting the test program again.
//!
//! Include it with `#[path = "support/namespace.rs"] mod namespace;`.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::io::Write as _;
use std::process::Command;

/// Set for the inner half of a test.
const INSIDE: &str = "DRCTL_TEST_INSIDE";

/// Whether this is the inner half of `test`; otherwise runs that half, where a namespace can be made, and says that it is skipped where not.
pub fn inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let unshare: &[&str] = if rustix::process::geteuid().is_root() { &["-m"] } else { &["-rm"] };
    let allowed = Command::new("unshare").args(unshare).args(["mount", "-t", "tmpfs", "none", "/mnt"]).output();
    if !allowed.is_ok_and(|output| output.status.success()) {
        // Not eprintln: the harness would swallow it.
        let _ = writeln!(std::io::stderr(), "SKIPPED {test}: no mount namespace can be made here");
        return false;
    }
    let exe = std::env::current_exe().unwrap();
    let ran = Command::new("unshare").args(unshare).arg(exe).args(["--exact", test, "--nocapture"]).env(INSIDE, "1").output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success() && out.contains("1 passed"), "the inner half: {}\n{out}\n{err}", ran.status);
    false
}

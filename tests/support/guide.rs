//! The lines of a set's `RESTORE.md`, taken out and typed.
//!
//! Include it after `cli.rs` and `postgres.rs`, as `#[path = "support/guide.rs"] mod guide;` beside `mod cli` and `mod support`.

#![allow(dead_code, reason = "every test file uses its own part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

use std::path::Path;
use std::process::{Command, Stdio};

use crate::cli::Home;
use crate::support::{PASSWORD, Server};

/// The ```sh blocks of a guide, those that call drctl itself left out.
pub fn blocks(guide: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut open: Option<String> = None;
    for line in guide.lines() {
        match (&mut open, line) {
            (None, "```sh") => open = Some(String::new()),
            (Some(_), "```") => found.extend(open.take().filter(|block| !block.contains("drctl restore"))),
            (Some(block), line) => {
                block.push_str(line);
                block.push('\n');
            }
            (None, _) => {}
        }
    }
    assert!(open.is_none(), "a block without an end");
    found
}

/// Runs the lines as a person would type them, one shell for all, with the programs of `bin` in front; every block must end well.
pub fn type_lines(server: &Server, bin: &Path, folder: &Path, blocks: &[String]) -> String {
    let script: String = blocks.iter().map(|block| format!("{block}[ $? = 0 ] || {{ echo \"FAILED here\"; exit 1; }}\n")).collect();
    let mut bash = Command::new("bash");
    bash.arg("-c").arg(&script).current_dir(folder).env_clear();
    // No drctl is on this path, and nothing of its configuration in this environment.
    bash.env("PATH", format!("{}:/usr/bin:/bin", bin.display())).env("HOME", "/nonexistent").env("LC_ALL", "C.UTF-8");
    bash.env("PGHOST", "127.0.0.1").env("PGPORT", server.port.to_string()).env("PGUSER", "postgres").env("PGPASSWORD", PASSWORD);
    let output = bash.stdin(Stdio::null()).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}\n--- the lines:\n{script}");
    said
}

/// Writes the identity into `key.txt`, as the guide asks for.
pub fn put_key(home: &Home, folder: &Path) {
    let identity = std::fs::read_to_string(home.path("drctl-keys/identity.txt")).unwrap();
    let key = identity.lines().find(|line| line.starts_with("AGE-SECRET-KEY-1")).unwrap();
    std::fs::write(folder.join("key.txt"), format!("{key}\n")).unwrap();
}

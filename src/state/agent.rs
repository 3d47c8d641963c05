//! The agent of this machine: one to a state folder, and found by whoever wants to know whether it lives.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::error::{Context as _, Error, Kind, Result};
use crate::file_lock::HeldFile;

/// Setting: when the agent last noted that it lives.
pub const SEEN: &str = "agent/seen";

/// Setting: why the configuration on the disk is not the one that the agent works by, beginning with the line; empty when it is.
pub const REFUSED: &str = "agent/refused";

/// Setting: the process of the agent that ran last, as [`crate::state::Process`] in JSON.
pub const PROCESS: &str = "agent/process";

/// Setting: runs to be made up for, in JSON.
pub const AGAIN: &str = "agent/again";

/// Longest process number that is read.
const LONGEST: u64 = 20;

/// `flock(2)` on `agent.lock` in the state folder, with the agent's process number in it. The kernel lets go of it when the agent ends, however
/// it ends. The file stays: whoever waited would otherwise hold another one.
#[derive(Debug)]
pub struct AgentLock {
    _file: HeldFile,
}

/// What is known of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentStanding {
    /// None ever ran here.
    Never,
    /// One runs; its process number in its own namespace, where it could be written down.
    Runs(Option<u32>),
    /// One ran, and does no more.
    Gone,
}

/// How long an agent that is ending is waited for.
const LETS_GO: std::time::Duration = std::time::Duration::from_secs(2);

impl AgentLock {
    /// Becomes the agent of this folder. [`Kind::Locked`] when there is one, named by its process number; another error when the folder holds no
    /// lock at all, which is no reason to run no agent.
    pub fn take(folder: &Path) -> Result<AgentLock> {
        let path = lock_path(folder);
        let what = || format!("take {}", path.display());
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.context(what)?;
        let mut file = HeldFile::of(open(&path).context(what)?);
        let began = std::time::Instant::now();
        let locked = loop {
            match file.try_exclusive() {
                // One that is ending, or a child of it that was forked and has not become its program yet, lets go in a moment.
                Err(Errno::AGAIN) if began.elapsed() < LETS_GO => std::thread::sleep(LETS_GO / 40),
                other => break other,
            }
        };
        match locked {
            Ok(()) => {}
            Err(Errno::AGAIN) => {
                let whose = pid(&mut file).map(|pid| format!("process {pid}")).unwrap_or_else(|| "another process".to_owned());
                return Err(Error::new(Kind::Locked, format!("an agent runs already on {}: {whose}", folder.display()))
                    .hint("end that one first, or give this one a state folder of its own: STATE_DIRECTORY"));
            }
            Err(e) => return Err(Error::failed(what()).because(std::io::Error::from(e))),
        }
        // On a full or read-only disk the number is missing and the lock holds all the same.
        let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(AgentLock { _file: file })
    }
}

/// Whether an agent runs on a state folder. A lock that cannot be looked at counts as none.
pub fn agent_of(folder: &Path) -> AgentStanding {
    let Ok(mut file) = File::open(lock_path(folder)).map(HeldFile::of) else { return AgentStanding::Never };
    match file.try_shared() {
        Ok(()) => AgentStanding::Gone,
        Err(_) => AgentStanding::Runs(pid(&mut file)),
    }
}

fn lock_path(folder: &Path) -> PathBuf {
    folder.join("agent.lock")
}

fn open(path: &Path) -> std::io::Result<File> {
    let flags = (OFlags::NOFOLLOW | OFlags::CLOEXEC).bits() as i32;
    let writing =
        std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(flags).open(path);
    match writing {
        Err(e) if e.kind() == std::io::ErrorKind::ReadOnlyFilesystem => {
            std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path)
        }
        other => other,
    }
}

fn pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(LONGEST).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_agent_to_a_folder() {
        let temp = tempfile::tempdir().unwrap();
        let folder = temp.path().join("state");
        assert_eq!(agent_of(&folder), AgentStanding::Never);
        let first = AgentLock::take(&folder).unwrap();
        assert_eq!(agent_of(&folder), AgentStanding::Runs(Some(std::process::id())));
        let refused = AgentLock::take(&folder).unwrap_err();
        assert_eq!(refused.kind(), Kind::Locked);
        assert!(refused.to_string().contains(&std::process::id().to_string()), "{refused}");
        drop(first);
        assert_eq!(agent_of(&folder), AgentStanding::Gone);
        AgentLock::take(&folder).unwrap();
        // Not a number: somebody wrote to it.
        std::fs::write(lock_path(&folder), "x".repeat(100)).unwrap();
        let held = HeldFile::of(open(&lock_path(&folder)).unwrap());
        held.try_exclusive().unwrap();
        assert_eq!(agent_of(&folder), AgentStanding::Runs(None));
    }
}

//! A throwaway ssh server on 127.0.0.1, with keys and an ssh configuration of its own.
//!
//! Include it with `#[path = "support/sshd.rs"] mod sshd;`. It lets in the user who runs the test, by key, and is stopped when dropped.

#![allow(dead_code, reason = "every test file uses its own part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

#[allow(clippy::duplicate_mod, reason = "helpers that need a port share no parent")]
#[path = "ports.rs"]
mod ports;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ports::free_port;

pub struct Sshd {
    folder: tempfile::TempDir,
    daemon: Child,
    pub port: u16,
}

fn keygen(path: &Path, passphrase: &str) {
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-t", "ed25519", "-N", passphrase, "-C", "test", "-f"]).arg(path);
    assert!(command.stdin(Stdio::null()).status().expect("ssh-keygen is needed: apt-get install openssh-client").success());
}

impl Sshd {
    /// `more` is added to sshd_config.
    pub fn start(more: &str) -> Sshd {
        let folder = tempfile::Builder::new().prefix("drctl-test-ssh-").tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for (name, passphrase) in [("host", ""), ("other-host", ""), ("key", ""), ("locked", "a passphrase"), ("stranger", "")] {
            keygen(&at(name), passphrase);
        }
        let public = |name: &str| std::fs::read_to_string(at(&format!("{name}.pub"))).unwrap();
        std::fs::write(at("authorized"), format!("{}{}", public("key"), public("locked"))).unwrap();
        let port = free_port();
        let place = folder.path().display();
        let conf = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {place}/host\nAuthorizedKeysFile {place}/authorized\nPidFile none\nUsePAM no\n\
             StrictModes no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\nLogLevel DEBUG1\n{more}\n"
        );
        std::fs::write(at("sshd_config"), conf).unwrap();
        std::fs::write(at("known_hosts"), format!("[127.0.0.1]:{port} {}", public("host"))).unwrap();
        std::fs::write(at("wrong_hosts"), format!("[127.0.0.1]:{port} {}", public("other-host"))).unwrap();
        std::fs::write(at("no_hosts"), "").unwrap();
        if rustix::process::geteuid().is_root() {
            // sshd of Debian wants it, and only a service makes it.
            std::fs::create_dir_all("/run/sshd").unwrap();
        }
        let log = std::fs::File::create(at("log")).unwrap();
        let mut command = Command::new("/usr/sbin/sshd");
        command.args(["-D", "-e", "-f"]).arg(at("sshd_config")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let daemon = command.spawn().expect("sshd is needed for this test: apt-get install openssh-server");
        let sshd = Sshd { folder, daemon, port };
        let since = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(since.elapsed() < Duration::from_secs(60), "sshd did not start: {}", sshd.log());
            std::thread::sleep(Duration::from_millis(10));
        }
        sshd
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// An ssh configuration in which `bastion` is this server.
    pub fn config(&self, known_hosts: &str, key: &str) -> PathBuf {
        let path = self.path(&format!("config-{known_hosts}-{key}"));
        let (port, place) = (self.port, self.folder.path().display());
        let user =
            std::env::var("USER").unwrap_or_else(|_| if rustix::process::geteuid().is_root() { "root".into() } else { String::new() });
        let user = if user.is_empty() { String::new() } else { format!("  User {user}\n") };
        // What people have in theirs, and would spoil a child.
        let text = format!(
            "Host bastion\n  HostName 127.0.0.1\n  Port {port}\n{user}  IdentityFile {place}/{key}\n  IdentitiesOnly yes\n  IdentityAgent none\n  \
             UserKnownHostsFile {place}/{known_hosts}\n  GlobalKnownHostsFile /dev/null\n  StrictHostKeyChecking ask\n  ControlMaster auto\n  \
             ControlPath {place}/%C\n  ControlPersist 60\n  RequestTTY force\n  RemoteCommand echo no\n  LocalForward {port} 127.0.0.1:1\n"
        );
        // Renamed: another test's ssh may be reading it.
        let beside = self.path(&format!("new-{:08x}", rand::random::<u32>()));
        std::fs::write(&beside, text).unwrap();
        std::fs::rename(&beside, &path).unwrap();
        path
    }

    /// Processes that serve one connection each.
    pub fn sessions(&self) -> Vec<u32> {
        children(self.daemon.id())
    }

    /// Ends every connection, as a host that goes down does.
    pub fn cut(&self) {
        for session in self.sessions() {
            // As root there is one more process below it, which holds the connection too.
            for pid in children(session).into_iter().chain([session]) {
                let comm = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
                if comm.starts_with("sshd")
                    && let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw)
                {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
            }
        }
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.cut();
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

/// Every process and its parent.
fn parents() -> Vec<(u32, u32)> {
    let numbers = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    let parent = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()
    };
    numbers.filter_map(|pid| Some((pid, parent(pid)?))).collect()
}

fn children(of: u32) -> Vec<u32> {
    parents().into_iter().filter(|(_, parent)| *parent == of).map(|(pid, _)| pid).collect()
}

/// Processes of one program whose environment holds a text.
pub fn processes(program: &str, environment: &str) -> Vec<u32> {
    let all = parents().into_iter().map(|(pid, _)| pid);
    let fits = |pid: &u32| {
        let read = |file: &str| String::from_utf8_lossy(&std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default()).into_owned();
        read("comm").trim() == program && read("environ").contains(environment)
    };
    all.filter(fits).collect()
}

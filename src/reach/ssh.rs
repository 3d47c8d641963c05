//! By the user's own `ssh`: one process a connection (`-W`) and one a tool. It never asks (`BatchMode`): what it would ask about must have
//! been settled by hand before.

use std::net::SocketAddr;
use std::path::PathBuf;

use async_trait::async_trait;

use crate::error::{Error, Kind, Result};
use crate::process::{Command, lookup};
use crate::reach::{Judge, Link, Reach, there};

/// Options of every call. Command-line options win over the user's file. What the file may hold for people at a terminal would spoil a
/// child: a command of its own, forwardings whose ports are taken already, a master process that outlives us and holds our streams open.
const OPTIONS: [&str; 9] = [
    "BatchMode=yes",
    "ConnectTimeout=15",
    "ServerAliveInterval=15",
    "ServerAliveCountMax=4",
    "ControlMaster=no",
    "ClearAllForwardings=yes",
    "RemoteCommand=none",
    "PermitLocalCommand=no",
    "ForwardAgent=no",
];

/// A host that ssh gets at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ssh {
    /// `host`, `user@host`, or a name of the user's ssh configuration.
    pub host: String,
    /// Another configuration file than the user's (`ssh -F`).
    pub config: Option<PathBuf>,
    /// The private key to use, and no other (`ssh -i`).
    pub identity: Option<PathBuf>,
}

impl Ssh {
    fn base(&self, what: &str) -> Result<Command> {
        let found = lookup::find("ssh", &lookup::path_folders());
        let program = found.tools.first().ok_or_else(|| {
            Error::new(Kind::Preflight, format!("{what}: there is no ssh in PATH")).hint("apt-get install openssh-client")
        })?;
        let mut command = Command::new(what, program).arg("-T").pass_on(&["SSH_AUTH_SOCK", "XDG_RUNTIME_DIR", "USER", "LOGNAME"]);
        for option in OPTIONS {
            command = command.arg("-o").arg(option);
        }
        if let Some(config) = &self.config {
            command = command.arg("-F").arg(config);
        }
        if let Some(identity) = &self.identity {
            command = command.arg("-i").arg(identity).arg("-o").arg("IdentitiesOnly=yes");
        }
        Ok(command)
    }
}

/// `-W` takes an IPv6 address in brackets.
fn place(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[async_trait]
impl Reach for Ssh {
    fn name(&self) -> String {
        format!("ssh {}", self.host)
    }

    async fn connect(&self, host: &str, port: u16) -> Result<Link> {
        let what = format!("{} to {}", self.name(), place(host, port));
        // Why the other side could not connect is said at this level; so is what a host greets everyone with.
        let command = self.base(&what)?.args(["-o", "LogLevel=INFO"]).arg("-W").arg(place(host, port)).arg("--").arg(&self.host);
        Link::child(self.name(), command, judge).await
    }

    async fn address(&self, _: &str, _: u16) -> Result<Option<SocketAddr>> {
        Ok(None)
    }

    async fn shell(&self, what: &str, script: &str, args: &[String]) -> Result<Command> {
        // ssh joins its arguments with spaces and the login shell of the other side takes them apart: whichever that is, it must see words.
        let words = ["-c", script, "sh"].into_iter().chain(args.iter().map(String::as_str)).map(there::quoted);
        let line = format!("sh {}", words.collect::<Vec<_>>().join(" "));
        let command = self.base(&format!("{what} by {}", self.name()))?.args(["-o", "LogLevel=ERROR"]);
        Ok(command.arg("--").arg(&self.host).arg(line))
    }

    fn host_there<'a>(&self, host: &'a str) -> &'a str {
        host
    }

    fn judge(&self) -> Judge {
        judge
    }
}

/// ssh's own words, of OpenSSH 7 to 10.
fn judge(words: &str) -> Option<(Kind, &'static str)> {
    let said = |piece: &str| words.contains(piece);
    if said("REMOTE HOST IDENTIFICATION HAS CHANGED") {
        return Some((
            Kind::Preflight,
            "the host is not the one it was: find out why; if it was made anew, ssh-keygen -R HOST, then ssh to it once by hand",
        ));
    }
    if said("Host key verification failed") || said("host key is known for") {
        return Some((Kind::Preflight, "ssh to it once by hand as the user that drctl runs as, compare the fingerprint and accept it"));
    }
    if said("Permission denied (") || said("Too many authentication failures") {
        return Some((
            Kind::Preflight,
            "a key without passphrase, or an agent, must let this user in without asking: try ssh -o BatchMode=yes HOST true",
        ));
    }
    if said("Bad configuration option") || said("bad configuration options") || said("Can't open user config file") {
        return Some((Kind::Preflight, "check the ssh configuration with ssh -G HOST"));
    }
    if said("administratively prohibited") {
        return Some((Kind::Preflight, "AllowTcpForwarding or PermitOpen in sshd_config of that host forbids it"));
    }
    if said("open failed") || said("stdio forwarding failed") {
        return Some((Kind::Unreachable, "ssh works, but nothing answers there: host and port are those that the ssh host sees"));
    }
    if said("Could not resolve hostname") {
        return Some((Kind::Unreachable, "check the name of the host: ssh -G HOST shows what ssh makes of it"));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ssh_says_is_understood() {
        for (words, kind) in [
            ("Host key verification failed.", Some(Kind::Preflight)),
            ("@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @; Host key verification failed.", Some(Kind::Preflight)),
            ("x@h: Permission denied (publickey,password).", Some(Kind::Preflight)),
            ("channel 0: open failed: connect failed: Connection refused; stdio forwarding failed", Some(Kind::Unreachable)),
            ("channel 0: open failed: administratively prohibited: open failed", Some(Kind::Preflight)),
            ("ssh: Could not resolve hostname nowhere: Name or service not known", Some(Kind::Unreachable)),
            ("Connection closed by 127.0.0.1 port 22", None),
        ] {
            assert_eq!(judge(words).map(|(kind, _)| kind), kind, "{words}");
        }
        assert!(
            judge("WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! Host key verification failed.").unwrap().1.contains("ssh-keygen -R")
        );
    }

    #[test]
    fn addresses_of_both_kinds() {
        assert_eq!((place("db", 5432), place("::1", 1)), ("db:5432".to_owned(), "[::1]:1".to_owned()));
    }
}

//! What the agent tells whoever started it (sd_notify(3): datagrams to the socket that `NOTIFY_SOCKET` names), and what it takes from it.

use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The service manager, where there is one.
pub struct Manager {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// It ends us when it hears nothing for so long.
    pub watchdog: Option<Duration>,
}

impl Manager {
    /// By the environment that systemd gives; without one everything here does nothing.
    pub fn from_environment() -> Manager {
        let address = std::env::var("NOTIFY_SOCKET").ok().and_then(|path| address(&path));
        let socket = address.and_then(|address| Some((UnixDatagram::unbound().ok()?, address)));
        let ours = std::env::var("WATCHDOG_PID").map_or(true, |pid| pid == std::process::id().to_string());
        let micros = std::env::var("WATCHDOG_USEC").ok().and_then(|text| text.parse().ok()).filter(|_| ours);
        Manager { socket, watchdog: micros.map(Duration::from_micros) }
    }

    /// It works.
    pub fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={status}\nMAINPID={}", std::process::id()));
    }

    /// What it does now, for `systemctl status`.
    pub fn status(&self, status: &str) {
        self.send(&format!("STATUS={status}"));
    }

    /// It ends, and may take so long.
    pub fn stopping(&self, within: Duration) {
        self.send(&format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={}", within.as_micros()));
    }

    /// It is alive.
    pub fn alive(&self) {
        if self.watchdog.is_some() {
            self.send("WATCHDOG=1");
        }
    }

    fn send(&self, text: &str) {
        if let Some((socket, address)) = &self.socket {
            // Nobody listens: that is his to notice.
            let _ = socket.send_to_addr(text.as_bytes(), address);
        }
    }
}

/// `@name` is in the abstract namespace.
fn address(path: &str) -> Option<SocketAddr> {
    use std::os::linux::net::SocketAddrExt as _;
    match path.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name).ok(),
        None => SocketAddr::from_pathname(path).ok(),
    }
}

/// Lowers the priority of this process and of all it will start.
pub fn be_nice(nice: u32) -> std::io::Result<()> {
    let nice = i32::try_from(nice).unwrap_or(19);
    rustix::process::setpriority_process(None, nice).map_err(Into::into)
}

/// Gives memory that a run needed back to the system: the C library keeps it otherwise, and an agent waits for hours.
pub fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes a number, touches nothing but the allocator's own free lists, which it locks.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// The C library keeps a heap for each thread, and memory that one of them freed serves no other: an agent gains nothing by it.
pub fn few_arenas() {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets a number of the allocator.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
    }
}

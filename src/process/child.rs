//! Starting, killing and reaping one child.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitIdStatus};
use tokio::sync::oneshot;

use crate::error::{Context, Error, Kind, Result};
use crate::process::Command;

/// Pipes are enlarged to this; more needs privileges (`/proc/sys/fs/pipe-max-size`).
const PIPE_BYTES: usize = 1024 * 1024;

type Job = Box<dyn FnOnce() + Send>;

/// The thread that spawns every child. `PR_SET_PDEATHSIG` fires when the thread that spawned the child ends, so this one never does.
fn spawner() -> Result<&'static mpsc::Sender<Job>> {
    static SPAWNER: OnceLock<std::result::Result<mpsc::Sender<Job>, String>> = OnceLock::new();
    let started = SPAWNER.get_or_init(|| {
        let (sender, receiver) = mpsc::channel::<Job>();
        let run = move || {
            for job in receiver {
                job();
            }
        };
        thread::Builder::new().name("spawner".into()).spawn(run).map(|_| sender).map_err(|e| e.to_string())
    });
    started.as_ref().map_err(|e| Error::failed(format!("start the thread that starts programs: {e}")))
}

/// Which way the child's main stream flows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    /// We read its standard output; its standard input is empty.
    Out,
    /// We write its standard input; its standard output goes nowhere.
    In,
    /// Both are one end of a socket; we have the other.
    Both,
}

/// Most bytes of [`Command::first_input`]: a pipe of the smallest size takes them without waiting for the child.
const FIRST_INPUT: usize = 4096;

/// Guards against signalling a process that took over the id of a reaped one.
struct Life {
    pid: Pid,
    exited: bool,
    reaped: bool,
    abandoned: bool,
}

impl Life {
    fn signal(&self, signal: Signal) {
        if !self.reaped {
            // ESRCH: the whole group is gone already.
            let _ = rustix::process::kill_process_group(self.pid, signal);
        }
    }

    fn reap(&mut self) {
        if self.exited && !self.reaped {
            let _ = rustix::process::waitid(WaitId::Pid(self.pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
            self.reaped = true;
        }
    }
}

/// A child that nobody watches yet. Dropped, it is killed with its group and reaped.
struct Newborn(Option<std::process::Child>);

impl Drop for Newborn {
    fn drop(&mut self) {
        let Some(mut child) = self.0.take() else { return };
        if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
            // Not reaped yet: nobody else can have its number.
            let _ = rustix::process::kill_process_group(pid, Signal::KILL);
        }
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// A running child. Dropped, it is killed with its group.
pub(super) struct Child {
    life: Arc<Mutex<Life>>,
    /// Its end; the process is not reaped yet, so its group can still be signalled safely.
    pub(super) exit: oneshot::Receiver<WaitIdStatus>,
    /// Its main stream, see [`Flow`].
    pub(super) stream: Option<File>,
    /// Its standard error.
    pub(super) stderr: Option<File>,
    /// Its standard input where it only watches it, see [`Command::first_input`].
    held: Option<File>,
}

impl Child {
    pub(super) async fn spawn(command: &Command, flow: Flow) -> Result<Child> {
        let mut std_command = std::process::Command::new(&command.program);
        std_command.args(&command.args).env_clear().envs(command.environment()).stderr(Stdio::piped());
        let first = command.first_input.as_ref();
        if first.is_some_and(|first| first.expose().len() > FIRST_INPUT) {
            return Err(Error::failed(format!("start {}: more than {FIRST_INPUT} bytes to begin its input with", command.what)));
        }
        let mut socket = None;
        match flow {
            Flow::Out if first.is_some() => {
                std_command.stdin(Stdio::piped()).stdout(Stdio::piped());
            }
            Flow::Out => {
                std_command.stdin(Stdio::null()).stdout(Stdio::piped());
            }
            Flow::In => {
                std_command.stdin(Stdio::piped()).stdout(Stdio::null());
            }
            Flow::Both => {
                let what = || format!("make a socket for {}", command.what);
                let (ours, theirs) = UnixStream::pair().context(what)?;
                std_command.stdin(OwnedFd::from(theirs.try_clone().context(what)?)).stdout(OwnedFd::from(theirs));
                socket = Some(OwnedFd::from(ours));
            }
        }
        if let Some(folder) = &command.folder {
            std_command.current_dir(folder);
        }
        let parent = rustix::process::getpid();
        let prepare = move || {
            // A session of its own: its own process group, and no terminal on which it could ask for a password.
            rustix::process::setsid()?;
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            // drctl may have died before the line above.
            if rustix::process::getppid() != Some(parent) {
                return Err(rustix::io::Errno::SRCH.into());
            }
            Ok(())
        };
        // SAFETY: `prepare` runs between fork and exec; it makes system calls only, and neither allocates nor takes a lock.
        unsafe {
            std_command.pre_exec(prepare);
        }
        let (sender, receiver) = oneshot::channel();
        let job: Job = Box::new(move || {
            // The receiver gone, now or before it looks, means that the caller was dropped meanwhile: a child must not stay behind.
            let _ = sender.send(std_command.spawn().map(|child| Newborn(Some(child))));
        });
        let stopped = || Error::failed("the thread that starts programs has stopped");
        spawner()?.send(job).map_err(|_| stopped())?;
        let spawned = receiver.await.map_err(|_| stopped())?;
        let mut newborn = spawned.map_err(|e| start_error(command, e))?;
        let child = newborn.0.as_mut().ok_or_else(|| Error::failed("a child that is gone already"))?;
        let mut held: Option<File> = None;
        let stream: Option<OwnedFd> = match flow {
            Flow::Out => {
                held = child.stdin.take().map(|stdin| File::from(OwnedFd::from(stdin)));
                child.stdout.take().map(Into::into)
            }
            Flow::In => child.stdin.take().map(Into::into),
            Flow::Both => socket,
        };
        let stderr: Option<OwnedFd> = child.stderr.take().map(Into::into);
        if let (Some(fd), Flow::Out | Flow::In) = (&stream, flow) {
            enlarge(fd);
        }
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or_else(|| Error::failed("a child without a process id"))?;
        let life = Arc::new(Mutex::new(Life { pid, exited: false, reaped: false, abandoned: false }));
        let exit = watch(pid, life.clone())?;
        // From here on the watcher reaps it.
        newborn.0 = None;
        let child = Child { life, exit, stream: stream.map(File::from), stderr: stderr.map(File::from), held };
        if let (Some(first), Some(mut input)) = (first, child.held.as_ref().or(child.stream.as_ref().filter(|_| flow == Flow::In))) {
            // A child that died already says why by its exit status.
            let _ = input.write_all(first.expose().as_bytes());
        }
        Ok(child)
    }

    /// Signals the whole group.
    pub(super) fn signal(&self, signal: Signal) {
        self.life().signal(signal);
    }

    /// After its end: kills what it left behind and reaps it.
    pub(super) fn bury(&self) {
        let mut life = self.life();
        life.signal(Signal::KILL);
        life.reap();
    }

    fn life(&self) -> std::sync::MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(|p| p.into_inner())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let mut life = self.life();
        life.signal(Signal::KILL);
        life.abandoned = true;
        life.reap();
    }
}

/// A thread that waits for the child's end.
fn watch(pid: Pid, life: Arc<Mutex<Life>>) -> Result<oneshot::Receiver<WaitIdStatus>> {
    let (sender, receiver) = oneshot::channel();
    let wait = move || {
        let status = loop {
            match rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {
                Err(rustix::io::Errno::INTR) => {}
                Ok(Some(status)) => break Some(status),
                _ => break None,
            }
        };
        let mut life = life.lock().unwrap_or_else(|p| p.into_inner());
        life.exited = true;
        if life.abandoned {
            life.reap();
        }
        drop(life);
        if let Some(status) = status {
            let _ = sender.send(status);
        }
    };
    thread::Builder::new().name("wait".into()).spawn(wait).context(|| "start a thread")?;
    Ok(receiver)
}

fn enlarge(fd: impl AsFd) {
    // Refused beyond the user's share of pipe memory: then the pipe stays as it is, only slower.
    if rustix::pipe::fcntl_setpipe_size(&fd, PIPE_BYTES).is_err() {
        let _ = rustix::pipe::fcntl_setpipe_size(&fd, PIPE_BYTES / 4);
    }
}

fn start_error(command: &Command, error: std::io::Error) -> Error {
    let kind = match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::PermissionDenied => Kind::Preflight,
        _ => Kind::Failed,
    };
    Error::new(kind, format!("start {} ({})", command.what, command.program.display())).because(error)
}

//! Running a child to its end.

use std::fs::File;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::process::{Signal, WaitIdStatus};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::error::{Context, Error, Kind, Result};
use crate::process::child::{Child, Flow};
use crate::process::read::{self, Progress};
use crate::process::redact::Redactor;
use crate::process::stderr::{self, Tail};
use crate::process::{Command, Limits};

/// How long what the child left behind may keep its streams open after its end.
const LEFTOVER: Duration = Duration::from_secs(5);
/// How long to wait when the pipe is full. A blocking write would be woken for each 4 KiB that the child reads, and both would do little
/// but wake each other; so the pipe, which holds 1 MiB, is left to drain for a while. A child that reads nothing is asked less often.
const SHORTEST_PAUSE: Duration = Duration::from_micros(500);
const LONGEST_PAUSE: Duration = Duration::from_millis(16);
/// How long to wait for the last of standard error: on a busy machine the thread that reads it may come late, and what a tool said last is why it
/// failed. Only what left the child's group can hold it open for so long.
const STDERR: Duration = Duration::from_secs(10);

/// A child that exited 0 after its stream ended.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Bytes that went through its main stream.
    pub bytes: u64,
    /// The last lines of its standard error, without secrets.
    pub stderr: Vec<String>,
}

/// Why a child's work is void.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It could not be started.
    Start,
    /// It exited with this status.
    Exit(i32),
    /// A signal ended it.
    Signal(i32),
    /// It wrote nothing for too long.
    Idle,
    /// It ran for too long.
    Total,
    /// The run was cancelled.
    Cancelled,
    /// drctl's own side of the stream failed.
    Stream,
    /// It ended, but something it started held the stream open.
    Leftover,
}

/// A child's work is void. Whatever it started is dead.
#[derive(Debug)]
pub struct Failure {
    /// For people.
    pub error: Error,
    /// For decisions.
    pub reason: Reason,
    /// The last lines of its standard error, without secrets.
    pub stderr: Vec<String>,
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Error {
        failure.error
    }
}

impl Command {
    /// Runs it and hands its standard output to `sink`, in blocks of 512 KiB, on a thread that may block.
    ///
    /// Returns once the output was read to its end *and* the exit status is 0. Dropping the future kills the child.
    pub async fn stream<F>(self, cancel: &CancellationToken, sink: F) -> std::result::Result<Finished, Failure>
    where
        F: FnMut(Bytes) -> Result<()> + Send + 'static,
    {
        let run = Run::start(self, Flow::Out, move |file: &File, progress: &Progress| read::pump(file, progress, sink)).await?;
        run.finish(cancel).await
    }

    /// Runs it and lets `source` write its standard input, on a thread that may block. An error of `source` kills the child
    /// before it can see the end of its input; an input that the child stopped reading is no error if it exits 0.
    pub async fn feed<F>(self, cancel: &CancellationToken, source: F) -> std::result::Result<Finished, Failure>
    where
        F: FnOnce(&mut Input<'_>) -> Result<()> + Send + 'static,
    {
        let pump = move |file: &File, progress: &Progress| source(&mut Input { file, progress });
        let run = Run::start(self, Flow::In, pump).await?;
        run.finish(cancel).await
    }

    /// Runs it and returns its standard output, at most `limit` bytes of it: more is an error.
    pub async fn output(self, cancel: &CancellationToken, limit: usize) -> std::result::Result<(Vec<u8>, Finished), Failure> {
        let collected = Arc::new(Mutex::new(Vec::new()));
        let into = collected.clone();
        let what = self.what.clone();
        let sink = move |bytes: Bytes| {
            let mut into = into.lock().unwrap_or_else(|p| p.into_inner());
            if into.len() + bytes.len() > limit {
                return Err(Error::failed(format!("{what} wrote more than {limit} bytes")));
            }
            into.extend_from_slice(&bytes);
            Ok(())
        };
        let finished = self.stream(cancel, sink).await?;
        let bytes = std::mem::take(&mut *collected.lock().unwrap_or_else(|p| p.into_inner()));
        Ok((bytes, finished))
    }
}

/// A child's standard input, for a blocking thread.
pub struct Input<'a> {
    file: &'a File,
    progress: &'a Progress,
}

impl Input<'_> {
    /// Writes all of it, waiting for the child. `false`: the child reads no more; its exit status says why.
    pub fn write(&mut self, bytes: &[u8]) -> Result<bool> {
        let mut rest = bytes;
        let mut pause = SHORTEST_PAUSE;
        while !rest.is_empty() {
            match rustix::io::write(self.file, rest) {
                Ok(written) => {
                    self.progress.add(written);
                    rest = &rest[written..];
                    pause = SHORTEST_PAUSE;
                }
                Err(rustix::io::Errno::AGAIN) => {
                    thread::sleep(pause);
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::PIPE) => return Ok(false),
                Err(e) => return Err(std::io::Error::from(e)).context(|| "write to the program"),
            }
        }
        Ok(true)
    }

    /// Runs something that may wait for drctl's own side; the child is not idle meanwhile.
    pub fn wait<T>(&self, work: impl FnOnce() -> T) -> T {
        self.progress.ours(work)
    }
}

/// The stream is handed back with the result: an input must stay open until a child that is to be killed is dead.
type Pumped = (Result<()>, Option<File>);

struct Run {
    what: String,
    limits: Limits,
    child: Child,
    started: Instant,
    progress: Arc<Progress>,
    pumped: oneshot::Receiver<Pumped>,
    drained: oneshot::Receiver<()>,
    tail: Arc<Mutex<Tail>>,
}

/// Where a run stands.
#[derive(Default)]
struct State {
    pumped: Option<Pumped>,
    exit: Option<WaitIdStatus>,
}

/// For how long the stream has been quiet. Only time in which we looked counts: where this process was stopped, or its machine stood still, the
/// child's last bytes may lie unread, and it is not to be killed for that.
struct Quiet {
    tick: Duration,
    bytes: u64,
    looked: Instant,
    time: Duration,
}

impl Quiet {
    fn new(tick: Duration, bytes: u64) -> Quiet {
        Quiet { tick, bytes, looked: Instant::now(), time: Duration::ZERO }
    }

    fn reset(&mut self) {
        self.time = Duration::ZERO;
        self.looked = Instant::now();
    }

    fn look(&mut self, now: Instant, bytes: u64, waits_for_us: bool) {
        let passed = now.saturating_duration_since(self.looked).min(self.tick * 2);
        let moved = bytes != self.bytes || waits_for_us;
        self.time = if moved { Duration::ZERO } else { self.time + passed };
        (self.bytes, self.looked) = (bytes, now);
    }
}

impl Run {
    async fn start<P>(command: Command, flow: Flow, pump: P) -> std::result::Result<Run, Failure>
    where
        P: FnOnce(&File, &Progress) -> Result<()> + Send + 'static,
    {
        let failed = |error| Failure { error, reason: Reason::Start, stderr: Vec::new() };
        let mut child = Child::spawn(&command, flow).await.map_err(failed)?;
        let (Some(stream), Some(errors)) = (child.stream.take(), child.stderr.take()) else {
            return Err(failed(Error::failed(format!("{} has no streams", command.what))));
        };
        if flow == Flow::In {
            rustix::fs::fcntl_setfl(&stream, rustix::fs::OFlags::NONBLOCK)
                .map_err(std::io::Error::from)
                .context(|| "set up the program's input")
                .map_err(failed)?;
        }
        let progress = Arc::new(Progress::default());
        let tail = Arc::new(Mutex::new(Tail::new(Redactor::new(&command.secrets), command.keep_stderr)));
        let (pump_done, pumped) = oneshot::channel();
        let (drain_done, drained) = oneshot::channel();
        let seen = progress.clone();
        let pumping = move || {
            let result = pump(&stream, &seen);
            let _ = pump_done.send((result, Some(stream)));
        };
        let (kept, watch) = (tail.clone(), command.watch_stderr);
        let draining = move || {
            stderr::drain(errors, &kept, watch.as_ref());
            let _ = drain_done.send(());
        };
        thread::Builder::new().name("pump".into()).spawn(pumping).context(|| "start a thread").map_err(failed)?;
        thread::Builder::new().name("stderr".into()).spawn(draining).context(|| "start a thread").map_err(failed)?;
        let started = Instant::now();
        Ok(Run { what: command.what, limits: command.limits, child, started, progress, pumped, drained, tail })
    }

    async fn finish(mut self, cancel: &CancellationToken) -> std::result::Result<Finished, Failure> {
        let mut state = State::default();
        let verdict = self.watch(cancel, &mut state).await;
        if verdict.is_err() && state.exit.is_none() {
            self.kill(&mut state).await;
        }
        // What the child left in its group would hold standard error open.
        self.child.bury();
        drop(state.pumped.take());
        let _ = tokio::time::timeout(STDERR, &mut self.drained).await;
        let stderr = self.tail.lock().unwrap_or_else(|p| p.into_inner()).lines();
        let bytes = self.progress.bytes();
        match verdict {
            Ok(()) => Ok(Finished { bytes, stderr }),
            Err((reason, stream_error)) => Err(self.failure(reason, stream_error, bytes, stderr)),
        }
    }

    /// Waits for stream and exit; says why the work is void as soon as that is known.
    async fn watch(&mut self, cancel: &CancellationToken, state: &mut State) -> std::result::Result<(), (Reason, Option<Error>)> {
        let mut quiet = Quiet::new(self.tick(), self.progress.bytes());
        let mut ticks = tokio::time::interval(quiet.tick);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            if let Some((Err(_), _)) = &state.pumped {
                let error = state.pumped.as_mut().and_then(|(result, _)| std::mem::replace(result, Ok(())).err());
                return Err((Reason::Stream, error));
            }
            if let Some(status) = &state.exit {
                let failed = failed_status(status);
                // A bad end voids everything at once, but for what it wrote last: nobody needs that.
                if let Some(reason) = failed {
                    return Err((reason, None));
                }
                if state.pumped.is_some() {
                    return Ok(());
                }
            }
            tokio::select! {
                biased;
                () = cancel.cancelled() => return Err((Reason::Cancelled, None)),
                pumped = &mut self.pumped, if state.pumped.is_none() => match pumped {
                    Ok((result, file)) => {
                        // Closed once all is written: the end of its input is what the child waits for.
                        let file = file.filter(|_| result.is_err());
                        state.pumped = Some((result, file));
                        quiet.reset();
                    }
                    Err(_) => return Err((Reason::Stream, Some(Error::failed("a thread that moved bytes panicked")))),
                },
                exit = &mut self.child.exit, if state.exit.is_none() => match exit {
                    Ok(status) => {
                        state.exit = Some(status);
                        quiet.reset();
                    }
                    Err(_) => return Err((Reason::Exit(-1), None)),
                },
                _ = ticks.tick() => {
                    quiet.look(Instant::now(), self.progress.bytes(), self.progress.waits_for_us());
                    if let Some(reason) = self.overdue(state, quiet.time) {
                        return Err((reason, None));
                    }
                }
            }
        }
    }

    fn tick(&self) -> Duration {
        let shortest = [self.limits.idle, self.limits.total].into_iter().flatten().min().unwrap_or(Duration::MAX);
        (shortest / 8).clamp(Duration::from_millis(10), Duration::from_millis(500))
    }

    fn overdue(&self, state: &State, quiet: Duration) -> Option<Reason> {
        let over = |limit: Option<Duration>, time: Duration| limit.is_some_and(|limit| time > limit);
        if over(self.limits.total, self.started.elapsed()) {
            return Some(Reason::Total);
        }
        if state.exit.is_some() {
            return (quiet > LEFTOVER).then_some(Reason::Leftover);
        }
        over(self.limits.idle, quiet).then_some(Reason::Idle)
    }

    async fn kill(&mut self, state: &mut State) {
        self.child.signal(Signal::TERM);
        if let Ok(status) = tokio::time::timeout(self.limits.grace, &mut self.child.exit).await {
            if let Ok(status) = status {
                state.exit = Some(status);
            }
            return;
        }
        self.child.signal(Signal::KILL);
        // Uninterruptible in the kernel at worst: then the thread that waits for it reaps it later.
        let _ = tokio::time::timeout(self.limits.grace, &mut self.child.exit).await;
    }

    fn failure(&self, reason: Reason, stream_error: Option<Error>, bytes: u64, stderr: Vec<String>) -> Failure {
        let what = &self.what;
        let after = format!("after {}", human_bytes(bytes));
        let said = if stderr.is_empty() { "it said nothing on standard error".to_owned() } else { stderr.join("; ") };
        let seconds = |limit: Option<Duration>| limit.unwrap_or_default().as_secs_f64();
        let error = match reason {
            Reason::Exit(status) => Error::failed(format!("{what} exited {status} {after}: {said}")),
            Reason::Signal(signal) => Error::failed(format!("{what} was killed by signal {signal} {after}: {said}")),
            Reason::Idle => {
                Error::failed(format!("{what} wrote nothing for {} s {after} and was killed: {said}", seconds(self.limits.idle)))
            }
            Reason::Total => Error::failed(format!(
                "{what} was not done within {} s ({}) and was killed: {said}",
                seconds(self.limits.total),
                human_bytes(bytes)
            )),
            Reason::Cancelled => Error::new(Kind::Interrupted, format!("{what} was cancelled {after}")),
            Reason::Leftover => Error::failed(format!("{what} exited, but something it started held its stream open {after}: {said}")),
            Reason::Start | Reason::Stream => match stream_error {
                Some(error) => error.context(format!("{what} {after}")),
                None => Error::failed(format!("{what} {after}: its stream failed")),
            },
        };
        Failure { error, reason, stderr }
    }
}

fn failed_status(status: &WaitIdStatus) -> Option<Reason> {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(0), _) => None,
        (Some(code), _) => Some(Reason::Exit(code)),
        (None, Some(signal)) => Some(Reason::Signal(signal)),
        (None, None) => Some(Reason::Exit(-1)),
    }
}

/// A word of a line that people paste into a shell.
pub fn shell_word(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_./-:@".contains(&b);
    if !text.is_empty() && text.bytes().all(plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

/// A byte count for people: `40 MiB`.
pub fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = "bytes";
    for next in UNITS {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    if unit == "bytes" || value >= 10.0 { format!("{value:.0} {unit}") } else { format!("{value:.1} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_in_which_nobody_looked_is_not_quiet() {
        let tick = Duration::from_millis(500);
        let mut quiet = Quiet::new(tick, 7);
        let mut at = quiet.looked;
        let mut pass = |quiet: &mut Quiet, milliseconds: u64, bytes: u64, waits: bool| {
            at += Duration::from_millis(milliseconds);
            quiet.look(at, bytes, waits);
            quiet.time
        };
        assert_eq!(pass(&mut quiet, 500, 7, false), tick);
        assert_eq!(pass(&mut quiet, 700, 7, false), Duration::from_millis(1200), "a late look counts");
        assert_eq!(pass(&mut quiet, 3_600_000, 7, false), Duration::from_millis(2200), "an hour of being stopped does not");
        assert_eq!(pass(&mut quiet, 500, 8, false), Duration::ZERO, "something came");
        assert_eq!(pass(&mut quiet, 500, 8, false), tick);
        assert_eq!(pass(&mut quiet, 500, 8, true), Duration::ZERO, "it is drctl's turn");
    }
}

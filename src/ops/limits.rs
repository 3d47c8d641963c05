//! When a run is given up: it takes too long in all, one artifact does, or no byte moves any more.
//!
//! The run is told on a cancellation of its own, so that it cleans up as for a signal: children end, uploads are aborted, nothing is committed.
//! What it says then is not "interrupted" but which limit it was. Limits of single tools (a dump that writes nothing, a connection) are their
//! own and come sooner.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use crate::config::Limits;
use crate::error::{Error, Kind, Result};
use crate::observe::{Bus, Event, Observer};
use crate::ops::Setup;
use crate::ops::words::duration;

/// How long work that was told to stop may clean up; then it is dropped, which ends its children at once.
const CLEAN_UP: Duration = Duration::from_secs(60);

/// Runs `work` within limits. `work` gets a setup of its own: its bus hands every event on, its cancellation follows `setup`'s.
///
/// Errors: that of `work`; when a limit ended it, [`Kind::Failed`] with the limit, the artifact and the time. A result that
/// `work` reached all the same, for its commit was on its way, counts.
pub async fn within<T, F>(limits: &Limits, setup: &Setup, work: impl FnOnce(Setup) -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    within_or_dropped(limits, CLEAN_UP, setup, work).await
}

async fn within_or_dropped<T, F>(limits: &Limits, clean_up: Duration, setup: &Setup, work: impl FnOnce(Setup) -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let watch = Arc::new(Watch { outer: setup.bus.clone(), progress: Mutex::new(Progress::new()), ended: AtomicBool::new(false) });
    let bus = Bus::new();
    bus.subscribe(watch.clone());
    let cancel = setup.cancel.child_token();
    let working = work(Setup { bus, cancel: cancel.clone(), ..setup.clone() });
    tokio::pin!(working);
    let over = tokio::select! {
        biased;
        done = &mut working => return done,
        over = watch.exceeded(limits) => over,
    };
    if setup.cancel.is_cancelled() {
        // The signal came first: it decides what is said.
        return working.await;
    }
    watch.ended.store(true, Ordering::Relaxed);
    setup.bus.warn(format!("{over}: the run is ended"));
    cancel.cancel();
    match tokio::time::timeout(clean_up, &mut working).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) if error.kind() == Kind::OutcomeUnknown => Err(error),
        // Whatever it came to, it came to it because of us.
        Ok(Err(_)) => Err(over.error("nothing of it was kept")),
        // A store or a disk that does not answer at all. While an artifact is under way nothing can have been committed.
        Err(_) if over.artifact.is_some() => Err(over.error("it did not stop when told to, and was dropped; nothing was committed")),
        Err(_) => {
            let error = over.error("it did not stop when told to, and was dropped; whether it was committed is not known");
            Err(error.with_kind(Kind::OutcomeUnknown).hint("drctl list says whether its set stands"))
        }
    }
}

/// Which limit, of what, how long.
struct Over {
    limit: &'static str,
    allowed: Duration,
    artifact: Option<String>,
}

impl Over {
    fn error(&self, then: &str) -> Error {
        let hint = match self.limit {
            "no_progress" => "see what the source or the store waits for; if it is as it should be, raise `limits.no_progress` of the job",
            "step" => "if it is as large as it should be, raise `limits.step` of the job",
            _ => "if it is as large as it should be, raise `limits.total` of the job",
        };
        Error::failed(format!("{self}: {then}")).hint(hint)
    }
}

impl std::fmt::Display for Over {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let time = words(self.allowed);
        match (self.limit, &self.artifact) {
            ("no_progress", Some(artifact)) => write!(f, "{artifact} moved no byte for {time} (limits.no_progress)"),
            ("no_progress", None) => write!(f, "the run moved no byte for {time} (limits.no_progress)"),
            ("step", Some(artifact)) => write!(f, "{artifact} was not done within {time} (limits.step)"),
            (_, Some(artifact)) => write!(f, "the run was not done within {time}, it was at {artifact} (limits.total)"),
            (limit, None) => write!(f, "the run was not done within {time} (limits.{limit})"),
        }
    }
}

fn words(time: Duration) -> String {
    if time < Duration::from_secs(60) { format!("{} s", time.as_secs_f64()) } else { duration(time.as_secs() as i64) }
}

/// Hands events on and takes note of what they say of progress.
struct Watch {
    outer: Bus,
    progress: Mutex<Progress>,
    /// A limit ended the run: it failed, whatever it says of an interruption.
    ended: AtomicBool,
}

struct Progress {
    began: Instant,
    /// The last byte, or the last step that moves none: a check, a retry, a record.
    moved: Instant,
    /// The artifact under way, since when, and its bytes so far.
    artifact: Option<(String, Instant, u64)>,
}

impl Progress {
    fn new() -> Progress {
        Progress { began: Instant::now(), moved: Instant::now(), artifact: None }
    }

    fn note(&mut self, event: &Event) {
        let now = Instant::now();
        match event {
            Event::ArtifactStarted { artifact, .. } => (self.artifact, self.moved) = (Some((artifact.clone(), now, 0)), now),
            Event::ArtifactProgress { plain_bytes, stored_bytes, .. } => {
                // Told ten times a second, moved or not.
                let bytes = plain_bytes.saturating_add(*stored_bytes);
                if let Some((_, _, so_far)) = self.artifact.as_mut().filter(|(_, _, so_far)| *so_far != bytes) {
                    (*so_far, self.moved) = (bytes, now);
                }
            }
            Event::ArtifactFinished { .. } | Event::ArtifactFailed { .. } => (self.artifact, self.moved) = (None, now),
            Event::RunStarted { .. } | Event::Step { .. } | Event::Recorded { .. } | Event::RunFinished { .. } => self.moved = now,
            // Waiting and trying again moves nothing.
            Event::Warning { .. } | Event::Retry { .. } => {}
        }
    }

    /// The limit that is exceeded, or the instant at which one would be.
    fn look(&self, limits: &Limits) -> std::result::Result<Instant, Over> {
        let now = Instant::now();
        let artifact = || self.artifact.as_ref().map(|(name, _, _)| name.clone());
        let step = self.artifact.as_ref().map(|(_, since, _)| ("step", *since, limits.step));
        let all = [Some(("total", self.began, limits.total)), step, Some(("no_progress", self.moved, limits.no_progress))];
        let mut next = now + Duration::from_secs(365 * 86_400);
        for (limit, since, allowed) in all.into_iter().flatten() {
            // One that lies beyond what a clock can show is none.
            let Some(at) = since.checked_add(allowed) else { continue };
            if at <= now {
                return Err(Over { limit, allowed, artifact: artifact() });
            }
            next = next.min(at);
        }
        Ok(next)
    }
}

impl Watch {
    /// Returns when a limit is exceeded, and not before.
    async fn exceeded(&self, limits: &Limits) -> Over {
        loop {
            let looked = self.progress.lock().unwrap_or_else(|p| p.into_inner()).look(limits);
            match looked {
                Err(over) => return over,
                // A step that begins meanwhile has its end later than now: it is seen in time by looking at least so often.
                Ok(next) => tokio::time::sleep_until(next.min(Instant::now() + shortest(limits) / 8)).await,
            }
        }
    }
}

fn shortest(limits: &Limits) -> Duration {
    [limits.step, limits.no_progress, limits.total]
        .into_iter()
        .min()
        .unwrap_or_default()
        .clamp(Duration::from_millis(80), Duration::from_secs(80))
}

impl Observer for Watch {
    fn observe(&self, event: &Event) {
        self.progress.lock().unwrap_or_else(|p| p.into_inner()).note(event);
        let mut event = event.clone();
        if let Event::RunFinished { exit_code, .. } = &mut event
            && *exit_code == Kind::Interrupted.exit_code()
            && self.ended.load(Ordering::Relaxed)
        {
            *exit_code = Kind::Failed.exit_code();
        }
        self.outer.emit(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Repository;
    use crate::catalog::env::Env;
    use crate::pipeline::seal::Sealing;
    use crate::store::memory::MemoryStore;

    const MS: Duration = Duration::from_millis(1);

    async fn setup() -> Setup {
        let new = Repository::init(Arc::new(MemoryStore::default()), Env::default(), "test").await.unwrap();
        Setup::new(new.repository, Vec::new(), Sealing::None)
    }

    fn limits(step: u32, no_progress: u32, total: u32) -> Limits {
        Limits { step: MS * step, no_progress: MS * no_progress, total: MS * total }
    }

    fn started(artifact: &str) -> Event {
        Event::ArtifactStarted { artifact: artifact.to_owned(), expected_bytes: None }
    }

    fn moved(bytes: u64) -> Event {
        Event::ArtifactProgress { artifact: "a".to_owned(), plain_bytes: bytes, stored_bytes: 0 }
    }

    /// Work that tells of these events, one every 20 ms, then waits for its end by cancellation.
    async fn work(setup: Setup, events: impl IntoIterator<Item = Event>) -> Result<()> {
        let telling = async {
            for event in events {
                setup.bus.emit(event);
                tokio::time::sleep(MS * 20).await;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = telling => Ok(()),
            () = setup.cancel.cancelled() => Err(Error::new(Kind::Interrupted, "interrupted")),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_limit_says_which_it_was_of_what_and_how_long() {
        let long = 60_000;
        let going = |count: u64| std::iter::once(started("db.shop")).chain((0..count).map(moved));
        let still = || std::iter::once(started("db.shop")).chain((0..100).map(|_| moved(7)));
        let steps = || {
            (0..10)
                .flat_map(|_| [started("db.shop"), Event::ArtifactFailed { artifact: "db.shop".into(), error: String::new(), hint: None }])
        };
        let cases: Vec<(Limits, Vec<Event>, &str)> = vec![
            (limits(300, long, long), going(1000).collect(), "db.shop was not done within 0.3 s (limits.step)"),
            (limits(long, 200, long), still().collect(), "db.shop moved no byte for 0.2 s (limits.no_progress)"),
            (limits(long, 200, long), vec![], "the run moved no byte for 0.2 s (limits.no_progress)"),
            (limits(long, long, 200), going(1000).collect(), "the run was not done within 0.2 s, it was at db.shop (limits.total)"),
            // A step begins anew with each artifact, and work that goes on is no standstill.
            (
                limits(100, 100, 500),
                steps()
                    .chain([Event::Step { text: String::new() }])
                    .chain(std::iter::repeat_n(Event::Step { text: String::new() }, 100))
                    .collect(),
                "the run was not done within 0.5 s (limits.total)",
            ),
        ];
        for (limits, events, says) in cases {
            let error = within(&limits, &setup().await, |setup| work(setup, events)).await.unwrap_err();
            assert_eq!((error.kind(), error.to_string()), (Kind::Failed, format!("{says}: nothing of it was kept")));
            assert!(error.hint_text().unwrap().contains("raise `limits."), "{error:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn work_within_its_limits_is_left_alone_and_a_signal_is_a_signal() {
        let outer = setup().await;
        let done = within(&limits(50, 50, 50), &outer, async |_| Ok(7)).await.unwrap();
        assert_eq!(done, 7);
        let cancel = outer.cancel.clone();
        let signal = async {
            tokio::time::sleep(MS * 50).await;
            cancel.cancel();
        };
        let long = limits(9000, 9000, 9000);
        let (ended, ()) = tokio::join!(within(&long, &outer, |setup| work(setup, [])), signal);
        assert_eq!(ended.unwrap_err().kind(), Kind::Interrupted);
        // What was done all the same, and what nobody knows, stay what they are.
        let late = async |setup: Setup| {
            setup.cancel.cancelled().await;
            Ok(8)
        };
        assert_eq!(within(&limits(50, 50, 50), &setup().await, late).await.unwrap(), 8);
        let unknown = async |setup: Setup| {
            setup.cancel.cancelled().await;
            Err::<(), _>(Error::new(Kind::OutcomeUnknown, "no answer"))
        };
        assert_eq!(within(&limits(50, 50, 50), &setup().await, unknown).await.unwrap_err().kind(), Kind::OutcomeUnknown);
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_does_not_stop_is_dropped() {
        let deaf = |artifact: bool| {
            async move |setup: Setup| {
                if artifact {
                    setup.bus.emit(started("db.shop"));
                }
                std::future::pending::<Result<()>>().await
            }
        };
        let limits = limits(60_000, 50, 60_000);
        let error = within_or_dropped(&limits, MS * 50, &setup().await, deaf(true)).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Failed);
        assert!(error.to_string().ends_with("was dropped; nothing was committed"), "{error}");
        // It may have been at its commit.
        let error = within_or_dropped(&limits, MS * 50, &setup().await, deaf(false)).await.unwrap_err();
        assert_eq!(error.kind(), Kind::OutcomeUnknown);
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_that_a_limit_ended_failed_also_to_those_who_listen() {
        #[derive(Default)]
        struct Heard(Mutex<Vec<u8>>);
        impl Observer for Heard {
            fn observe(&self, event: &Event) {
                if let Event::RunFinished { exit_code, .. } = event {
                    self.0.lock().unwrap().push(*exit_code);
                }
            }
        }
        let setup = setup().await;
        let heard = Arc::new(Heard::default());
        setup.bus.subscribe(heard.clone());
        let finished = |exit_code| Event::RunFinished {
            verb: "backup".into(),
            job: "shop".into(),
            set: None,
            exit_code,
            elapsed_seconds: 0.0,
            at: jiff::Timestamp::UNIX_EPOCH,
        };
        let run = async |setup: Setup| {
            setup.bus.emit(finished(130));
            setup.cancel.cancelled().await;
            setup.bus.emit(finished(130));
            setup.bus.emit(finished(8));
            Err::<(), _>(Error::new(Kind::Interrupted, "interrupted"))
        };
        within(&limits(50, 50, 50), &setup, run).await.unwrap_err();
        assert_eq!(*heard.0.lock().unwrap(), [130, 1, 8]);
    }
}

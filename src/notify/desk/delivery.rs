//! What leaves the desk: each notifier gets what waits for it in order, what is not taken is put off, what is refused is laid aside.

use jiff::{SignedDuration, Timestamp};

use crate::error::{Error, Result};
use crate::model::Severity;
use crate::notify::desk::{Desk, Route, lock};
use crate::notify::http::LONGEST_PAUSE;
use crate::notify::{Delivered, Message, Undelivered, What, policy};
use crate::state::{Queued, StateFile};

/// Messages of one notifier that one call sends at most.
const AT_ONCE: usize = 20;

/// Whom the end of an incident could not be told within this time is not told of it.
const CLOSED_WITHIN: SignedDuration = SignedDuration::from_hours(7 * 24);

/// What one call of [`Desk::deliver_due`] did for one notifier.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Which.
    pub notifier: String,
    /// Messages delivered.
    pub delivered: u32,
    /// Messages refused for good.
    pub refused: u32,
    /// Why the last one that was not delivered was not.
    pub problem: Option<String>,
}

/// What a test message found out.
#[derive(Debug)]
pub struct Tried {
    /// Which notifier.
    pub notifier: String,
    /// `slack`, `webhook`, `healthchecks`.
    pub kind: &'static str,
    /// The job whose notifier it is.
    pub job: Option<String>,
    /// What became of the message.
    pub result: Result<Delivered, Undelivered>,
}

impl Desk {
    /// Sends what is due, to all notifiers at once, to each in order. What is not taken just now waits, longer each time; what is refused
    /// for good is laid aside and blocks nothing. One process at a time does this for one state file: another one does nothing.
    pub async fn deliver_due(&self) -> Vec<Outcome> {
        let Ok(_one) = self.delivering.try_lock() else { return Vec::new() };
        let right = match self.disk.as_ref().map(|disk| disk.queue_right()) {
            Some(Ok(None)) => return Vec::new(),
            Some(Ok(Some(right))) => right,
            // A folder that cannot be written to must not keep what is known from going out.
            Some(Err(_)) | None => None,
        };
        let since = self.clock.now().saturating_sub(CLOSED_WITHIN).unwrap_or(Timestamp::MIN);
        for books in self.all_books() {
            for incident in books.incidents_to_tell(since).unwrap_or_default() {
                // What cannot be written down now is due the next time, too.
                let _ = self.settle(books, &incident);
            }
        }
        let outcomes = futures::future::join_all(self.routes.iter().map(|route| self.deliver_route(route))).await;
        drop(right);
        outcomes.into_iter().filter(|outcome| *outcome != Outcome { notifier: outcome.notifier.clone(), ..Outcome::default() }).collect()
    }

    async fn deliver_route(&self, route: &Route) -> Outcome {
        let mut outcome = Outcome { notifier: route.name.clone(), ..Outcome::default() };
        for books in self.all_books() {
            let mut after = 0;
            for _ in 0..AT_ONCE {
                let Ok(Some(queued)) = books.queue_head(&route.name, after) else { break };
                let mark = (self.is_disk(books), queued.id);
                if lock(&self.sent).contains(&mark) {
                    if books.queue_delivered(&queued, 0, None).is_ok() {
                        lock(&self.sent).remove(&mark);
                    }
                    after = queued.id;
                    continue;
                }
                if self.waits(mark, &queued) {
                    break;
                }
                match self.deliver_one(route, books, &queued).await {
                    Ok(()) => outcome.delivered += 1,
                    Err(error) if error.is_permanent() => {
                        let problem = self.words(&error);
                        if books.queue_refused(&queued, &problem).is_err() {
                            lock(&self.sent).insert(mark);
                            after = queued.id;
                        }
                        outcome.refused += 1;
                        outcome.problem = Some(problem);
                    }
                    Err(error) => {
                        outcome.problem = Some(self.put_off(books, &queued, &error));
                        break;
                    }
                }
            }
        }
        outcome
    }

    async fn deliver_one(&self, route: &Route, books: &StateFile, queued: &Queued) -> Result<(), Undelivered> {
        let read: Message = serde_json::from_str(&queued.message)
            .map_err(|e| Error::new(crate::error::Kind::Denied, "the message in the state file cannot be read").because(e))?;
        let dropped = books.queue_dropped(&route.name).unwrap_or(0);
        // Cleaned again: the file may have been written to, and a secret may be known now that was not then.
        let message = self.cleaner.clean(Message { dropped, ..read });
        let thread = queued.incident.and_then(|incident| books.incident_thread(incident, &route.name).ok().flatten());
        let delivered = route.way.deliver(&message, thread.as_deref()).await?;
        let mark = (self.is_disk(books), queued.id);
        lock(&self.paused).remove(&mark);
        if books.queue_delivered(queued, dropped, delivered.thread.as_deref()).is_err() {
            lock(&self.sent).insert(mark);
        }
        Ok(())
    }

    /// Whether it is not yet time for a message.
    fn waits(&self, mark: (bool, i64), queued: &Queued) -> bool {
        let held = lock(&self.paused).get(&mark).map(|(_, until)| *until);
        let Some(until) = held.max(queued.next_try_at) else { return false };
        let left = until.duration_since(self.clock.now());
        // A pause longer than any that is given comes from a clock that was wrong.
        left > SignedDuration::ZERO && left <= SignedDuration::try_from(LONGEST_PAUSE).unwrap_or(SignedDuration::MAX)
    }

    fn put_off(&self, books: &StateFile, queued: &Queued, error: &Undelivered) -> String {
        let mark = (self.is_disk(books), queued.id);
        let held = lock(&self.paused).get(&mark).map_or(0, |(attempts, _)| *attempts);
        let attempts = queued.attempts.max(held).saturating_add(1);
        let pause = policy::pause(attempts, error.retry_after);
        let until = self.clock.now().saturating_add(SignedDuration::try_from(pause).unwrap_or_default()).unwrap_or(Timestamp::MAX);
        let problem = self.words(error);
        if books.queue_retry(queued.id, until, &problem).is_err() {
            lock(&self.paused).insert(mark, (attempts, until));
        }
        problem
    }

    /// Sends a test message through every notifier, or the one of this name, past the queue.
    pub async fn try_out(&self, name: Option<&str>) -> Vec<Tried> {
        let message = Message {
            lines: vec!["A person typed drctl notify test. If you can read this, alarms of this machine arrive here.".to_owned()],
            ..self.message(What::Test, Severity::Info, &format!("{}: this is a test", self.options.host))
        };
        let clean = self.cleaner.clean(message);
        let wanted = self.routes.iter().filter(|route| name.is_none_or(|name| route.name == name));
        let tried = wanted.map(|route| {
            let clean = &clean;
            async move {
                let result = route.way.deliver(clean, None).await;
                Tried { notifier: route.name.clone(), kind: route.kind, job: route.job.clone(), result }
            }
        });
        futures::future::join_all(tried).await
    }

    fn words(&self, error: &Undelivered) -> String {
        let hint = error.error.hint_text().map(|hint| format!("; {hint}")).unwrap_or_default();
        self.cleaner.text(&format!("{}{hint}", error.error), 600)
    }
}

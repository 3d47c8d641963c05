//! One artifact from its source into the stores, and small ones from memory.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use crate::error::{Context, Error, Kind, Result};
use crate::model::artifact::Consistency;
use crate::model::ids::artifact_file;
use crate::model::{Artifact, ArtifactFormat, Facts};
use crate::observe::Event;
use crate::ops::Setup;
use crate::pipeline::plain;
use crate::pipeline::seal::Sealing;
use crate::pipeline::split::Created;
use crate::pipeline::write::{Counters, WriteSpec, Written, write};
use crate::source::{ArtifactPlan, DumpEnd, RunContext, Session};

/// Where one set's artifacts go.
pub struct Destination<'a> {
    /// The repository's side.
    pub setup: &'a Setup,
    /// Folder of the set, with a slash at its end.
    pub prefix: String,
    /// Keys made so far.
    pub created: Created,
}

impl Destination<'_> {
    fn spec(&self, base: String, format: ArtifactFormat, sealing: Sealing) -> WriteSpec {
        WriteSpec {
            base,
            prefix: self.prefix.clone(),
            format,
            codec: self.setup.codec,
            sealing,
            decode_check: self.setup.decode_check,
            object_bytes: self.setup.object_bytes,
        }
    }

    /// Dumps one artifact. An error voids it: what was stored of it is deleted again.
    pub async fn dump(
        &self,
        source: &str,
        session: &mut dyn Session,
        plan: &ArtifactPlan,
        context: &RunContext,
        seal_secrets: bool,
    ) -> Result<(Artifact, Facts)> {
        let shown = format!("{source}.{}", plan.name);
        let sealing = self.sealing_for(plan.secret && seal_secrets, &shown)?;
        let base = artifact_file(source, &plan.name, plan.extension.as_deref().unwrap_or(plan.format.extension()));
        self.setup.bus.emit(Event::ArtifactStarted { artifact: shown.clone(), expected_bytes: plan.expected_bytes });
        let started_at = self.setup.clock.now();
        let own = Created::default();
        let result = self.stream(session, plan, context, self.spec(base, plan.format, sealing), &shown, &own).await;
        let (written, end) = match result {
            Ok(done) => done,
            Err(error) => {
                remove(self.setup, &own).await;
                return Err(error);
            }
        };
        for (sink, key) in own.take() {
            self.created.note(sink, &key);
        }
        self.setup.bus.emit(Event::ArtifactFinished {
            artifact: shown,
            plain_bytes: written.plain_bytes,
            stored_bytes: written.objects.iter().map(|o| o.stored_bytes).sum(),
        });
        let facts = written.facts.clone();
        Ok((self.artifact(source, plan.format, written, end, started_at), facts))
    }

    async fn stream(
        &self,
        session: &mut dyn Session,
        plan: &ArtifactPlan,
        context: &RunContext,
        spec: WriteSpec,
        shown: &str,
        own: &Created,
    ) -> Result<(Written, DumpEnd)> {
        let counters = Arc::new(Counters::default());
        let failed = CancellationToken::new();
        let (sender, receiver) = plain::channel();
        let writing = write(spec, receiver, self.setup.sinks.clone(), own.clone(), counters.clone(), failed.clone());
        let dumping = async {
            let dumped = tokio::select! {
                biased;
                () = failed.cancelled() => Err(Error::new(Kind::Stopped, "the pipeline failed")),
                () = self.setup.cancel.cancelled() => Err(interrupted()),
                dumped = session.dump(plan, sender.clone(), context) => dumped,
            };
            let end = dumped.and_then(|end| expected(shown, &end).map(|()| end));
            if end.is_ok() {
                sender.end().await?;
            }
            end
        };
        let so_far = || (counters.plain_bytes.load(Ordering::Relaxed), counters.stored_bytes.load(Ordering::Relaxed));
        let both = async { tokio::join!(writing, dumping) };
        let (written, end) = crate::ops::progress::telling(self.setup, shown, so_far, both).await;
        match (written, end) {
            (Ok(written), Ok(end)) => {
                reached(&written.facts, &end).context(|| shown.to_owned())?;
                Ok((written, end))
            }
            (Err(writing), Err(dumping)) => Err(Error::first_of(dumping, writing).context(format!("back up {shown}"))),
            (Err(error), Ok(_)) | (Ok(_), Err(error)) => Err(error.context(format!("back up {shown}"))),
        }
    }

    /// Stores a small artifact made by drctl itself.
    pub async fn small(&self, source: &str, base: &str, format: ArtifactFormat, bytes: Bytes, secret: bool) -> Result<(Artifact, Facts)> {
        let sealing = self.sealing_for(secret, base)?;
        let started_at = self.setup.clock.now();
        let (sender, receiver) = plain::channel();
        let (sinks, failed) = (self.setup.sinks.clone(), CancellationToken::new());
        let writing = write(self.spec(base.to_owned(), format, sealing), receiver, sinks, self.created.clone(), Arc::default(), failed);
        let feeding = async {
            let mut rest = bytes;
            while !rest.is_empty() {
                let block = rest.split_to(rest.len().min(1 << 20));
                if sender.data(block).await.is_err() {
                    return;
                }
            }
            let _ = sender.end().await;
        };
        let (written, ()) = tokio::join!(writing, feeding);
        let written = written?;
        let facts = written.facts.clone();
        let end = DumpEnd { exit_status: None, tool: None, consistency: Consistency::Snapshot, expected_totals: Default::default() };
        Ok((self.artifact(source, format, written, end, started_at), facts))
    }

    /// Secrets by nature are never stored in clear but by an explicit choice for their source (FAULTS §4).
    fn sealing_for(&self, secret: bool, what: &str) -> Result<Sealing> {
        if secret && matches!(self.setup.sealing, Sealing::None) {
            return Err(Error::new(Kind::Config, format!("{what} holds secrets and the repository does not encrypt"))
                .hint("name recipients in drctl.yaml (repository.recipients), or set allow_plaintext: true at this source"));
        }
        Ok(self.setup.sealing.clone())
    }

    fn artifact(&self, source: &str, format: ArtifactFormat, written: Written, end: DumpEnd, started_at: jiff::Timestamp) -> Artifact {
        let finished_at = self.setup.clock.now();
        let artifact = written.artifact(source, format, end.consistency, started_at, finished_at);
        Artifact { tool: end.tool, exit_status: end.exit_status, ..artifact }
    }
}

/// The dump's own end was fine; its exit status must be too. A session checks it; this is the second pair of eyes (FAULTS I2).
fn expected(shown: &str, end: &DumpEnd) -> Result<()> {
    match end.exit_status {
        None | Some(0) => Ok(()),
        Some(status) => Err(Error::failed(format!("the dump of {shown} exited {status}"))),
    }
}

/// FAULTS 28: what the catalogue promised must have come out.
fn reached(facts: &Facts, end: &DumpEnd) -> Result<()> {
    for (total, least) in &end.expected_totals {
        let got = facts.totals.get(total).copied().unwrap_or(0);
        if got < *least {
            return Err(Error::corrupt(format!("the dump holds {got} {total}, the source said {least} before it"))
                .hint("the dump is incomplete although its tool reported success: check the tool and its rights"));
        }
    }
    Ok(())
}

/// What a cancelled run says. The command line turns it into the signal's own exit code.
pub fn interrupted() -> Error {
    Error::new(Kind::Interrupted, "interrupted")
}

/// Deletes objects of a run that came to nothing. What cannot be deleted is said and left to the sweep.
pub async fn remove(setup: &Setup, created: &Created) {
    for (sink, key) in created.take() {
        let Some(target) = setup.sinks.get(sink) else { continue };
        if let Err(error) = target.store.delete(&key).await {
            setup.bus.warn(format!("{key} stays in '{}' until the next sweep: {error}", target.name));
        }
    }
}

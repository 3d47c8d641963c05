//! `drctl unlock`.

use std::path::Path;

use serde::Serialize;
use serde_json::json;

use crate::catalog::lease::{self, Holder, Standing};
use crate::cli::Shell;
use crate::cli::args::UnlockArgs;
use crate::cli::output::{confirm, is_interactive};
use crate::error::{Error, Kind, Result};
use crate::model::JobName;
use crate::open::Opened;
use crate::ops::{Setup, words};
use crate::state::{Act, process_is_alive};

#[derive(Serialize)]
struct Unlocked {
    job: String,
    /// Who held the lease; `None` when nobody did.
    was: Option<Holder>,
    /// What lay there and was no lease, and is gone.
    cleared: Vec<String>,
}

/// Whether a process of this number lives that is not this one: in containers every drctl has the same small number, and its threads have others.
fn another_lives(pid: u32) -> bool {
    process_is_alive(pid) && !Path::new(&format!("/proc/self/task/{pid}")).exists()
}

/// Frees a job's lease after a question. A holder that lives on this host keeps it.
pub async fn run(shell: &Shell, args: UnlockArgs) -> Result<u8> {
    let opened = Opened::for_writing(&shell.around()).await?;
    let setup = &opened.setup;
    let job = opened.jobs(Some(&args.job)).await?.remove(0);
    let was = match lease::standing(&setup.repository, &job, &setup.host).await? {
        Standing::Free => None,
        Standing::Held { holder, until, dead } => {
            if holder.host == setup.host && !dead && another_lives(holder.pid) {
                return Err(Error::new(Kind::Locked, format!("job {job} is held by {holder}, and that process runs on this host"))
                    .hint(format!("wait for it, or end it first: kill {}", holder.pid)));
            }
            if !args.yes {
                let question = format!(
                    "Job {job} is held by {holder}, until {}.\nIf that run still works somewhere, it and the next one do the same work twice.",
                    until.strftime("%H:%M UTC")
                );
                if !is_interactive() {
                    return Err(Error::new(Kind::Preflight, format!("job {job} is held by {holder}: nothing was changed"))
                        .hint(format!("when you know that it is gone: drctl unlock {job} --yes")));
                }
                if !confirm(&question)? {
                    return Err(Error::new(Kind::Preflight, "not unlocked"));
                }
            }
            let act = Act::of("unlock").job(&job).on(&job).with(json!({ "held_by": holder.to_string() }));
            setup.audited(act, lease::unlock(&setup.repository, &job, &holder)).await?;
            Some(holder)
        }
    };
    let cleared = clear(setup, &job).await?;
    shell.out.result("unlock", &Unlocked { job: job.to_string(), was, cleared }, |unlocked| {
        let mut text = match &unlocked.was {
            Some(holder) => format!("ok  job {} is free; it was held by {holder}\n", unlocked.job),
            None => format!("ok  nobody held job {}\n", unlocked.job),
        };
        for odd in &unlocked.cleared {
            text.push_str(&format!("ok  {odd} is gone: it was no lease\n"));
        }
        text
    });
    Ok(0)
}

/// Takes away what is no lease. A user who may not delete is told who may: it hinders nothing.
async fn clear(setup: &Setup, job: &JobName) -> Result<Vec<String>> {
    let odd = lease::odd(&setup.repository, job).await?;
    let Some(first) = odd.first() else { return Ok(Vec::new()) };
    let act = Act::of("unlock").job(job).on(&first.key).with(json!({ "no_leases": odd.len() }));
    match setup.audited(act, lease::clear(&setup.repository, job)).await {
        Ok(gone) => Ok(gone.iter().map(ToString::to_string).collect()),
        Err(error) if error.kind() == Kind::Denied => {
            let more = words::and_more(odd.len());
            setup.bus.warn(format!("{first}{more} is no lease and hinders nothing; a pruner's user may take it away: drctl prune --apply"));
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_this_process_nor_its_threads_hold_a_lease_of_before() {
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        let (number, numbers) = std::sync::mpsc::channel();
        let waiting = std::thread::spawn(move || {
            number.send(rustix::thread::gettid()).unwrap();
            let _ = receiver.recv();
        });
        let living = numbers.recv().unwrap();
        let number = |pid: rustix::process::Pid| u32::try_from(pid.as_raw_nonzero().get()).unwrap();
        assert!(process_is_alive(number(living)), "a thread's number is found in /proc");
        assert!(!another_lives(number(living)) && !another_lives(std::process::id()));
        drop(sender);
        waiting.join().unwrap();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        assert!(another_lives(child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

//! The configuration of a new machine, from the one that a set kept.

use super::{Plan, Report};
use crate::catalog::RecoveryFile;
use crate::cli::files::create_whole;
use crate::cli::init::{private_file, private_folder};
use crate::config::discover::{Look, discover};
use crate::config::environment::Environment;
use crate::config::kept::{self as kept_text, Kept};
use crate::config::load::load;
use crate::config::problem::{Problems, Step};
use crate::config::template::{self, KeptJobs, Template, Written};
use crate::error::{Context, Error, Kind, Result};
use crate::open;
use crate::ops::Setup;

/// Writes `drctl.yaml`. It must load: a job that does not on this machine is written down and not in effect.
pub(super) fn write(
    plan: &Plan,
    store_name: &str,
    file: &RecoveryFile,
    setup: &Setup,
    kept: Option<&Kept>,
    origin: &str,
    report: &mut Report,
) -> Result<()> {
    let own: Vec<String> = setup.identities.recipients().iter().map(ToString::to_string).collect();
    // What others can open, they shall go on opening; of this repository's own identities the newest.
    let mut recipients: Vec<String> = kept.iter().flat_map(|kept| &kept.recipients).filter(|r| !own.contains(r)).cloned().collect();
    if kept.is_none_or(|kept| kept.encrypted) {
        recipients.insert(0, file.recipient.clone());
    } else {
        recipients.clear();
    }
    let findings = if kept.is_some() { Vec::new() } else { discover(&Look::at(&Environment::system(), &plan.folder)?) };
    let mut template = Template {
        folder: plan.folder.clone(),
        store_name: store_name.to_owned(),
        store: plan.place.clone(),
        id: file.repository.clone(),
        root_key: file.root.as_str().to_owned(),
        recipients,
        identity: plan.identity(),
        signing_key: plan.keys.join("signing.key"),
        job: template::job_name(&plan.folder),
        findings,
        paths: Vec::new(),
        presets: Vec::new(),
        kept: kept
            .map(|kept| KeptJobs { origin: origin.to_owned(), jobs: kept.jobs.iter().map(|job| (job.clone(), job.off.clone())).collect() }),
    };
    let next = plan.folder.join(".drctl.yaml.next");
    loop {
        let written = template::write(&template);
        write_secrets(&written)?;
        let _ = std::fs::remove_file(&next);
        create_whole(&next, written.text.as_bytes())?;
        let problems = match load(&open::load_options(Some(&next))) {
            Ok(_)
                if kept.is_some()
                    && template.kept.iter().flat_map(|k| &k.jobs).any(|(_, off)| off.is_none())
                    && kept_text::runs_programs(&written.text) =>
            {
                // What is written here would be a mistake of ours: then nothing of the jobs is in effect.
                let why = "it would run programs that came out of the repository";
                for (_, off) in template.kept.iter_mut().flat_map(|kept| &mut kept.jobs) {
                    off.get_or_insert_with(|| why.to_owned());
                }
                continue;
            }
            Ok(config) => {
                report.jobs = config.jobs.iter().map(|job| job.name.to_string()).collect();
                report.warnings.extend(config.warnings.iter().map(|warning| format!("{}: {}", warning.path, warning.what)));
                break;
            }
            Err(problems) => problems,
        };
        if !template.kept.as_mut().is_some_and(|kept| take_out(kept, &problems)) {
            let _ = std::fs::remove_file(&next);
            return Err(Error::from(problems).context("the configuration that would be written does not load"));
        }
    }
    for (job, why) in template.kept.iter().flat_map(|kept| &kept.jobs) {
        if let Some(why) = why {
            report.not_in_effect.push((job.name.clone(), why.clone()));
        }
    }
    fail::fail_point!("init-from::written");
    // Never over what came there meanwhile.
    std::fs::hard_link(&next, &plan.config).context(|| format!("write {}", plan.config.display()))?;
    std::fs::remove_file(&next).context(|| format!("remove {}", next.display()))?;
    std::fs::File::open(&plan.folder).and_then(|folder| folder.sync_all()).context(|| format!("write {}", plan.config.display()))?;
    fail::fail_point!("init-from::configured");
    Ok(())
}

/// Takes the jobs that problems are about out of effect; all, when it is about none of them. Says whether there was one to take out.
fn take_out(kept: &mut KeptJobs, problems: &Problems) -> bool {
    // Indices count the jobs in effect.
    let index = |steps: &[Step]| match steps {
        [Step::Key(key), Step::Index(at), ..] if key == "jobs" => Some(*at),
        _ => None,
    };
    let mut changed = false;
    let about: Vec<(Option<usize>, String)> =
        problems.list().iter().map(|p| (index(&p.path.0), format!("{}: {}", p.path, p.what))).collect();
    let in_effect: Vec<usize> = (0..kept.jobs.len()).filter(|at| kept.jobs[*at].1.is_none()).collect();
    for (nth, at) in in_effect.iter().enumerate() {
        let own: Vec<&str> = about.iter().filter(|(index, _)| *index == Some(nth)).map(|(_, what)| what.as_str()).collect();
        let any = about.iter().all(|(index, _)| index.is_none()).then(|| about.iter().map(|(_, what)| what.as_str()).collect::<Vec<_>>());
        let why = if own.is_empty() { any.unwrap_or_default() } else { own };
        if !why.is_empty() {
            kept.jobs[*at].1 = Some(why.join("; "));
            changed = true;
        }
    }
    changed
}

/// Secrets that were found lying about; what is there from an earlier call stays.
fn write_secrets(written: &Written) -> Result<()> {
    for (path, secret) in &written.secrets {
        if let Some(parent) = path.parent().filter(|parent| parent.symlink_metadata().is_err()) {
            private_folder(parent)?;
        }
        match private_file(path, secret.expose().as_bytes()) {
            Err(e) if e.kind() == Kind::Exists => {}
            other => other?,
        }
    }
    Ok(())
}

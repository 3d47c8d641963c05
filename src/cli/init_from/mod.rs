//! `drctl init --from PLACE --recovery FILE`: this machine becomes one of an existing repository.
//!
//! The recovery file says which repository it must be and signs a new key for this host; the configuration that the newest set kept is where the
//! new one starts. Nothing that exists is overwritten. Each step may be repeated: a marker in the folder of keys, written first and taken away
//! last, tells a call that broke off from a folder of someone else's keys.

mod config;

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::json;

use crate::catalog::env::Env;
use crate::catalog::keys::{KeyFile, all_in_one, in_force};
use crate::catalog::recovery::RecoverySecrets;
use crate::catalog::single_writer::why_single_writer;
use crate::catalog::{RecoveryFile, Repository, Role, Roles, Trust};
use crate::cli::args::InitArgs;
use crate::cli::init::{KEYS, private_file, private_folder};
use crate::cli::{Shell, key, open};
use crate::config::environment::Environment;
use crate::config::find::state_folder;
use crate::config::kept::{self, Kept, Program};
use crate::config::s3::is_s3_url;
use crate::config::secret::read_secret_file;
use crate::config::typed::{StoreConfig, StorePlace};
use crate::error::{Context, Error, Kind, Result};
use crate::model::Manifest;
use crate::open::stores::{self, OpenStore, State};
use crate::ops::Setup;
use crate::ops::backup::OWN_SOURCE;
use crate::ops::keys::{self, Wanted};
use crate::pipeline::read::StoredArtifact;
use crate::pipeline::seal::{Identities, Sealing};
use crate::state::{Act, Audited};

/// Says that a folder of keys is of a call that is under way or broke off, and of which repository.
const MARKER: &str = ".init-from";

/// Largest kept configuration that is read.
const CONFIG_LIMIT: u64 = 8 << 20;

/// What was made.
#[derive(Serialize)]
struct Report {
    config: PathBuf,
    store: String,
    keys: PathBuf,
    repository: String,
    /// Number of this host's signing key; none with `--dry-run`.
    key: Option<u64>,
    roles: Roles,
    /// Whether this host can open sets.
    identity: bool,
    /// The set whose configuration was the start.
    configuration_of: Option<String>,
    /// Jobs in effect.
    jobs: Vec<String>,
    /// Jobs that are written down and not in effect, and why.
    not_in_effect: Vec<(String, String)>,
    /// Settings of jobs that would run a program, and what: they are commented out.
    not_switched_on: Vec<(String, Program)>,
    /// Signing keys of other hosts that stay valid.
    other_keys: Vec<(u64, String)>,
    warnings: Vec<String>,
}

/// What is made, and where.
struct Plan {
    folder: PathBuf,
    config: PathBuf,
    keys: PathBuf,
    place: StorePlace,
    roles: Roles,
    revokes: Vec<u64>,
}

impl Plan {
    fn marker(&self) -> PathBuf {
        self.keys.join(MARKER)
    }

    /// A host that only writes gets no identity: it is sealed.
    fn identity(&self) -> Option<PathBuf> {
        (self.roles != [Role::Writer].into()).then(|| self.keys.join("identity.txt"))
    }
}

/// Makes it.
pub async fn run(shell: &Shell, args: InitArgs, from: &Path) -> Result<u8> {
    let environment = Environment::system();
    let config = environment.absolute(shell.global.config.as_deref().unwrap_or(Path::new("drctl.yaml")));
    let folder = config.parent().map_or_else(|| PathBuf::from("/"), Path::to_owned);
    let plan = Plan {
        keys: folder.join(KEYS),
        place: match open::repo_place(from)? {
            StorePlace::Local { path } => StorePlace::Local { path: environment.absolute(&path) },
            bucket => bucket,
        },
        roles: if args.role.is_empty() { all_in_one() } else { key::roles(&args.role) },
        revokes: args.revoke,
        folder,
        config,
    };
    let Some(recovery) = &shell.global.recovery else {
        return Err(Error::new(Kind::Usage, "init --from needs the repository's recovery file: it signs for this host's key")
            .hint(format!("drctl init --from {} --recovery FILE", from.display())));
    };
    free(&plan)?;
    let typed = args.passphrase_file;
    let opened = open::recovery_file_with(recovery, || typed.as_deref().map_or_else(open::passphrase, read_secret_file)).await?;
    let audited = (!args.dry_run).then(|| {
        let state = open::open_state(&shell.around(), &state_folder(None, &environment));
        let roles = key::role_names(&plan.roles);
        let act = Act::of("init --from").on(&opened.0.repository).with(json!({ "roles": roles, "revoke": plan.revokes }));
        Audited::begin(state.as_ref(), &shell.bus, act)
    });
    let made = make(shell, &plan, &opened, args.dry_run).await.map_err(|e| e.context("init --from"));
    if let Some(audited) = audited {
        audited.ended(&made);
    }
    let report = made?;
    shell.out.result("init", &report, |report| text(report, args.dry_run));
    Ok(0)
}

/// Refuses what exists and is not of an earlier call of ours.
fn free(plan: &Plan) -> Result<()> {
    let there = |path: &Path| path.symlink_metadata().is_ok();
    let empty = || std::fs::read_dir(&plan.keys).is_ok_and(|mut entries| entries.next().is_none());
    if there(&plan.marker()) {
        return Ok(());
    }
    let taken = [(&plan.config, there(&plan.config)), (&plan.keys, there(&plan.keys) && !empty())];
    match taken.into_iter().find(|(_, taken)| *taken) {
        Some((path, _)) => Err(Error::new(Kind::Preflight, format!("{} exists already: nothing was changed", path.display()))
            .hint("drctl config check looks at what is there; init --from in another folder makes a second configuration")),
        None => Ok(()),
    }
}

/// Whether an earlier call got as far as the configuration.
fn begun(plan: &Plan, id: &str) -> Result<bool> {
    match std::fs::read_to_string(plan.marker()) {
        Ok(text) if text.trim() == id => Ok(plan.config.symlink_metadata().is_ok()),
        Ok(_) => Err(Error::new(Kind::Preflight, format!("{} was begun for another repository: nothing was changed", plan.keys.display()))
            .hint("finish that first, or use another folder")),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(Error::failed(format!("read {}", plan.marker().display())).because(e)),
    }
}

async fn make(shell: &Shell, plan: &Plan, (file, secrets): &(RecoveryFile, RecoverySecrets), dry: bool) -> Result<Report> {
    let state = state_folder(None, &Environment::system());
    let mut named = StoreConfig { name: "main".into(), optional: false, single_writer: None, place: plan.place.clone() };
    shell.bus.step("opening the repository");
    let mut store = OpenStore::open(&shell.around(), &named, &State { folder: &state, file: None }, false).await;
    let location = store.sink.store.location();
    expect(&store, file).await?;
    let repository = store.repository(Env::default(), &file.trust()).await?;
    let host = stores::host();
    // Whoever may not write here is told before anything is made.
    let why = if dry { None } else { why_single_writer(&*store.sink.store, store.network, None).await? };
    repository.check_writer(&host, why.as_deref())?;
    key::check_revoked(&repository, &plan.revokes).await?;

    let mut setup = Setup::new(repository, vec![store.sink.clone()], Sealing::None);
    setup.identities = Identities::parse(&secrets.identities, "the recovery file")?;
    setup.bus = shell.bus.clone();
    setup.cancel = shell.cancel.clone();
    setup.host = host;
    let (newest, passed_over) = newest(&setup, &plan.revokes).await?;
    let kept = match &newest {
        Some(manifest) => read_kept(&setup, manifest).await?,
        None => None,
    };
    if let Some(manifest) = newest.as_ref().or(passed_over.as_ref()) {
        // The names of stores are those of the sets.
        named.name = manifest.stores.first().cloned().unwrap_or(named.name);
    }
    refuse_copy(kept.as_ref(), &plan.place, &location)?;

    let own: Vec<String> = setup.identities.recipients().iter().map(ToString::to_string).collect();
    let mut report = Report {
        config: plan.config.clone(),
        store: location,
        keys: plan.keys.clone(),
        repository: setup.repository.id().to_owned(),
        key: None,
        roles: plan.roles.clone(),
        identity: plan.identity().is_some(),
        configuration_of: newest.as_ref().filter(|_| kept.is_some()).map(|manifest| manifest.set.to_string()),
        jobs: Vec::new(),
        not_in_effect: Vec::new(),
        not_switched_on: programs(kept.as_ref()),
        other_keys: Vec::new(),
        warnings: warnings(newest.as_ref(), kept.as_ref(), &own),
    };
    if let Some(set) = passed_over.map(|manifest| manifest.set) {
        if newest.is_none() {
            report.warnings.clear();
        }
        report.warnings.push(format!(
            "the configuration of {set} was not taken: the key that signed it is revoked, so a thief may have written it. Look at it, and take \
             over what is yours: drctl cat {set} drctl.yaml --repo '{}' --recovery FILE",
            report.store.replace('\'', r"'\''")
        ));
    }
    if dry {
        report.jobs = kept.iter().flat_map(|kept| &kept.jobs).map(|job| job.name.clone()).collect();
        return Ok(report);
    }
    let done = begun(plan, setup.repository.id())?;
    let made = make_keys(shell, plan, &setup, secrets, done).await?;
    report.key = Some(made.number);
    report.roles = made.roles.clone();
    report.other_keys = others(&setup, &made).await?;
    if !done {
        shell.bus.step("writing the configuration");
        let origin = newest.as_ref().map(|manifest| manifest.set.to_string()).unwrap_or_default();
        config::write(plan, &named.name, file, &setup, kept.as_ref(), &origin, &mut report)?;
    }
    std::fs::remove_file(plan.marker()).context(|| format!("remove {}", plan.marker().display()))?;
    Ok(report)
}

/// That the repository of the recovery file is there.
async fn expect(store: &OpenStore, file: &RecoveryFile) -> Result<()> {
    let there = Repository::open(store.sink.store.clone(), Env::default(), &Trust::OnFirstUse).await.map_err(|e| match e.kind() {
        Kind::NotFound => e.with_kind(Kind::Preflight).hint(format!("the recovery file names {}", file.location)),
        _ if !is_s3_url(&store.sink.store.location()) => e.hint(format!("is its disk mounted? the recovery file names {}", file.location)),
        _ => e,
    })?;
    if there.id() == file.repository && *there.root() == file.root {
        return Ok(());
    }
    let text = format!(
        "this recovery file is for repository {} in {}, not for {} in {}",
        file.repository,
        file.location,
        there.id(),
        there.location()
    );
    Err(Error::new(Kind::Preflight, text).hint("find the recovery file that init made with this repository"))
}

/// The newest good set of all jobs, the newest at all where none is good, of those that a key signed which is in force and stays so; and the
/// newest of all, where a key signed it that does not (rule 18).
async fn newest(setup: &Setup, revokes: &[u64]) -> Result<(Option<Manifest>, Option<Manifest>)> {
    let files = setup.repository.key_files().await?;
    let mut sets = Vec::new();
    for job in setup.repository.jobs().await? {
        let log = setup.log(&job).await?;
        let stays = |key: u64| in_force(&files, key) && !revokes.contains(&key);
        sets.extend(
            log.state().live().map(|entry| (stays(entry.key), entry.is_good(), entry.manifest.started_at, entry.manifest.as_ref().clone())),
        );
    }
    let best = |stays: bool| {
        let of_such = sets.iter().filter(|(known, ..)| *known == stays);
        of_such.max_by_key(|(_, good, at, _)| (*good, *at)).map(|(_, good, at, manifest)| ((*good, *at), manifest.clone()))
    };
    let (taken, other) = (best(true), best(false));
    let newer = other.filter(|(other, _)| taken.as_ref().is_none_or(|(taken, _)| other > taken));
    Ok((taken.map(|(_, manifest)| manifest), newer.map(|(_, manifest)| manifest)))
}

fn programs(kept: Option<&Kept>) -> Vec<(String, Program)> {
    let jobs = kept.map(|kept| kept.jobs.as_slice()).unwrap_or_default();
    jobs.iter().flat_map(|job| job.programs.iter().map(|program| (job.name.clone(), program.clone()))).collect()
}

/// The configuration that a set keeps; `None` where it cannot be made sense of.
async fn read_kept(setup: &Setup, manifest: &Manifest) -> Result<Option<Kept>> {
    let Some(artifact) = manifest.artifacts.iter().find(|a| a.source == OWN_SOURCE && a.file.starts_with("drctl.yaml")) else {
        return Ok(None);
    };
    let stored = StoredArtifact {
        store: setup.reading().store.clone(),
        prefix: manifest.set.prefix(),
        artifact: artifact.clone(),
        identities: setup.identities.clone(),
    };
    match stored.read_whole(CONFIG_LIMIT).await {
        Ok(bytes) => Ok(std::str::from_utf8(&bytes).ok().and_then(kept::read)),
        // A damaged one is no reason to be without any: the person writes it anew.
        Err(e) if matches!(e.kind(), Kind::Corrupt | Kind::NotFound | Kind::Preflight) => {
            setup.bus.warn(format!("the configuration that {} kept cannot be read: {e}", manifest.set));
            Ok(None)
        }
        Err(e) => Err(e.context(format!("read the configuration that {} kept", manifest.set))),
    }
}

/// Nobody appends to a copy of the log: two histories would come of it (FORMAT rule 11).
fn refuse_copy(kept: Option<&Kept>, place: &StorePlace, location: &str) -> Result<()> {
    let stores = kept.map(|kept| kept.stores.as_slice()).unwrap_or_default();
    let at = stores.iter().position(|(_, known)| known.same(place));
    let (Some(at @ 1..), Some((first, _))) = (at, stores.first()) else { return Ok(()) };
    Err(Error::new(Kind::Preflight, format!("{location} is store '{}', a copy: the log lies in store '{first}'", stores[at].0))
        .hint("init --from the first store; what a copy holds is read with --repo PLACE --recovery FILE"))
}

fn warnings(newest: Option<&Manifest>, kept: Option<&Kept>, own: &[String]) -> Vec<String> {
    let mut warnings = Vec::new();
    match (newest, kept) {
        (None, _) => warnings.push("the repository holds no set yet, so there is no configuration to start from".to_owned()),
        (Some(manifest), None) => warnings.push(format!("no configuration could be taken from {}: write the jobs yourself", manifest.set)),
        (Some(_), Some(kept)) => {
            for job in kept.jobs.iter().filter(|job| job.lacks_secret()) {
                warnings.push(format!(
                    "job {}: a secret stood in the configuration itself and is not kept; put it in where *** stands",
                    job.name
                ));
            }
            let others: Vec<&str> = kept.recipients.iter().map(String::as_str).filter(|key| !own.iter().any(|own| own == key)).collect();
            if !others.is_empty() && kept.encrypted {
                warnings.push(format!(
                    "what this host writes can also be opened by {}, as that configuration says: take out under recipients what you do not know",
                    others.join(", ")
                ));
            }
            for left in &kept.left {
                warnings.push(format!("'{left}' was not taken over"));
            }
            if let Some((first, further)) = kept.stores.split_first().filter(|(_, further)| !further.is_empty()) {
                let names: Vec<&str> = further.iter().map(|(name, _)| name.as_str()).collect();
                warnings.push(format!(
                    "the configuration had further stores ({}): add them to repository.stores behind '{}', or their copies lag from now on",
                    names.join(", "),
                    first.0
                ));
            }
        }
    }
    warnings
}

/// The folder of keys with what belongs into it.
async fn make_keys(shell: &Shell, plan: &Plan, setup: &Setup, secrets: &RecoverySecrets, done: bool) -> Result<KeyFile> {
    shell.bus.step("making keys");
    if plan.keys.symlink_metadata().is_err() {
        private_folder(&plan.keys)?;
    }
    if plan.marker().symlink_metadata().is_err() {
        private_file(&plan.marker(), format!("{}\n", setup.repository.id()).as_bytes())?;
    }
    fail::fail_point!("init-from::marked");
    if let Some(path) = plan.identity() {
        let text = format!("# age identity of drctl: whoever has it can open every backup\n{}\n", secrets.identities.expose());
        match private_file(&path, text.as_bytes()) {
            Ok(()) => {}
            Err(e) if e.kind() == Kind::Exists => {
                // Of the call that broke off: whole, or cut off before it was of use to anyone.
                if read_secret_file(&path).ok().is_none_or(|there| there.expose().trim() != text.trim()) {
                    if done {
                        return Err(Error::new(Kind::Preflight, format!("{} is not the identity of the recovery file", path.display())));
                    }
                    std::fs::remove_file(&path).context(|| format!("remove {}", path.display()))?;
                    private_file(&path, text.as_bytes())?;
                }
            }
            Err(e) => return Err(e),
        }
    }
    fail::fail_point!("init-from::identity");
    let wanted = Wanted { roles: plan.roles.clone(), holder: setup.host.clone(), revokes: plan.revokes.clone() };
    let made = keys::add(setup, &secrets.root, &plan.keys.join("signing.key"), &wanted).await?;
    fail::fail_point!("init-from::keyed");
    Ok(made)
}

/// Keys of others that this one did not revoke.
async fn others(setup: &Setup, own: &KeyFile) -> Result<Vec<(u64, String)>> {
    let files = setup.repository.key_files().await?;
    let revoked = |number: u64| files.iter().any(|file| file.revokes.contains(&number));
    Ok(files
        .iter()
        .filter(|file| file.number != own.number && !revoked(file.number))
        .map(|file| (file.number, file.holder.clone()))
        .collect())
}

fn text(report: &Report, dry: bool) -> String {
    let mut out = String::new();
    let mut line = |text: String| {
        out.push_str(&text);
        out.push('\n');
    };
    let verb = if dry { "would make" } else { "made" };
    match &report.configuration_of {
        Some(set) => line(format!("found   the configuration of {set}, job {}", report.jobs.join(", "))),
        None => line("found   no configuration to start from".to_owned()),
    }
    line(String::new());
    line(format!("{verb}  {}  the configuration", report.config.display()));
    let roles = key::role_names(&report.roles);
    let number = report.key.map(|number| format!(" {number}")).unwrap_or_default();
    let can = if report.identity { "and the identity that opens sets" } else { "and no identity: this host is sealed and only writes" };
    line(format!("{verb}  {}/  signing key{number} ({roles}), {can}", report.keys.display()));
    line(format!("uses  {}  the repository", report.store));
    for (job, why) in &report.not_in_effect {
        line(format!("\nNOT IN EFFECT  job {job}: {why}"));
    }
    for (job, Program { setting, runs }) in &report.not_switched_on {
        line(format!("\nNOT SWITCHED ON  job {job}, {setting}: it came out of the repository and would run\n        {runs}"));
        line(format!("        if it is yours, take the '# ' before it away in {}", report.config.display()));
    }
    for warning in &report.warnings {
        line(format!("\nwarning: {warning}"));
    }
    for (number, holder) in &report.other_keys {
        line(format!(
            "\nkey {number} of {holder} stays valid; of a host that is lost or stolen it should not: drctl key rotate --by RECOVERY --revoke {number}"
        ));
    }
    if dry {
        line("nothing was made (--dry-run)".into());
        return out;
    }
    line(format!("\nnext:   look through {}, then drctl config check, drctl list, drctl backup now", report.config.display()));
    out
}

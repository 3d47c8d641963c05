//! `drctl init`: look around, try what was found, make keys, repository, recovery file and a commented `drctl.yaml`.
//!
//! Nothing that exists is overwritten. What a failed init made is taken away again.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rand::RngExt as _;
use serde::Serialize;

use crate::catalog::env::Env;
use crate::catalog::keys::KeyFile;
use crate::catalog::repository::REPOSITORY_KEY;
use crate::catalog::single_writer::why_single_writer;
use crate::catalog::{RecoveryFile, Repository};
use crate::cli::args::InitArgs;
use crate::cli::init_preset::{self, PresetReport};
use crate::cli::{Shell, init_from};
use crate::config::discover::{Finding, Found, Look, discover};
use crate::config::environment::Environment;
use crate::config::load::load;
use crate::config::s3::is_s3_url;
use crate::config::secret::read_secret_file;
use crate::config::template::{self, Template};
use crate::config::typed::StorePlace;
use crate::error::{Context, Error, Kind, Result};
use crate::model::{JobName, Secret};
use crate::open::{self, sources, stores};
use crate::pipeline::seal::Identities;
use crate::store::local::LocalStore;
use crate::store::profile::Answer;
use crate::store::{DynStore, Store as _};

pub(super) const KEYS: &str = "drctl-keys";
const RECOVERY: &str = "drctl-recovery.txt";

/// What init made; the passphrase is shown once and kept nowhere.
#[derive(Serialize)]
struct InitReport {
    config: PathBuf,
    store: String,
    keys: PathBuf,
    recovery: PathBuf,
    repository: String,
    job: String,
    found: Vec<String>,
    /// Sources that were tried: name, and why it does not work yet, if it does not.
    tried: Vec<(String, Option<String>)>,
    warnings: Vec<String>,
    /// Ready-made jobs, and what they need.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    presets: Vec<PresetReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    passphrase: Option<String>,
}

struct Places {
    folder: PathBuf,
    config: PathBuf,
    store: StorePlace,
    keys: PathBuf,
    recovery: PathBuf,
}

/// Makes a configuration and a repository.
pub async fn run(shell: &Shell, args: InitArgs) -> Result<u8> {
    if let Some(from) = args.from.clone() {
        return init_from::run(shell, args, &from).await;
    }
    if args.preset.iter().any(|name| name == init_preset::LIST) {
        init_preset::list(shell.out);
        return Ok(0);
    }
    let environment = Environment::system();
    let config = environment.absolute(shell.global.config.as_deref().unwrap_or(Path::new("drctl.yaml")));
    let folder = config.parent().map_or_else(|| PathBuf::from("/"), Path::to_owned);
    let presets = init_preset::chosen(&args.preset, &folder, &environment)?;
    let places = Places {
        store: match open::repo_place(args.store.as_deref().unwrap_or(&folder.join("drctl-repository")))? {
            StorePlace::Local { path } => StorePlace::Local { path: environment.absolute(&path) },
            bucket => bucket,
        },
        keys: folder.join(KEYS),
        recovery: folder.join(RECOVERY),
        config,
        folder,
    };
    for taken in [&places.config, &places.keys, &places.recovery].into_iter().chain(presets.iter().map(|preset| &preset.file)) {
        if taken.symlink_metadata().is_ok() {
            return Err(Error::new(Kind::Preflight, format!("{} exists already: nothing was changed", taken.display()))
                .hint("drctl config check looks at what is there; init in another folder makes a second repository"));
        }
    }
    let job = match &args.job {
        Some(name) => name.parse::<JobName>().map_err(|e| e.with_kind(Kind::Usage))?,
        None => template::job_name(&places.folder),
    };
    // A preset says what there is.
    let findings = if presets.is_empty() { discover(&Look::at(&environment, &places.folder)?) } else { Vec::new() };
    let passphrase = args.passphrase_file.as_deref().map(read_secret_file).transpose()?;
    let made_up = passphrase.is_none();
    let passphrase = passphrase.unwrap_or_else(new_passphrase);

    if args.dry_run {
        shell.out.result("init", &dry(&places, &job, &findings, presets), |report| text(report, true));
        return Ok(0);
    }
    let mut undo = Undo::default();
    let made = make(shell, &places, &job, &findings, presets, &passphrase, &mut undo).await;
    let mut report = match made {
        Ok(report) => report,
        Err(error) => {
            undo.all().await;
            return Err(error.context("init").hint_or("nothing was left behind"));
        }
    };
    if made_up {
        report.passphrase = Some(passphrase.expose().to_owned());
    }
    shell.out.result("init", &report, |report| text(report, false));
    Ok(0)
}

fn dry(places: &Places, job: &JobName, findings: &[Finding], presets: Vec<PresetReport>) -> InitReport {
    InitReport {
        config: places.config.clone(),
        store: match &places.store {
            StorePlace::Local { path } => path.display().to_string(),
            StorePlace::S3(place) => place.url(),
        },
        keys: places.keys.clone(),
        recovery: places.recovery.clone(),
        repository: String::new(),
        job: if presets.is_empty() { job.to_string() } else { names(&presets).join(", ") },
        found: findings.iter().map(|f| f.sentence.clone()).collect(),
        tried: Vec::new(),
        warnings: Vec::new(),
        presets,
        passphrase: None,
    }
}

async fn make(
    shell: &Shell,
    places: &Places,
    job: &JobName,
    findings: &[Finding],
    presets: Vec<PresetReport>,
    passphrase: &Secret,
    undo: &mut Undo,
) -> Result<InitReport> {
    shell.bus.step("making keys");
    private_folder(&places.keys)?;
    undo.paths.push(places.keys.clone());
    let (identity, recipient) = Identities::generate();
    let identity_file = places.keys.join("identity.txt");
    let text = format!("# age identity of drctl: whoever has it can open every backup. public key: {recipient}\n{}\n", identity.expose());
    private_file(&identity_file, text.as_bytes())?;

    let (store, location, network): (DynStore, String, Option<&'static str>) = match &places.store {
        StorePlace::Local { path } => {
            if path.symlink_metadata().is_err() {
                undo.paths.push(path.clone());
            }
            let local = LocalStore::create(path)?;
            let network = local.network_filesystem()?;
            (Arc::new(local), path.display().to_string(), network)
        }
        StorePlace::S3(place) => {
            shell.bus.step(format!("trying {place}"));
            let store = stores::open_s3(&shell.around(), place, None).await?;
            // Told apart from a failure in the middle: nothing of a repository was made yet.
            store.server_date().await?;
            let found = store.try_out().await?;
            if found.ranges == Answer::No {
                let text = format!("{place} does not answer with the bytes asked for: nothing could be read back");
                return Err(Error::new(Kind::Preflight, text).hint("use another store; docs/s3.md names some"));
            }
            let store = stores::fitting(store, Some(&found));
            let url = store.url();
            (Arc::new(store), url, None)
        }
    };
    let host = stores::host();
    let bucket = matches!(places.store, StorePlace::S3(_));
    let made = Repository::init(store.clone(), Env::default(), &host).await;
    let new = made.map_err(|e| match (bucket, e.kind()) {
        (false, _) | (_, Kind::Exists) => e,
        // Whether what stands there now is ours cannot be told.
        _ => e.hint(format!("{REPOSITORY_KEY} may stand in {location} now: look, and take it away before you try again")),
    })?;
    if bucket {
        undo.objects = Some(store.clone());
    }
    let single = why_single_writer(&*store, network, None).await?;
    if single.is_some() {
        new.repository.make_single_writer(&new.root, &host).await?;
    }
    let signing_key = places.keys.join("signing.key");
    new.key.save(&signing_key)?;

    shell.bus.step("sealing the recovery file");
    let (repository, sealing) = (new.repository.clone(), passphrase.clone());
    let recovery = tokio::task::spawn_blocking(move || RecoveryFile::seal(&location, repository.id(), &new.root, &identity, &sealing));
    let recovery = recovery.await.map_err(|e| Error::failed("seal the recovery file").because(e))??;
    private_file(&places.recovery, recovery.to_text().as_bytes())?;
    undo.paths.push(places.recovery.clone());

    let written = template::write(&Template {
        folder: places.folder.clone(),
        store_name: "main".into(),
        store: places.store.clone(),
        id: new.repository.id().to_owned(),
        root_key: new.repository.root().as_str().to_owned(),
        recipients: vec![recipient.to_string()],
        identity: Some(identity_file),
        signing_key,
        job: job.clone(),
        findings: findings.to_vec(),
        paths: Vec::new(),
        presets: names(&presets),
        kept: None,
    });
    for (path, secret) in &written.secrets {
        if let Some(parent) = path.parent().filter(|parent| parent.symlink_metadata().is_err()) {
            private_folder(parent)?;
            undo.paths.push(parent.to_owned());
        }
        private_file(path, secret.expose().as_bytes())?;
        undo.paths.push(path.clone());
    }
    for preset in &presets {
        if let Some(parent) = preset.file.parent().filter(|parent| parent.symlink_metadata().is_err()) {
            private_folder(parent)?;
            undo.paths.push(parent.to_owned());
        }
        private_file(&preset.file, preset.text.as_bytes())?;
        undo.paths.push(preset.file.clone());
    }
    private_file(&places.config, written.text.as_bytes())?;
    undo.paths.push(places.config.clone());

    let mut report = dry(places, job, findings, presets);
    report.repository = new.repository.id().to_owned();
    match try_sources(shell, &places.config).await {
        Ok(tried) => report.tried = tried,
        // A variable is still to be set, and what was written is right all the same.
        Err(error) if !report.presets.is_empty() && error.kind() == Kind::Config => {
            report.warnings.push(format!("the configuration does not load yet: {error}"));
        }
        Err(error) => return Err(error),
    }
    if let StorePlace::Local { path } = &places.store {
        report.warnings.extend(same_disk(findings, path));
    }
    report.warnings.extend(single.map(|why| format!("only this host, '{host}', may write to the repository: {why}")));
    Ok(report)
}

fn names(presets: &[PresetReport]) -> Vec<String> {
    presets.iter().map(|preset| preset.name.to_owned()).collect()
}

/// Loads what was written and tries each source, so that the first backup holds no surprise.
async fn try_sources(shell: &Shell, config: &Path) -> Result<Vec<(String, Option<String>)>> {
    let config = load(&open::load_options(Some(config)))?;
    let mut tried = Vec::new();
    for source in config.jobs.iter().flat_map(|job| &job.sources) {
        shell.bus.step(format!("trying {}", source.name));
        let context = crate::source::RunContext {
            run: "init".into(),
            cancel: shell.cancel.clone(),
            bus: shell.bus.clone(),
            clock: Arc::new(crate::model::SystemClock),
        };
        let outcome = match sources::source(source) {
            Ok(made) => made.preflight(&context).await,
            Err(error) => Err(error),
        };
        let (what, why) = match outcome {
            Ok(found) => {
                found.warnings.iter().for_each(|warning| shell.bus.warn(format!("{}: {warning}", source.name)));
                let hint = |e: &crate::error::Error| e.hint_text().map(|h| format!("; {h}")).unwrap_or_default();
                let problems: Vec<String> = found.problems.iter().map(|e| format!("{e}{}", hint(e))).collect();
                let why = (!problems.is_empty()).then(|| problems.join("\n"));
                (format!("{}: {}", source.name, found.summary), why)
            }
            Err(error) => {
                let hint = error.hint_text().map(|h| format!("; {h}")).unwrap_or_default();
                (source.name.clone(), Some(format!("{error}{hint}")))
            }
        };
        tried.push((what, why));
    }
    Ok(tried)
}

/// A repository on the database's own disk dies with it.
fn same_disk(findings: &[Finding], store: &Path) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let local = findings.iter().any(|f| match &f.found {
        Found::Postgres(p) => p.host.as_deref().is_none_or(|h| h.starts_with('/') || h == "localhost" || h == "127.0.0.1"),
        _ => false,
    });
    let device = |path: &Path| std::fs::metadata(path).ok().map(|m| m.dev());
    let data = ["/var/lib/postgresql", "/var/lib/pgsql"].iter().find_map(|p| device(Path::new(p)))?;
    (local && device(store) == Some(data)).then(|| {
        "the repository lies on the database's own disk and dies with it. Better: take away what was made here and run\n         \
         drctl init --store FOLDER with a folder on another disk or machine"
            .to_owned()
    })
}

/// Eight groups of four letters and digits: 155 bits, easy to copy by hand.
fn new_passphrase() -> Secret {
    const ALPHABET: &[u8; 31] = b"23456789abcdefghjkmnpqrstuvwxyz";
    let mut rng = rand::rng();
    let groups: Vec<String> = (0..8).map(|_| (0..4).map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())])).collect()).collect();
    Secret::new(groups.join("-"))
}

pub(super) fn private_folder(path: &Path) -> Result<()> {
    std::fs::DirBuilder::new().mode(0o700).create(path).context(|| format!("make {}", path.display()))
}

/// Creates a file that only its owner can read; never overwrites one.
pub(super) fn private_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let what = || format!("write {}", path.display());
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).context(what)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).context(what)
}

/// What this run made.
#[derive(Default)]
struct Undo {
    paths: Vec<PathBuf>,
    /// A bucket in which this run made a repository.
    objects: Option<DynStore>,
}

impl Undo {
    async fn all(&self) {
        if let Some(store) = &self.objects {
            // The repository file last: while it stands the rest is not garbage. A user who may not delete leaves an empty repository.
            for key in [KeyFile::key(1).as_str(), REPOSITORY_KEY] {
                let _ = store.delete(key).await;
            }
        }
        for path in self.paths.iter().rev() {
            let _ = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
        }
    }
}

fn text(report: &InitReport, dry: bool) -> String {
    let mut out = String::new();
    let mut line = |text: String| {
        out.push_str(&text);
        out.push('\n');
    };
    if report.found.is_empty() && report.presets.is_empty() {
        line("nothing was found here: no PostgreSQL, no .env, no compose file; the configuration has an example to fill in".into());
    }
    for sentence in &report.found {
        line(format!("found   {sentence}"));
    }
    for (what, why) in &report.tried {
        line(match why {
            None => format!("works   {what}"),
            Some(why) => format!("FAILS   {what}: {why}"),
        });
    }
    let verb = if dry { "would make" } else { "made" };
    let config =
        if report.presets.is_empty() { format!("the configuration of job '{}'", report.job) } else { "the configuration".to_owned() };
    let mut made = vec![
        (report.config.display().to_string(), config),
        (
            if is_s3_url(&report.store) { report.store.clone() } else { format!("{}/", report.store) },
            "the repository: backup sets and their log".to_owned(),
        ),
        (format!("{}/", report.keys.display()), "the keys of this host".to_owned()),
        (report.recovery.display().to_string(), "the recovery file".to_owned()),
    ];
    made.splice(1..1, report.presets.iter().map(|preset| (preset.file.display().to_string(), format!("job '{}'", preset.name))));
    let width = made.iter().map(|(path, _)| path.chars().count()).max().unwrap_or(0);
    line(String::new());
    for (path, what) in made {
        line(format!("{verb}  {path:width$}  {what}"));
    }
    if !report.presets.is_empty() {
        line(init_preset::text(&report.presets).trim_end().to_owned());
    }
    for warning in &report.warnings {
        line(format!("\nwarning: {warning}"));
    }
    if dry {
        line("nothing was made (--dry-run)".into());
        return out;
    }
    if let Some(passphrase) = &report.passphrase {
        line(format!("\nPassphrase of the recovery file, shown only now:\n\n    {passphrase}\n"));
        line("Without this host, the recovery file and its passphrase are the ONLY way into your backups.".into());
    } else {
        line("\nWithout this host, the recovery file and its passphrase are the ONLY way into your backups.".into());
    }
    line("Print both, or put both into a password manager, away from this machine.".into());
    let missing = init_preset::missing(&report.presets);
    line(if !missing.is_empty() {
        format!("\nnext:   set {} where drctl runs, then drctl config check, then drctl backup now, then drctl agent", missing.join(", "))
    } else if !report.presets.is_empty() {
        "\nnext:   drctl config check, then drctl backup now; once it worked, drctl doctor, and drctl agent for every night".to_owned()
    } else if report.found.is_empty() {
        format!("\nnext:   fill in the example in {}, then drctl config check, then drctl backup now", report.config.display())
    } else {
        "\nnext:   drctl backup now; once it worked, drctl doctor, and drctl agent for every night".into()
    });
    out
}

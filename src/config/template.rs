//! The commented `drctl.yaml` that `init` writes. What is written loads again without a finding.

use std::path::{Path, PathBuf};

use crate::config::discover::{Finding, Found, FoundPostgres};
use crate::config::find::JOBS;
use crate::config::kept::KeptJob;
use crate::config::s3::S3Place;
use crate::config::show::scalar;
use crate::config::typed::StorePlace;
use crate::model::{JobName, Secret};

/// What goes into the file.
#[derive(Clone, Debug)]
pub struct Template {
    /// The folder the file will lie in; what lies below it is written relative to it.
    pub folder: PathBuf,
    /// The first store's name.
    pub store_name: String,
    /// The first store.
    pub store: StorePlace,
    /// The repository's id.
    pub id: String,
    /// The root public key.
    pub root_key: String,
    /// Public keys of those who can open sets; none means that nothing is encrypted, by explicit choice.
    pub recipients: Vec<String>,
    /// The identity's file.
    pub identity: Option<PathBuf>,
    /// The signing key's file.
    pub signing_key: PathBuf,
    /// The job's name.
    pub job: JobName,
    /// What was found.
    pub findings: Vec<Finding>,
    /// Folders to back up as files.
    pub paths: Vec<PathBuf>,
    /// Jobs that stand in files of their own beside it, by name; they stand for job, findings and folders.
    pub presets: Vec<String>,
    /// Jobs of a configuration that a backup set kept; they stand for job, findings and folders.
    pub kept: Option<KeptJobs>,
}

/// Jobs of a configuration that a backup set kept.
#[derive(Clone, Debug)]
pub struct KeptJobs {
    /// Which set, for people.
    pub origin: String,
    /// Each with why it does not work on this machine as it stands, if it does not: it is written down then, and not in effect.
    pub jobs: Vec<(KeptJob, Option<String>)>,
}

/// The file's text, and the secrets it refers to.
#[derive(Clone, Debug)]
pub struct Written {
    /// `drctl.yaml`. It holds no secret.
    pub text: String,
    /// Files to write beside it with mode 0600, absolute.
    pub secrets: Vec<(PathBuf, Secret)>,
}

/// A job's name made from a folder's: `/srv/My App` becomes `my-app`.
pub fn job_name(folder: &Path) -> JobName {
    let name = folder.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let mut made = String::new();
    for c in name.chars() {
        match c {
            'a'..='z' | '0'..='9' => made.push(c),
            _ if made.is_empty() || made.ends_with('-') => {}
            _ => made.push('-'),
        }
    }
    made.truncate(63);
    const FALLBACK: &str = "main";
    let made = made.trim_end_matches('-');
    made.parse().or_else(|_| FALLBACK.parse()).unwrap_or_else(|_| unreachable!("'{FALLBACK}' is a job's name"))
}

/// Writes the file.
pub fn write(template: &Template) -> Written {
    let mut out = Writer { template, text: String::new(), secrets: Vec::new() };
    out.head();
    out.repository();
    match &template.kept {
        Some(kept) => out.kept(kept),
        None => out.job(),
    }
    Written { text: out.text, secrets: out.secrets }
}

struct Writer<'a> {
    template: &'a Template,
    text: String,
    secrets: Vec<(PathBuf, Secret)>,
}

impl Writer<'_> {
    fn line(&mut self, text: &str) {
        self.text.push_str(text);
        self.text.push('\n');
    }

    /// A path as it stands in the file.
    fn path(&self, path: &Path) -> String {
        let shown = path.strip_prefix(&self.template.folder).ok().filter(|p| !p.as_os_str().is_empty()).unwrap_or(path);
        value(&shown.to_string_lossy())
    }

    fn head(&mut self) {
        self.line("# What drctl backs up, where to, and how long it is kept.");
        self.line("#   drctl config check     says whether this file is right");
        self.line("#   drctl config show      the settings in effect, and where each comes from");
        self.line("#   drctl config schema    every setting there is");
        self.line("# Variables are put in as ${NAME} or ${NAME:-default}. A secret is fetched when it is used: { env: NAME },");
        self.line("# { file: PATH } (mode 0600), { cmd: [program, argument] } or { cred: NAME } (systemd).");
        self.line("");
    }

    fn repository(&mut self) {
        let template = self.template;
        self.line("repository:");
        self.line("  # Made by drctl init; the recovery file has both. They tell this repository from any other.");
        self.line(&format!("  id: {}", value(&template.id)));
        self.line(&format!("  root_key: {}", value(&template.root_key)));
        self.line("  # The first store holds the log. Keep it on another disk than the data, best on another machine.");
        self.line("  stores:");
        self.line(&format!("    - name: {}", value(&template.store_name)));
        match &template.store {
            StorePlace::Local { path } => {
                let store = self.path(path);
                self.line(&format!("      local: {{ path: {store} }}"));
            }
            StorePlace::S3(place) => self.s3(place),
        }
        self.line("    # A second copy of every set and of the log, on yet another disk; with optional: true a backup goes on without it:");
        self.line("    # - name: copy");
        self.line("    #   local: { path: /mnt/another-disk/drctl }");
        if template.recipients.is_empty() {
            self.line("  # Backup sets are not encrypted, by explicit choice.");
            self.line("  encryption: none");
        } else {
            self.line("  # Public keys of those who can open backup sets.");
            self.line("  recipients:");
            for recipient in &template.recipients {
                self.line(&format!("    - {}", value(recipient)));
            }
        }
        if let Some(identity) = &template.identity {
            self.line("  # The private key that opens them. Without a copy elsewhere (the recovery file) the backups die with this disk.");
            let identity = self.path(identity);
            self.line(&format!("  identity: {identity}"));
        }
        self.line("  # The private key that signs what this host writes.");
        let signing_key = self.path(&template.signing_key);
        self.line(&format!("  signing_key: {signing_key}"));
        self.line("  # codec: { zstd: 1 }     # or gzip, none");
        self.line("  # decode_check: true     # decompress and compare every frame before it is stored");
        self.line("");
    }

    fn s3(&mut self, place: &S3Place) {
        self.line("      s3:");
        let mut entry = |key: &str, text: Option<String>| {
            if let Some(text) = text {
                self.line(&format!("        {key}: {text}"));
            }
        };
        let quoted = |text: &Option<String>| text.as_deref().map(value);
        entry("bucket", Some(value(&place.bucket)));
        entry("prefix", Some(value(&place.prefix)).filter(|_| !place.prefix.is_empty()));
        entry("region", quoted(&place.region));
        entry("endpoint", quoted(&place.endpoint));
        entry("provider", place.provider.map(|p| p.name().to_owned()));
        entry("path_style", place.path_style.map(|p| p.to_string()));
        entry("profile", quoted(&place.profile));
        entry("ca_file", place.ca_file.as_ref().map(|p| value(&p.to_string_lossy())));
        self.line("        # Keys come from AWS_* variables, the profile, or the machine's role; or name them here:");
        self.line("        # access_key: { env: DRCTL_S3_ACCESS_KEY }");
        self.line("        # secret_key: { file: drctl-keys/s3-secret }");
        self.line("        # bandwidth: 20MiB    # a second, at most");
    }

    fn job(&mut self) {
        let template = self.template;
        if !template.presets.is_empty() {
            let files: Vec<String> = template.presets.iter().map(|name| format!("{JOBS}/{name}.yaml")).collect();
            self.line(&format!("# Jobs stand in files of their own, one in each: {}.", files.join(", ")));
            return;
        }
        let any = template.findings.iter().any(|f| matches!(f.found, Found::Postgres(_) | Found::EnvFile(_) | Found::Compose(_)));
        if !any && template.paths.is_empty() {
            self.notes("");
            self.line("# Nothing to back up was found. Fill this in and take the '#' away:");
            self.line("# jobs:");
            self.line(&format!("#   - job: {}", template.job));
            self.line("#     sources:");
            self.line("#       - postgres: { host: 127.0.0.1, user: postgres, database: all, password: { env: PGPASSWORD } }");
            self.line("#       - files: { paths: [/data/uploads], exclude: [\"*.tmp\"] }");
            return;
        }
        self.line("jobs:");
        self.line(&format!("  - job: {}", value(template.job.as_str())));
        self.line("    # timezone: Europe/Berlin     # default: this machine's");
        self.line("    sources:");
        for finding in &template.findings {
            match &finding.found {
                Found::Postgres(found) => {
                    self.comment("      ", &finding.sentence);
                    self.postgres(found);
                }
                Found::EnvFile(name) => {
                    self.comment("      ", &finding.sentence);
                    self.line("      - environment:");
                    self.line(&format!("          from: {{ file: {} }}", value(name)));
                    self.plaintext();
                }
                Found::Compose(names) => {
                    self.comment("      ", &finding.sentence);
                    self.line("      - compose:");
                    let names: Vec<String> = names.iter().map(|n| value(n)).collect();
                    self.line(&format!("          files: [{}]", names.join(", ")));
                    self.plaintext();
                }
                Found::Later { .. } | Found::Note => {}
            }
        }
        if !template.paths.is_empty() {
            self.line("      - files:");
            let paths: Vec<String> = template.paths.iter().map(|p| self.path(p)).collect();
            self.line(&format!("          paths: [{}]", paths.join(", ")));
            self.line("          # exclude: [\"*.tmp\", \"cache\"]     # names at any depth, paths below, or whole paths");
        }
        self.notes("      ");
        self.line("    # By drctl agent. Add prune: \"0 7 * * *\" once drctl prune shows that it would delete what you mean.");
        self.line("    schedule: { full: \"0 2 * * *\", verify: \"0 6 * * *\" }");
        self.line("    # By drctl prune. A set stays when any rule wants it.");
        self.line("    retention: { keep_within: 30d, keep_monthly: 12, keep_min_verified: 3 }");
        self.line("    # objectives: { rpo: 24h, rto: 1h }");
    }

    fn kept(&mut self, kept: &KeptJobs) {
        self.comment(
            "",
            &format!(
                "From the configuration that {} was made with. Look at every path and address: they are those of that machine.",
                kept.origin
            ),
        );
        let works = kept.jobs.iter().any(|(_, problem)| problem.is_none());
        self.line(if works { "jobs:" } else { "# jobs:" });
        for (job, problem) in &kept.jobs {
            if let Some(problem) = problem {
                self.comment("  ", &format!("Job {} is not in effect, mend it and take the '#' away: {problem}", job.name));
            }
            for line in job.text.lines() {
                match problem {
                    Some(_) => self.line(&format!("  # {}", line.strip_prefix("  ").unwrap_or(line))),
                    None => self.line(line),
                }
            }
        }
    }

    /// What was found and is not backed up.
    fn notes(&mut self, margin: &str) {
        for finding in &self.template.findings {
            if matches!(finding.found, Found::Later { .. } | Found::Note) {
                self.comment(margin, &format!("Not in this file: {}", finding.sentence));
            }
        }
    }

    /// One line whatever the text holds.
    fn comment(&mut self, margin: &str, text: &str) {
        let text: String =
            text.chars().map(|c| if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}') { ' ' } else { c }).collect();
        self.line(&format!("{margin}# {text}"));
    }

    fn plaintext(&mut self) {
        if self.template.recipients.is_empty() {
            self.line("          allow_plaintext: true");
        }
    }

    fn postgres(&mut self, found: &FoundPostgres) {
        self.line("      - postgres:");
        if found.name != "postgres" {
            self.line(&format!("          name: {}", value(&found.name)));
        }
        if let Some(service) = &found.docker {
            self.line(&format!("          reach: {{ docker: {} }}", value(service)));
        }
        if let Some(variable) = &found.url_env {
            self.line(&format!("          url: {{ env: {} }}", value(variable)));
        } else {
            for (key, text) in [("host", &found.host), ("user", &found.user)] {
                if let Some(text) = text {
                    self.line(&format!("          {key}: {}", value(text)));
                }
            }
            if let Some(port) = found.port {
                self.line(&format!("          port: {port}"));
            }
        }
        match &found.database {
            // The list form: a database may be called 'all'.
            Some(name) => self.line(&format!("          database: [{}]     # or all", value(name))),
            None => self.line("          database: all"),
        }
        if found.url_env.is_none() {
            if let Some(variable) = &found.password_env {
                self.line(&format!("          password: {{ env: {} }}", value(variable)));
            } else if let Some(password) = &found.password {
                let file = self.template.folder.join("secrets").join(format!("{}.password", found.name));
                let shown = self.path(&file);
                self.line(&format!("          password: {{ file: {shown} }}"));
                self.secrets.push((file, password.clone()));
            }
        }
        self.plaintext();
    }
}

/// Text as a scalar of the file: quoted where needed, `${` kept as it is.
fn value(text: &str) -> String {
    scalar(&text.replace("${", "$${"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn job_names_from_folders() {
        for (folder, name) in [
            ("/srv/shop", "shop"),
            ("/srv/My App_2", "my-app-2"),
            ("/", "main"),
            ("/srv/now", "main"),
            ("/srv/--x--", "x"),
            ("/srv/日本", "main"),
            (&format!("/srv/{}", "a".repeat(99)), &"a".repeat(63)),
        ] {
            assert_eq!(job_name(Path::new(folder)).as_str(), name, "{folder}");
        }
    }
}

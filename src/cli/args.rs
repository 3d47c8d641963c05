//! The command line: what can be typed. Parsing only; every verb's work is in its own file.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Backs up databases, files and configuration as one restore point, proves it, and leads you back.
#[derive(Parser, Debug)]
#[command(
    name = "drctl",
    version,
    long_about = None,
    max_term_width = 100,
    disable_help_subcommand = true,
    after_help = "Start:   drctl init, then drctl backup now\n\
                  3 a.m.:  drctl restore --date latest --dry-run    shows what would happen, changes nothing\n\
                  Exit:    0 ok, 1 failed, 2 usage or configuration, 3 partial, 4 refused: nothing changed,\n         \
                  5 verification failed, 6 no such set, 7 locked, 8 unreachable, 9 stale, 130/143 signal"
)]
pub struct Cli {
    /// What all verbs take.
    #[command(flatten)]
    pub global: Global,
    /// The verb.
    #[command(subcommand)]
    pub verb: Verb,
}

/// Apart from the options of the verb itself.
const GLOBAL: &str = "Options of every command";

/// Options of every verb.
#[derive(Args, Debug, Clone)]
pub struct Global {
    /// Configuration file [default: ./drctl.yaml, then the user's, then /etc/drctl/drctl.yaml]
    #[arg(short, long, global = true, help_heading = GLOBAL, env = "DRCTL_CONFIG", value_name = "FILE", hide_env = true)]
    pub config: Option<PathBuf>,
    /// Print the result as JSON on standard output
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub json: bool,
    /// Say less: results and errors only
    #[arg(short, long, global = true, help_heading = GLOBAL, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Say more
    #[arg(short, long, global = true, help_heading = GLOBAL, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// No colours, whatever the terminal
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub no_color: bool,
    /// Work on this repository without a configuration (for reading verbs; with --recovery)
    #[arg(long, global = true, help_heading = GLOBAL, value_name = "FOLDER|URL", hide_short_help = true)]
    pub repo: Option<PathBuf>,
    /// Recovery file that opens the repository; its passphrase is asked for, or taken from DRCTL_PASSPHRASE_FILE
    #[arg(long, global = true, help_heading = GLOBAL, value_name = "FILE", hide_short_help = true)]
    pub recovery: Option<PathBuf>,
}

/// The verbs.
#[derive(Subcommand, Debug)]
pub enum Verb {
    /// Look around, make a configuration, a repository and keys
    Init(InitArgs),
    /// Back up every source of the job as one set
    Backup(BackupArgs),
    /// List backup sets
    List(ListArgs),
    /// Show one set in full
    Show(ShowArgs),
    /// Where every job stands: newest good set, what would be lost now
    Status(StatusArgs),
    /// What runs when: the next five of each entry
    Schedule(ScheduleArgs),
    /// Check that stored sets are what was written; the proof goes into the log
    Verify(VerifyArgs),
    /// Get data back: plan, load beside, count, switch; undo or finish
    Restore(RestoreArgs),
    /// Show which sets retention keeps and which may go, and why; with --apply delete these
    Prune(PruneArgs),
    /// Keep a set until a date, whatever retention says
    Pin(PinArgs),
    /// End the pins of a set
    Unpin(UnpinArgs),
    /// Keep a set while somebody reads it by other means than drctl
    Hold(HoldArgs),
    /// Write an artifact's plain bytes to standard output
    Cat(CatArgs),
    /// What changed between two sets
    Diff(DiffArgs),
    /// Look at all that a backup and a restore will need; say what mends what is wrong
    Doctor,
    /// Try the recovery file; list, add and rotate signing keys
    Key(KeyArgs),
    /// Try whether alarms arrive where they should
    Notify(NotifyArgs),
    /// Take a job's lease away from a run that is gone
    Unlock(UnlockArgs),
    /// Say who may write, and which store holds the log, when a host or a disk is gone
    Repository(RepositoryArgs),
    /// Print what a database or a bucket must allow drctl to do, ready to be pasted
    Grants(GrantsArgs),
    /// Who changed what on this host; check that nothing was taken out of that log
    Audit(AuditArgs),
    /// Check, show or describe the configuration
    Config(ConfigArgs),
    /// Run every job by its schedule, for as long as the machine runs; tell of everything that goes wrong
    Agent,
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man {
        /// Write one page per verb into this folder instead
        #[arg(long, value_name = "FOLDER")]
        out: Option<PathBuf>,
    },
}

/// `drctl init`.
#[derive(Args, Debug)]
pub struct InitArgs {
    /// Folder or bucket (s3://bucket/prefix) for the repository [default: ./drctl-repository]
    #[arg(long, value_name = "FOLDER|URL")]
    pub store: Option<PathBuf>,
    /// Name of the job [default: the folder's name]
    #[arg(long, value_name = "NAME")]
    pub job: Option<String>,
    /// Take a ready-made job instead of what is found, as jobs/NAME.yaml; `list` shows them; may be repeated
    #[arg(long, value_name = "NAME", conflicts_with = "job")]
    pub preset: Vec<String>,
    /// Make this machine one of an existing repository, which --recovery opens: configuration from its newest set, a new signing key
    #[arg(long, value_name = "FOLDER|URL", conflicts_with_all = ["store", "job", "preset"])]
    pub from: Option<PathBuf>,
    /// With --from: what the new signing key may do; may be repeated [default: all-in-one]
    #[arg(long, value_enum, value_name = "ROLE", requires = "from")]
    pub role: Vec<RoleArg>,
    /// With --from: number of a key that the new one takes the place of, that of a lost host; may be repeated
    #[arg(long, value_name = "NUMBER", requires = "from")]
    pub revoke: Vec<u64>,
    /// File with the passphrase for the recovery file; without it one is made and printed, or with --from asked for
    #[arg(long, value_name = "FILE", env = "DRCTL_PASSPHRASE_FILE", hide_env = true)]
    pub passphrase_file: Option<PathBuf>,
    /// Show what would be made, make nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `drctl backup [now] [JOB…]`.
#[derive(Args, Debug)]
pub struct BackupArgs {
    /// Jobs to run [default: all]; the word `now` may stand first
    #[arg(value_name = "JOB")]
    pub jobs: Vec<String>,
    /// Only this source; may be repeated
    #[arg(long, value_name = "SOURCE")]
    pub source: Vec<String>,
    /// This source is another server than before, and that is meant (rebuilt, moved, upgraded); may be repeated
    #[arg(long, value_name = "SOURCE")]
    pub accept_new_identity: Vec<String>,
    /// This source may have lost much since the sets before (dropped, emptied, moved), and that is meant; may be repeated
    #[arg(long, value_name = "SOURCE")]
    pub accept_smaller: Vec<String>,
    /// This bucket does otherwise than before (versioning, lock, permissions), and that is meant; may be repeated
    #[arg(long, value_name = "STORE")]
    pub accept_changed_store: Vec<String>,
    /// Verify the set afterwards up to this grade
    #[arg(long, value_name = "GRADE", value_enum)]
    pub verify: Option<GradeArg>,
    /// Make it an archive: only the monthly and yearly rules of retention end it
    #[arg(long)]
    pub archive: bool,
    /// Keep the set so long, whatever retention says: 14d, 6w
    #[arg(long, value_name = "TIME", requires = "reason")]
    pub pin: Option<String>,
    /// Why it is pinned, for whoever finds it
    #[arg(long, value_name = "TEXT", requires = "pin")]
    pub reason: Option<String>,
    /// Check every source and the store, back up nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Grades that can be asked for.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum GradeArg {
    /// Every object is in the store at its size and checksum
    Uploaded,
    /// Every byte is read, decrypted, decompressed, hashed, walked to its format's end and counted
    ReadBack,
}

/// Where sets are read from.
#[derive(Args, Debug, Default, Clone)]
pub struct FromStore {
    /// Read from this store of the configuration [default: the first]
    #[arg(long, value_name = "NAME")]
    pub store: Option<String>,
}

/// `drctl list`.
#[derive(Args, Debug)]
pub struct ListArgs {
    /// Only this job
    #[arg(long, value_name = "NAME")]
    pub job: Option<String>,
    /// Which copy is read.
    #[command(flatten)]
    pub from_store: FromStore,
}

/// `drctl schedule`.
#[derive(Args, Debug)]
pub struct ScheduleArgs {
    /// Only this job
    #[arg(long, value_name = "NAME")]
    pub job: Option<String>,
}

/// `drctl show SET`.
#[derive(Args, Debug)]
pub struct ShowArgs {
    /// A set's id, or a date (20250101, 2025-01-01, RFC 3339, latest, "2 hours ago")
    pub set: String,
    /// The job, where a date is given and there is more than one
    #[arg(long, value_name = "NAME")]
    pub job: Option<String>,
    /// Read all of it and say what of it is whole, with the commands that save it
    #[arg(long)]
    pub rescue: bool,
    /// Which copy is read.
    #[command(flatten)]
    pub from_store: FromStore,
}

/// `drctl status`.
#[derive(Args, Debug)]
pub struct StatusArgs {
    /// Only this job
    #[arg(long, value_name = "NAME")]
    pub job: Option<String>,
    /// Exit 9 when the newest good set of a job is older than this (2h, 1d12h)
    #[arg(long, value_name = "AGE")]
    pub max_age: Option<String>,
    /// For Nagios and alike: one line, exit 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN. Critical is --max-age, else the job's objectives.rpo;
    /// a warning comes from 80 % of it
    #[arg(long)]
    pub nagios: bool,
}

/// `drctl verify [SET]`.
#[derive(Args, Debug)]
pub struct VerifyArgs {
    /// A set's id, or a date [default: the newest good set]
    pub set: Option<String>,
    /// Every live set
    #[arg(long, conflicts_with = "set")]
    pub all: bool,
    /// Only this job
    #[arg(long, value_name = "NAME")]
    pub job: Option<String>,
    /// How thorough
    #[arg(long, value_enum, default_value = "read-back")]
    pub grade: GradeArg,
    /// Which copy is read.
    #[command(flatten)]
    pub from_store: FromStore,
}

/// `drctl prune`.
#[derive(Args, Debug)]
pub struct PruneArgs {
    /// Only this job
    #[arg(long, value_name = "NAME")]
    pub job: Option<String>,
    /// Delete what may go; without it the plan is shown and nothing is changed
    #[arg(long)]
    pub apply: bool,
    /// The clock of this host is right, and that the newest backup is long ago or in the future is known
    #[arg(long)]
    pub confirm_clock: bool,
    /// Days with more sets than the schedule explains are as they should be: count them like other days
    #[arg(long)]
    pub accept_surplus: bool,
    /// Give up what the configuration no longer has of this job: all sets of the job or of a group, and what they hold of a source
    #[arg(long, requires = "job")]
    pub abandoned: bool,
}

/// `drctl pin SET`.
#[derive(Args, Debug)]
pub struct PinArgs {
    /// A set's id, or a date
    pub set: String,
    /// How long from now: 14d, 6w
    #[arg(long = "for", value_name = "TIME", required_unless_present = "until")]
    pub length: Option<String>,
    /// Until the end of this day (2025-12-31), or an instant (RFC 3339)
    #[arg(long, value_name = "DATE", conflicts_with = "length")]
    pub until: Option<String>,
    /// Why, for whoever finds it
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
    /// The job, where a date is given and there is more than one
    #[arg(long, value_name = "NAME")]
    pub job: Option<String>,
}

/// `drctl unpin SET`.
#[derive(Args, Debug)]
pub struct UnpinArgs {
    /// A set's id, or a date
    pub set: String,
    /// The job, where a date is given and there is more than one
    #[arg(long, value_name = "NAME")]
    pub job: Option<String>,
}

/// `drctl hold SET`.
#[derive(Args, Debug)]
pub struct HoldArgs {
    /// A set's id, or a date
    pub set: String,
    /// How long from now at most
    #[arg(long = "for", value_name = "TIME", default_value = "1d", conflicts_with = "release")]
    pub length: String,
    /// End this hold
    #[arg(long, value_name = "HOLD")]
    pub release: Option<String>,
    /// The job, where a date is given and there is more than one
    #[arg(long, value_name = "NAME")]
    pub job: Option<String>,
}

/// `drctl restore`.
#[derive(Args, Debug)]
pub struct RestoreArgs {
    /// A set's id (or use --date)
    #[arg(conflicts_with_all = ["date", "undo", "finish", "forget"])]
    pub set: Option<String>,
    /// Last good set of a day (20250101, 2025-01-01) or at an instant (RFC 3339, latest, "2 hours ago")
    #[arg(long, value_name = "DATE", conflicts_with_all = ["undo", "finish", "forget"])]
    pub date: Option<String>,
    /// The job, where there is more than one
    #[arg(long, value_name = "NAME")]
    pub job: Option<String>,
    /// Only this source; may be repeated [default: databases and files]
    #[arg(long, value_name = "SOURCE")]
    pub source: Vec<String>,
    /// Leave out this artifact, as drctl show names it (postgres.globals, or its file); may be repeated
    #[arg(long, value_name = "ARTIFACT", conflicts_with_all = ["undo", "finish"])]
    pub without: Vec<String>,
    /// Into another place: postgres://user@host/database for a database, a new folder for files
    #[arg(long, value_name = "URL")]
    pub target: Option<String>,
    /// Load over the live data (a safety set is made first) instead of beside it
    #[arg(long, conflicts_with = "target")]
    pub in_place: bool,
    /// With --in-place: make no safety set first
    #[arg(long, requires = "in_place")]
    pub no_safety_set: bool,
    /// Load databases under their live names, what is live put aside first: for what is bound to its database's name (pg_cron). They are out
    /// of use while the restore loads, and come back by themselves if it fails
    #[arg(long, conflicts_with = "in_place")]
    pub exchange_first: bool,
    /// Switch although up to N objects could not be loaded, without asking; every row must be there all the same (exit 3). With --in-place
    /// nothing is dropped for more than N; what only the rows show, when what was live is gone, is taken whatever N says
    #[arg(long, value_name = "N")]
    pub accept_load_errors: Option<usize>,
    /// Show the plan, change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Do it without asking, here and with --undo, --finish and --forget
    #[arg(short, long)]
    pub yes: bool,
    /// Put back what a restore replaced [default: the newest one]
    #[arg(long, value_name = "RESTORE", num_args = 0..=1, default_missing_value = "", conflicts_with = "finish")]
    pub undo: Option<String>,
    /// Drop what a restore kept aside [default: the newest one]
    #[arg(long, value_name = "RESTORE", num_args = 0..=1, default_missing_value = "")]
    pub finish: Option<String>,
    /// Give up an interrupted restore whose place is gone: nothing is touched, and it is told no more
    #[arg(long, value_name = "RESTORE", conflicts_with_all = ["undo", "finish"])]
    pub forget: Option<String>,
    /// Which copy is read.
    #[command(flatten)]
    pub from_store: FromStore,
}

/// `drctl cat SET ARTIFACT`.
#[derive(Args, Debug)]
pub struct CatArgs {
    /// A set's id, or a date
    pub set: String,
    /// The artifact: its file name, its true name, or its source's name where that has one artifact
    pub artifact: String,
    /// One file out of an archive
    #[arg(long, value_name = "PATH")]
    pub path: Option<String>,
    /// The job, where a date is given and there is more than one
    #[arg(long, value_name = "NAME")]
    pub job: Option<String>,
    /// Which copy is read.
    #[command(flatten)]
    pub from_store: FromStore,
}

/// `drctl diff SET SET`.
#[derive(Args, Debug)]
pub struct DiffArgs {
    /// The earlier set: an id or a date
    pub from: String,
    /// The later set: an id or a date
    pub to: String,
    /// The job, where dates are given and there is more than one
    #[arg(long, value_name = "NAME")]
    pub job: Option<String>,
    /// Which copy is read.
    #[command(flatten)]
    pub from_store: FromStore,
}

/// `drctl audit`.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct AuditArgs {
    /// What else to do
    #[command(subcommand)]
    pub verb: Option<AuditVerb>,
    /// Only this job
    #[arg(long, value_name = "NAME")]
    pub job: Option<String>,
    /// The newest so many entries
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    pub last: u32,
}

/// What can be done with the audit log.
#[derive(Subcommand, Debug)]
pub enum AuditVerb {
    /// Walk the chain of hashes: name the first entry that does not fit (exit 5), and print the head, to be noted elsewhere
    Verify {
        /// A head noted earlier; it must be in the chain, else its end was cut off or all of it written anew
        #[arg(long, value_name = "NUMBER:HASH")]
        head: Option<String>,
    },
}

/// `drctl config …`.
#[derive(Args, Debug)]
pub struct ConfigArgs {
    /// What to do
    #[command(subcommand)]
    pub verb: ConfigVerb,
}

/// What can be done with the configuration.
#[derive(Subcommand, Debug, Clone, PartialEq, Eq)]
pub enum ConfigVerb {
    /// List every mistake with its line
    Check,
    /// Print the effective configuration, secrets left out
    Show,
    /// Print the JSON Schema, for editors
    Schema {
        /// Of a file in jobs/ instead of drctl.yaml
        #[arg(long)]
        job: bool,
    },
    /// List the last good configurations that the agent had in use
    History,
    /// Put the files of an earlier good configuration back; what stands there is laid aside
    Rollback {
        /// Which, by its name in the history or the end of it [default: the newest that is not what stands there]
        name: Option<String>,
    },
}

/// `drctl key …`.
#[derive(Args, Debug)]
pub struct KeyArgs {
    /// What to do
    #[command(subcommand)]
    pub verb: KeyVerb,
}

/// What can be done with keys.
#[derive(Subcommand, Debug)]
pub enum KeyVerb {
    /// Open the newest set of each job with nothing but the recovery file; `status` asks for it until it worked
    Confirm {
        /// The recovery file, fetched from where it is kept; its passphrase is asked for, or taken from DRCTL_PASSPHRASE_FILE
        file: PathBuf,
    },
    /// The signing keys of the repository: what each may do, and where
    List,
    /// Make a signing key for another machine, with fewer roles
    Add {
        /// What it may do; may be repeated
        #[arg(long, value_enum, value_name = "ROLE", required = true)]
        role: Vec<RoleArg>,
        /// Who will have it, for people
        #[arg(long, value_name = "NAME")]
        holder: String,
        /// Where to write the secret; carry it to that machine and delete it here
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// The recovery file: it holds the root key that signs for others
        #[arg(long, value_name = "FILE")]
        by: PathBuf,
        /// Number of a key that it takes the place of; may be repeated
        #[arg(long, value_name = "NUMBER")]
        revoke: Vec<u64>,
    },
    /// Replace this host's signing key and revoke the old one; or, with --identity, the age identity that opens sets
    Rotate {
        /// Rotate the age identity instead: new sets are sealed for a new one, old sets stay open to the old one. Makes a new recovery file
        #[arg(long, conflicts_with_all = ["role", "revoke"])]
        identity: bool,
        /// With --identity: the new recovery file [default: beside the old one, numbered]
        #[arg(long, value_name = "FILE", requires = "identity")]
        out: Option<PathBuf>,
        /// What the new one may do [default: what the old one may]; may be repeated
        #[arg(long, value_enum, value_name = "ROLE")]
        role: Vec<RoleArg>,
        /// The recovery file: it holds the root key that signs for others
        #[arg(long, value_name = "FILE")]
        by: PathBuf,
        /// Number of a further key that it takes the place of, that of a lost host; may be repeated
        #[arg(long, value_name = "NUMBER")]
        revoke: Vec<u64>,
    },
}

/// What a key may do.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoleArg {
    /// Makes sets
    Writer,
    /// Verifies and drills
    Prover,
    /// Deletes what retention gave up
    Pruner,
    /// Reads sets to restore them
    Restorer,
    /// All of these
    AllInOne,
}

/// `drctl notify …`.
#[derive(Args, Debug)]
pub struct NotifyArgs {
    /// What to do
    #[command(subcommand)]
    pub verb: NotifyVerb,
}

/// What can be done with notifiers.
#[derive(Subcommand, Debug)]
pub enum NotifyVerb {
    /// Send a test message through every notifier of the configuration; say what each could and could not do
    Test {
        /// Only this one
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
    },
}

/// `drctl unlock JOB`.
#[derive(Args, Debug)]
pub struct UnlockArgs {
    /// The job
    pub job: String,
    /// Do it without asking
    #[arg(short, long)]
    pub yes: bool,
}

/// `drctl repository …`.
#[derive(Args, Debug)]
pub struct RepositoryArgs {
    /// What to do
    #[command(subcommand)]
    pub verb: RepositoryVerb,
}

/// What can be done with a repository as a whole.
#[derive(Subcommand, Debug)]
pub enum RepositoryVerb {
    /// Make this host the single writer, or a copy the first store
    #[command(group(clap::ArgGroup::new("what").required(true).args(["by", "store"])))]
    Adopt {
        /// This host becomes the one that may write to a single-writer repository; the recovery file holds the root key that signs for it
        #[arg(long, value_name = "FILE")]
        by: Option<PathBuf>,
        /// This store, a copy so far, shall hold the log from now on
        #[arg(long, value_name = "NAME")]
        store: Option<String>,
        /// Do it without asking
        #[arg(short, long)]
        yes: bool,
    },
    /// Go on with a job's log as it is, after a person has looked at what was found in it: it hinders neither backups nor prune any more
    Acknowledge {
        /// The job
        job: String,
        /// Do it without asking
        #[arg(short, long)]
        yes: bool,
    },
}

/// `drctl grants …`.
#[derive(Args, Debug)]
pub struct GrantsArgs {
    /// For what
    #[command(subcommand)]
    pub verb: GrantsVerb,
}

/// What can be granted.
#[derive(Subcommand, Debug)]
pub enum GrantsVerb {
    /// A role for backups that is no superuser, as a script for psql
    Postgres {
        /// Name of the role
        #[arg(long, value_name = "NAME", default_value = "drctl")]
        role: String,
        /// A database that has large objects; may be repeated
        #[arg(long, value_name = "NAME")]
        database: Vec<String>,
        /// For restores, too
        #[arg(long)]
        restore: bool,
    },
    /// What a store's user may do, as a policy in JSON: of the user (IAM), or of the bucket with --user-arn
    S3 {
        /// A store of the configuration, or s3://bucket/prefix [default: every bucket of the configuration]
        #[arg(value_name = "STORE|URL")]
        store: Option<String>,
        /// For what; may be repeated [default: all-in-one]
        #[arg(long, value_enum, value_name = "ROLE")]
        role: Vec<RoleArg>,
        /// Print the bucket's policy for this user, as the store names it (arn:aws:iam::…:user/…); may be repeated
        #[arg(long, value_name = "ARN")]
        user_arn: Vec<String>,
    },
}

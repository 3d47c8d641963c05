//! The configuration as it is written: one struct per map, nothing checked, everything optional.
//!
//! The JSON Schema is made from these types; what is required, and which values an enum has, stands in attributes. A value the schema
//! refuses is taken out before serde sees the rest (hence the options everywhere, inside lists too), so that the cross-checks still
//! look at everything else. A map that names one of several things (`local:` or `s3:`) is a struct of options: messages stay about
//! the key that is wrong, which serde's enums and `oneOf` would not give.

use schemars::JsonSchema;
use serde::Deserialize;

mod notify;
mod running;
mod source;
mod values;

pub use notify::*;
pub use running::*;
pub use source::*;
pub use values::*;

/// The configuration of drctl: where backup sets are kept and what is backed up.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawMain {
    /// Where backup sets are kept, who can open them, and the keys that sign them.
    #[schemars(extend("x-required" = true))]
    pub repository: Option<RawRepository>,
    /// Settings for every job that does not have its own.
    pub defaults: Option<RawDefaults>,
    /// Who is told.
    pub notify: Option<Vec<Option<RawNotify>>>,
    /// Settings of `drctl agent`.
    pub agent: Option<RawAgent>,
    /// Jobs; more of them may stand in jobs/*.yaml beside this file, one in each.
    pub jobs: Option<Vec<Option<RawJob>>>,
}

/// Where backup sets are kept, who can open them, and the keys that sign them.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawRepository {
    /// The repository's id; `drctl init` makes it.
    #[schemars(extend("x-required" = true))]
    pub id: Option<String>,
    /// The root public key (minisign): what every other key is trusted by.
    #[schemars(extend("x-required" = true))]
    pub root_key: Option<String>,
    /// Where the repository lies. The first store holds the log; every further one gets copies of it and of every new set.
    #[schemars(extend("x-required" = true), length(min = 1))]
    pub stores: Option<Vec<Option<RawStore>>>,
    /// Public keys (age1…) of those who can open backup sets. Needed unless `encryption` is `none`.
    pub recipients: Option<Vec<Option<String>>>,
    /// File with the private age identity (mode 0600). Left out on a host that only writes.
    pub identity: Option<String>,
    /// File with the private key that signs this host's records (mode 0600).
    #[schemars(extend("x-required" = true))]
    pub signing_key: Option<String>,
    /// `age` (default) or `none`. With `none`, sources that hold secrets by nature need `allow_plaintext: true`.
    pub encryption: Option<RawEncryption>,
    /// How artifacts are compressed: `zstd` (default, level 1), `gzip`, `none`, `{ zstd: 1..19 }` or `{ gzip: 1..9 }`.
    pub codec: Option<RawCodec>,
    /// Decompress and compare every frame before it is stored (default true).
    pub decode_check: Option<bool>,
}

/// One store of the repository.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawStore {
    /// Its name, unique in the repository: a-z, 0-9 and '-'.
    #[schemars(extend("x-required" = true))]
    pub name: Option<String>,
    /// A folder on this machine.
    pub local: Option<RawLocal>,
    /// A bucket of S3, or of anything that speaks like it.
    pub s3: Option<RawS3>,
    /// A set counts as stored even when this store missed it (default false; never for the first store).
    pub optional: Option<bool>,
    /// Only one host may write: `true` where the store lets a file be created twice; `false` for a network folder (NFS, SMB) that is known
    /// not to. Default: found out, and network folders count as `true`. Only for the first store.
    pub single_writer: Option<bool>,
}

/// A folder on this machine.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawLocal {
    /// The folder; relative names start from the configuration file.
    #[schemars(extend("x-required" = true), length(min = 1))]
    pub path: Option<String>,
}

/// A bucket of S3, or of anything that speaks like it.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawS3 {
    /// The bucket; it must be there.
    #[schemars(extend("x-required" = true), length(min = 1))]
    pub bucket: Option<String>,
    /// What every key begins with (default: nothing).
    pub prefix: Option<String>,
    /// The region; default is AWS_REGION, the profile's, or the provider's.
    pub region: Option<String>,
    /// The server, https://host or https://host:port; default is AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, or AWS itself.
    pub endpoint: Option<String>,
    /// Whose S3 it is: aws, minio, r2, b2, ceph, scaleway, versitygw or other; default is what the endpoint tells.
    pub provider: Option<String>,
    /// The bucket in the path instead of in the host's name; default is what the provider takes.
    pub path_style: Option<bool>,
    /// Profile of the shared AWS configuration files; default is AWS_PROFILE.
    pub profile: Option<String>,
    /// Name of the store's user; default is what AWS_* variables, profile, web identity, container or machine give.
    pub access_key: Option<RawText>,
    /// Its secret.
    pub secret_key: Option<RawText>,
    /// Third part of temporary keys.
    pub session_token: Option<RawText>,
    /// PEM file of certificates that are trusted instead of the system's.
    #[schemars(length(min = 1))]
    pub ca_file: Option<String>,
    /// At most so many bytes a second in each direction: `20MiB`.
    pub bandwidth: Option<String>,
}

/// Settings for every job that does not have its own.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawDefaults {
    /// IANA name of the time zone that schedules and dates are meant in; default is the machine's.
    pub timezone: Option<String>,
    /// When backups, verifications and drills run.
    pub schedule: Option<RawSchedule>,
    /// Which sets are kept. Without it every set is kept.
    pub retention: Option<RawRetention>,
    /// What a recovery must achieve.
    pub objectives: Option<RawObjectives>,
    /// When a run is given up.
    pub limits: Option<RawLimits>,
}

/// What is backed up together, when, and how long it is kept.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawJob {
    /// The job's name: 1 to 63 of a-z, 0-9 and '-'; `now` is reserved.
    #[schemars(extend("x-required" = true))]
    pub job: Option<String>,
    /// IANA name of the time zone that schedules and dates are meant in; default is the machine's.
    pub timezone: Option<String>,
    /// What is backed up, in this order.
    #[schemars(extend("x-required" = true), length(min = 1))]
    pub sources: Option<Vec<Option<RawSource>>>,
    /// Names of the stores this job writes to, the repository's first store first; default is all of them.
    #[schemars(length(min = 1))]
    pub stores: Option<Vec<Option<String>>>,
    /// When backups, verifications and drills run.
    pub schedule: Option<RawSchedule>,
    /// Which sets are kept. Without it every set is kept.
    pub retention: Option<RawRetention>,
    /// What a recovery must achieve.
    pub objectives: Option<RawObjectives>,
    /// Who is told, besides those of the whole configuration.
    pub notify: Option<Vec<Option<RawNotify>>>,
    /// When a run is given up.
    pub limits: Option<RawLimits>,
    /// Programs run before and after each run of this job.
    pub hooks: Option<RawHooks>,
}

/// Cron expressions of 5 fields (6 with seconds first), in the job's time zone.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawSchedule {
    /// Full backups.
    pub full: Option<String>,
    /// Incremental backups (full ones until incremental sets exist).
    pub incremental: Option<String>,
    /// Archive backups: full ones kept by the monthly and yearly rules.
    pub archive: Option<String>,
    /// Verification by reading back.
    pub verify: Option<String>,
    /// Drills: a restore into a scratch server (come with a later version).
    pub drill: Option<String>,
    /// Prunes: deleting what retention does not keep.
    pub prune: Option<String>,
    /// Start up to this much later, so that not every host starts at once; the same instant always by the same.
    pub jitter: Option<String>,
    /// A run that was missed is made up for once, unless it should have begun longer ago than this (default 7d).
    pub catch_up: Option<String>,
}

/// Which sets are kept: a set stays when any rule wants it.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawRetention {
    /// The newest so many sets.
    pub keep_last: Option<u32>,
    /// Every set younger than this.
    pub keep_within: Option<String>,
    /// The newest set of each of so many hours.
    pub keep_hourly: Option<u32>,
    /// The newest set of each of so many days.
    pub keep_daily: Option<u32>,
    /// The newest set of each of so many weeks.
    pub keep_weekly: Option<u32>,
    /// The newest set of each of so many months.
    pub keep_monthly: Option<u32>,
    /// The newest set of each of so many years.
    pub keep_yearly: Option<u32>,
    /// Never fewer than so many sets proven by read-back or better (default 1).
    #[schemars(range(min = 1))]
    pub keep_min_verified: Option<u32>,
}

/// What a recovery must achieve.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawObjectives {
    /// Greatest age of the newest good set.
    pub rpo: Option<String>,
    /// Longest time a restore may take.
    pub rto: Option<String>,
    /// Greatest spread of times across the sources of one set.
    pub spread: Option<String>,
    /// A run that takes longer is told of; it is not ended (default 30m).
    pub max_duration: Option<String>,
    /// Greatest age of the newest set that was verified.
    pub verified_within: Option<String>,
    /// Greatest age of the newest drill that passed.
    pub drilled_within: Option<String>,
    /// Greatest size of all sets of the job together: `500GiB`.
    pub max_total_size: Option<String>,
}

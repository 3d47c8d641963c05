//! The courtesy lease of a job: it saves two runs from doing the same work. Nothing is safe because of it (rule 16).

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::catalog::repository::Repository;
use crate::error::{Error, Result};
use crate::model::JobName;

/// Who holds a lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Holder {
    /// The machine's name.
    pub host: String,
    /// The process id.
    pub pid: u32,
    /// Since when, server date.
    pub since: Timestamp,
}

/// A lease that we hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The job.
    pub job: JobName,
    /// Its newest epoch; goes into the manifest.
    pub epoch: u64,
    /// Who we are.
    pub holder: Holder,
    /// End, server date.
    pub until: Timestamp,
}

impl Lease {
    /// Takes the job's lease for `length`. [`crate::error::Kind::Locked`], naming the holder, when another has it.
    pub async fn acquire(repository: &Repository, job: &JobName, host: &str, pid: u32, length: Duration) -> Result<Lease> {
        let _ = (repository, job, host, pid, length);
        Err(Error::failed("leases cannot be taken yet"))
    }

    /// Moves the end to `length` from now, by a new epoch. [`crate::error::Kind::Locked`] when another took it meanwhile.
    pub async fn renew(&mut self, repository: &Repository, length: Duration) -> Result<()> {
        let _ = (repository, length);
        Err(Error::failed("leases cannot be taken yet"))
    }

    /// Gives the lease back, by a new epoch that says so.
    pub async fn release(self, repository: &Repository) -> Result<()> {
        let _ = repository;
        Err(Error::failed("leases cannot be taken yet"))
    }
}

//! One job's log: read, verified, appended to.

use jiff::Timestamp;

use crate::catalog::keys::RoleKey;
use crate::catalog::repository::Repository;
use crate::catalog::rules::Rules;
use crate::catalog::state::State;
use crate::error::{Error, Result};
use crate::model::record::Body;
use crate::model::{JobName, Sha256};

/// A record of ours that stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Its number.
    pub number: u64,
    /// SHA-256 of its bytes.
    pub sha256: Sha256,
}

/// One job's log, as far as it was read.
pub struct JobLog {
    pub(crate) repository: Repository,
    pub(crate) job: JobName,
    pub(crate) keys: Vec<RoleKey>,
    pub(crate) rules: Rules,
    pub(crate) state: State,
}

impl JobLog {
    /// Reads and verifies the whole log. `keys` are the role keys at hand; none is needed to read.
    ///
    /// A log that does not exist is an empty one. Records that do not verify, gaps and rollbacks are findings in
    /// [`State::findings`], not errors: what can be verified stays readable. A record of a newer format is
    /// [`crate::error::Kind::Unsupported`].
    pub async fn open(repository: &Repository, job: &JobName, keys: Vec<RoleKey>) -> Result<JobLog> {
        let _ = (repository, job, keys);
        Err(Error::failed("the log cannot be read yet"))
    }

    /// Reads what came since, and says how many records that were.
    pub async fn refresh(&mut self) -> Result<u64> {
        Err(Error::failed("the log cannot be read yet"))
    }

    /// Appends one record that needs no judgement beyond the rules for its type; a conflict is judged again and tried again at
    /// the next number.
    pub async fn append(&mut self, body: Body) -> Result<Appended> {
        self.append_with(|_, _| Ok(body.clone())).await
    }

    /// Appends the record that `make` gives for the log up to its head. `make` is asked again, with the state at the new head,
    /// whenever another record took the number; its error ends the append with nothing written.
    ///
    /// The second argument of `make` is the server's date.
    pub async fn append_with<F>(&mut self, make: F) -> Result<Appended>
    where
        F: FnMut(&State, Timestamp) -> Result<Body> + Send,
    {
        let _ = make;
        Err(Error::failed("the log cannot be written yet"))
    }

    /// What the log says up to [`JobLog::head`].
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Number of the newest record read.
    pub fn head(&self) -> u64 {
        self.state.head()
    }

    /// The job.
    pub fn job(&self) -> &JobName {
        &self.job
    }

    /// The repository.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }
}

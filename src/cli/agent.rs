//! `drctl agent`.

use std::sync::Arc;

use crate::agent::service;
use crate::cli::Shell;
use crate::error::{Error, Kind, Result};
use crate::observe::Bus;
use crate::open::Surroundings;

/// Runs until a signal ends it.
pub async fn run(shell: &Shell) -> Result<u8> {
    if shell.global.repo.is_some() {
        return Err(Error::new(Kind::Usage, "--repo is for reading verbs: the agent needs a configuration").hint("drctl init"));
    }
    // What runs tell goes to the agent's own log, not to the terminal's bars.
    let bus = Bus::new();
    let around = Surroundings::new("agent", shell.global.config.clone(), bus, shell.cancel.clone());
    service::serve(Surroundings { clock: Arc::new(crate::model::SystemClock), ..around }).await
}

//! `drctl grants`: what others must allow drctl to do, ready to be pasted. Changes nothing.

use serde::Serialize;

use crate::cli::args::GrantsVerb;
use crate::cli::output::Output;
use crate::error::{Error, Kind, Result};
use crate::source::postgres::grants::{Purpose, script};

#[derive(Serialize)]
struct Grants {
    /// For which program the text is.
    run_with: &'static str,
    text: String,
}

/// Prints the text.
pub fn run(out: Output, verb: &GrantsVerb) -> Result<u8> {
    let GrantsVerb::Postgres { role, database, restore } = verb;
    if role.is_empty() || role.contains(['\0', '\n']) {
        return Err(Error::new(Kind::Usage, "--role is no name of a role"));
    }
    let purpose = if *restore { Purpose::Restore } else { Purpose::Backup };
    let grants = Grants { run_with: "psql", text: script(role, database, purpose) };
    out.result("grants", &grants, |grants| grants.text.clone());
    Ok(0)
}

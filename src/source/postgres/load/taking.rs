//! Giving a server the globals of a set: what it does not take is left out and said. A role that owns something of the set has to be made.

use std::collections::BTreeSet;

use tokio_util::sync::CancellationToken;

use super::globals::{Globals, Step, Taker};
use super::server;
use crate::error::{Kind, Result};
use crate::source::RunContext;
use crate::source::postgres::catalog;
use crate::source::postgres::connect::{Connection, ident};
use crate::source::postgres::names::shown;

/// Makes those of `wanted` that the server lacks of `have`, and puts on them what they were. `owners` own something that is restored.
pub(super) async fn make_roles(
    connection: &Connection,
    globals: &Globals,
    wanted: &BTreeSet<String>,
    have: &BTreeSet<String>,
    owners: &BTreeSet<String>,
    context: &RunContext,
) -> Result<()> {
    let (mut refused, mut there, mut created) = (Vec::new(), BTreeSet::new(), Vec::new());
    // Others of the restore's roles come and go with its load.
    for role in globals.roles().filter(|role| wanted.contains(*role)) {
        let sql = format!("CREATE ROLE {}", ident(role));
        if !have.contains(role) {
            if owners.contains(role) {
                server::run_until(connection, &format!("create role {}", shown(role)), &sql, &context.cancel).await?;
            } else if !take(connection, &Step::new(format!("role {}", shown(role)), sql), &mut refused, &context.cancel).await? {
                continue;
            }
            created.push(shown(role));
        }
        there.insert(role.to_owned());
    }
    let taker = Taker {
        major: catalog::server(connection).await?.major(),
        superuser: catalog::is_superuser(connection).await?,
        roles: have.union(&there).cloned().collect(),
    };
    let (steps, left_out) = globals.steps_for(&there, &taker);
    refused.extend(left_out);
    for step in &steps {
        take(connection, step, &mut refused, &context.cancel).await?;
    }
    if !created.is_empty() {
        context.bus.step(format!("created roles {}", created.join(", ")));
    }
    // What a role lacks is no reason to keep the data from coming back; psql would go on too.
    for what in refused {
        context.bus.warn(format!("The server does not take all of the globals; left out is {what}."));
    }
    Ok(())
}

/// Does a step, or what can be done of it. What the server refuses is added to `refused`, with the reason; whether all was done.
async fn take(connection: &Connection, step: &Step, refused: &mut Vec<String>, cancel: &CancellationToken) -> Result<bool> {
    let Some(why) = refusal(connection, step, cancel).await? else { return Ok(true) };
    if step.parts.is_empty() {
        refused.push(why);
        return Ok(false);
    }
    let before = refused.len();
    for part in &step.parts {
        refused.extend(refusal(connection, part, cancel).await?);
    }
    Ok(refused.len() == before)
}

/// Does a step; `Some` says what the server refused and why.
async fn refusal(connection: &Connection, step: &Step, cancel: &CancellationToken) -> Result<Option<String>> {
    let done = match step.setting {
        true => server::set_until(connection, "it says", &step.sql, cancel).await,
        false => server::run_until(connection, "it says", &step.sql, cancel).await.map(|()| None),
    };
    match done {
        Ok(why) => Ok(why.map(|why| format!("{}, as the server {why}", step.what))),
        Err(error) if matches!(error.kind(), Kind::Interrupted | Kind::Unreachable) => Err(error),
        Err(error) => Ok(Some(format!("{}, as {error}", step.what))),
    }
}

//! Names of roles that a database cannot find although they are there: PostgreSQL converts no name between the encoding of the database that
//! made a role and that of another which names it as an owner.

use tokio_postgres::error::SqlState;

use crate::error::Result;
use crate::source::load::LoadRequest;
use crate::source::postgres::catalog::{ANY_BYTES, Database, Server};
use crate::source::postgres::connect::{Connection, pg_error};
use crate::source::postgres::names::{bytes, is_raw, shown};

/// Encodings whose names go to the server as they are.
fn is_unconverted(encoding: &str) -> bool {
    encoding == "UTF8" || encoding == ANY_BYTES
}

/// Roles of the set, which its globals bring.
fn of_set(request: &LoadRequest) -> Vec<String> {
    let roles = request.details.pointer("/surroundings/roles").and_then(|roles| roles.as_array());
    roles.into_iter().flatten().filter_map(|role| role.as_str()).map(str::to_owned).collect()
}

/// Owners in `database`, which is about to be loaded, that it would not find on this server, as people see them. `globals`: those of the set
/// that are missing are made.
pub(super) async fn not_found(
    connection: &Connection,
    server: &Server,
    database: &Database,
    request: &LoadRequest,
    globals: bool,
) -> Result<Vec<String>> {
    let here = server.encoding.as_deref().unwrap_or("UTF8");
    let wanted: Vec<&String> = database.owners.iter().filter(|role| !role.is_ascii()).collect();
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let made = if globals { of_set(request) } else { Vec::new() };
    let made: Vec<Vec<u8>> =
        made.iter().filter(|role| !role.is_ascii() && (here == ANY_BYTES || !is_raw(role))).map(|r| bytes(r)).collect();
    let query = "select not exists (select from pg_roles where convert_to(rolname::text, getdatabaseencoding()) = stored)
            and not exists (select from unnest($2::bytea[]) as m(x) where stored = case when $4 then m.x else convert(m.x, 'UTF8', $5::text::name) end)
        from (select case when $3 then $1::bytea else convert($1::bytea, 'UTF8', $6::text::name) end as stored) as w";
    let mut found = Vec::new();
    for role in wanted {
        let as_is = is_raw(role) || is_unconverted(&database.encoding);
        let asked = connection.query_one(query, &[&bytes(role), &made, &as_is, &is_unconverted(here), &here, &database.encoding]).await;
        let lost = match asked {
            Ok(row) => row.get(0),
            // A letter that the encoding does not have.
            Err(error) if error.code() == Some(&SqlState::UNTRANSLATABLE_CHARACTER) => true,
            Err(error) => return Err(pg_error("compare the names of roles", &error)),
        };
        if lost {
            found.push(shown(role));
        }
    }
    Ok(found)
}

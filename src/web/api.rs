//! The read-only JSON API, `/api/v1/…`: the board for machines that have the token.

use hyper::header::{AUTHORIZATION, HeaderMap};
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::model::{JobName, Secret, Timestamp};
use crate::notify::Cleaner;
use crate::ops::board::{Board, JobBoard};
use crate::ops::look::SetLine;
use crate::web::health::{Health, health};

/// Name of the shape of JSON replies; the command line's too.
pub const SCHEMA: &str = "drctl.v1";
/// Bytes of one text: what a tool said may be long.
const TEXT: usize = 2000;

/// `/api/v1/status`.
#[derive(Serialize)]
struct StatusPage<'a> {
    health: Health,
    board: &'a Board,
}

/// `/api/v1/jobs`.
#[derive(Serialize)]
struct JobsPage<'a> {
    at: Timestamp,
    jobs: &'a [JobBoard],
}

/// `/api/v1/jobs/{job}/sets`.
#[derive(Serialize)]
struct SetsPage<'a> {
    at: Timestamp,
    job: &'a JobName,
    /// How many there are; `sets` holds the newest of them.
    total: usize,
    sets: &'a [SetLine],
}

/// What stands under a path below `/api/`; `None`: nothing does. The path is compared as it came, so there is nothing to walk out of.
pub fn page(path: &str, board: &Board, now: Timestamp, cleaner: &Cleaner) -> Option<serde_json::Result<String>> {
    let page = match path.strip_prefix("/api/v1/")? {
        "status" => serde_json::to_value(StatusPage { health: health(board, now), board }),
        "jobs" => serde_json::to_value(JobsPage { at: board.at, jobs: &board.jobs }),
        below => {
            let job = board.job(below.strip_prefix("jobs/")?.strip_suffix("/sets")?)?;
            let log = job.log.as_ref();
            let (total, sets) = log.map_or((0, [].as_slice()), |log| (log.sets, &log.lines));
            serde_json::to_value(SetsPage { at: board.at, job: &job.job, total, sets })
        }
    };
    Some(page.map(|mut page| {
        clean(&mut page, cleaner);
        serde_json::json!({ "schema": SCHEMA, "result": page }).to_string()
    }))
}

/// Takes secrets out of every text, wherever a board holds one now or later.
fn clean(value: &mut Value, cleaner: &Cleaner) {
    match value {
        Value::String(text) => *text = cleaner.text(text, TEXT),
        Value::Array(values) => values.iter_mut().for_each(|value| clean(value, cleaner)),
        Value::Object(fields) => fields.values_mut().for_each(|value| clean(value, cleaner)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// An error as JSON.
pub fn error(message: &str) -> String {
    serde_json::json!({ "schema": SCHEMA, "error": { "message": message } }).to_string()
}

/// Whether the request shows the token: exactly one `Authorization: Bearer TOKEN` (RFC 6750, section 2.1).
pub fn shows_token(headers: &HeaderMap, token: &Secret) -> bool {
    let mut given = headers.get_all(AUTHORIZATION).iter();
    let (Some(given), None) = (given.next(), given.next()) else { return false };
    let given = given.as_bytes();
    let Some((scheme, shown)) = given.split_at_checked("bearer ".len()) else { return false };
    // The time that it takes tells nothing of the token, not even its length: two digests are compared.
    let equal: bool = Sha256::digest(shown).ct_eq(&Sha256::digest(token.expose().as_bytes())).into();
    scheme.eq_ignore_ascii_case(b"bearer ") && equal && !token.expose().is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f87_only_the_whole_token_is_taken() {
        let token = Secret::new("abcdefgh");
        let shows = |values: &[&str], token: &Secret| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, value.parse().unwrap());
            }
            shows_token(&headers, token)
        };
        assert!(shows(&["Bearer abcdefgh"], &token) && shows(&["bearer abcdefgh"], &token));
        for bad in [
            "",
            "Bearer",
            "Bearer ",
            "abcdefgh",
            "Basic abcdefgh",
            "Bearer abcdefg",
            "Bearer abcdefghi",
            "Bearer  abcdefgh",
            "Bearer ABCDEFGH",
            "Bearerabcdefgh",
        ] {
            assert!(!shows(&[bad], &token), "{bad}");
        }
        assert!(!shows(&[], &token) && !shows(&["Bearer abcdefgh", "Bearer x"], &token));
        assert!(!shows(&["Bearer "], &Secret::new("")), "a token that is empty opens nothing");
    }
}

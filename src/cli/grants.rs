//! `drctl grants`: what others must allow drctl to do, ready to be pasted. Changes nothing.

use std::io::Write as _;

use serde::Serialize;

use crate::catalog::Roles;
use crate::catalog::grants::{Policy, enforces_create_only, policy, roles_name};
use crate::catalog::keys::all_in_one;
use crate::cli::args::{Global, GrantsVerb};
use crate::cli::output::Output;
use crate::cli::{key, open};
use crate::config::environment::Environment;
use crate::config::find;
use crate::config::load::load;
use crate::config::s3::{S3Place, S3Provider, is_s3_url};
use crate::config::typed::StorePlace;
use crate::error::{Error, Kind, Result};
use crate::source::postgres::grants::{Purpose, script};

#[derive(Serialize)]
struct Grants {
    /// For which program the text is.
    run_with: &'static str,
    text: String,
}

/// Prints the text.
pub fn run(global: &Global, out: Output, verb: &GrantsVerb) -> Result<u8> {
    match verb {
        GrantsVerb::Postgres { role, database, restore } => {
            if role.is_empty() || role.contains(['\0', '\n']) {
                return Err(Error::new(Kind::Usage, "--role is no name of a role"));
            }
            let purpose = if *restore { Purpose::Restore } else { Purpose::Backup };
            let grants = Grants { run_with: "psql", text: script(role, database, purpose) };
            out.result("grants", &grants, |grants| grants.text.clone());
        }
        GrantsVerb::S3 { store, role, user_arn } => {
            let roles = if role.is_empty() { all_in_one() } else { key::roles(role) };
            s3(global, out, store.as_deref(), &roles, user_arn)?;
        }
    }
    Ok(0)
}

/// The policy for one store.
#[derive(Serialize)]
struct S3Grants {
    /// Its name in the configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    store: Option<String>,
    location: String,
    bucket: String,
    role: String,
    /// `user` (IAM) or `bucket`: what the policy is attached to.
    attach_to: &'static str,
    policy: Policy,
    /// What to know about it.
    notes: Vec<String>,
}

/// Standard output is JSON that can be piped as it is; the words go to standard error.
fn s3(global: &Global, out: Output, store: Option<&str>, roles: &Roles, users: &[String]) -> Result<()> {
    for user in users {
        if user.trim().is_empty() || user.contains(char::is_control) {
            return Err(
                Error::new(Kind::Usage, "--user-arn is no name of a user").hint("such as arn:aws:iam::123456789012:user/drctl-writer")
            );
        }
        if user.contains('*') {
            return Err(Error::new(Kind::Usage, format!("--user-arn '{user}' would let others in, too")).hint("name one user"));
        }
    }
    let mut all = Vec::new();
    for (name, place) in places(global, store)? {
        all.push(S3Grants {
            location: place.short(),
            bucket: place.bucket.clone(),
            role: roles_name(roles),
            attach_to: if users.is_empty() { "user" } else { "bucket" },
            policy: policy(&place, roles, users),
            notes: notes(&place, !users.is_empty()),
            store: name,
        });
    }
    if !out.json && !out.quiet {
        let mut words = String::new();
        for grants in &all {
            let what = if users.is_empty() { "policy for its own user (IAM)" } else { "policy of the bucket" };
            words.push_str(&format!("{}, {}: {what}\n", grants.location, grants.role));
            for note in &grants.notes {
                words.push_str(&format!("  - {note}\n"));
            }
        }
        let _ = std::io::stderr().write_all(words.as_bytes());
    }
    out.result("grants", &all, |all| {
        let pretty = |grants: &S3Grants| serde_json::to_string_pretty(&grants.policy).map(|json| json + "\n");
        all.iter().map(|grants| pretty(grants).unwrap_or_default()).collect()
    });
    Ok(())
}

fn notes(place: &S3Place, of_bucket: bool) -> Vec<String> {
    let mut notes = Vec::new();
    if of_bucket {
        notes.push("a bucket has one policy: put the statements of every role, and those it has already, into one document".to_owned());
    }
    if !enforces_create_only(place) {
        notes.push(format!(
            "nothing here keeps whoever has the user's keys from overwriting what it may write: no way to forbid that by policy is known of \
             provider {}; turn on the bucket's versioning, so that what was overwritten can be had back",
            place.provider().name()
        ));
    }
    notes
}

const NO_CONFIGURATION: &str = "name the bucket: drctl grants s3 s3://bucket/prefix --role ROLE";

/// The stores that are meant, by name where the configuration has them.
fn places(global: &Global, store: Option<&str>) -> Result<Vec<(Option<String>, S3Place)>> {
    let environment = Environment::system();
    if let Some(url) = store.filter(|text| is_s3_url(text)) {
        let place = S3Place::parse_url(url).map_err(|why| Error::new(Kind::Usage, format!("the bucket's URL: {why}")))?;
        return Ok(vec![(None, with_provider(place, &environment))]);
    }
    let mut options = open::load_options(global.config.as_deref());
    // Whoever sets up the bucket need not have the keys.
    options.look_at_files = false;
    if global.config.is_none() && find::config_file(None, &options.environment).is_err() {
        return Err(Error::new(Kind::Usage, "there is no configuration that names a bucket").hint(NO_CONFIGURATION));
    }
    let config = load(&options)?;
    let stores = &config.repository.stores;
    if let Some(name) = store {
        crate::open::stores::named_store(stores, name)?;
    }
    let mut found = Vec::new();
    for wanted in stores.iter().filter(|known| store.is_none_or(|name| known.name == name)) {
        match (&wanted.place, store) {
            (StorePlace::S3(place), _) => found.push((Some(wanted.name.clone()), with_provider((**place).clone(), &environment))),
            (StorePlace::Local { path }, Some(name)) => {
                return Err(Error::new(Kind::Usage, format!("store '{name}' is the folder {}, not a bucket", path.display()))
                    .hint("who may do what in a folder is up to its owner and modes"));
            }
            (StorePlace::Local { .. }, None) => {}
        }
    }
    if found.is_empty() {
        return Err(Error::new(Kind::Usage, "the configuration names no bucket").hint(NO_CONFIGURATION));
    }
    Ok(found)
}

/// An endpoint from the environment tells the provider, too, as it does when the store is opened.
fn with_provider(mut place: S3Place, environment: &Environment) -> S3Place {
    if place.provider.is_none() && place.endpoint.is_none() {
        let endpoint = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"].iter().find_map(|name| environment.get(name));
        place.provider = endpoint.map(|endpoint| S3Provider::of_endpoint(Some(endpoint)));
    }
    place
}

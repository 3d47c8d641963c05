//! The configuration: files, environment and flags → one typed, checked value.
//!
//! Text → tree with positions (`${NAME}` put in by [`expand`]) → [`schema`] check → raw shapes → cross-checks → [`Config`].
//! Every step tells all its findings with file, line, column and key path; they are told together ([`Problems`]). After that nothing is
//! parsed, defaulted or looked up again, except secrets and connection URLs, which are fetched when they are used ([`secret`]).

mod check;
pub mod diff;
pub mod discover;
pub mod environment;
pub mod expand;
pub mod find;
pub mod kept;
pub mod load;
mod next;
pub mod notify;
pub mod patterns;
pub mod postgres;
pub mod preset;
pub mod problem;
mod raw;
pub mod reload;
pub mod running;
pub mod s3;
pub mod schema;
pub mod secret;
pub mod show;
pub mod template;
mod tree;
pub mod typed;
pub mod values;

#[cfg(test)]
mod tests;

pub use diff::{Change, ChangeKind, diff};
pub use environment::Environment;
pub use load::{LoadOptions, Overlay, load};
pub use notify::{NotifierConfig, NotifierKind, Success};
pub use postgres::{PostgresConnection, PostgresUrl};
pub use problem::{Problem, Problems};
pub use reload::{Reload, reload};
pub use running::{AgentConfig, Hook, Hooks, Limits};
pub use secret::{Reference, SecretRef, TextRef};
pub use show::{config_sha256, redacted_json, redacted_yaml};
pub use typed::*;
pub use values::CronSchedule;

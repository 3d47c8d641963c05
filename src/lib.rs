//! drctl: backup and disaster recovery for small productions.
//!
//! ```text
//!  source ──plain bytes──▶ pipeline ──stored bytes──▶ sink × N          backup
//!  reach   inspector walks   frames·hash·compress·encrypt   store (s3, local)
//!  source ◀──plain bytes── pipeline⁻¹ ◀──── ranges ──── store           restore: the same road read backwards
//!           └── catalog: job log (commits, proofs, pins …), chains, lease ──┘
//!  ops (backup verify prune restore drill playbook) ──▶ one Event stream ──▶ terminal · metrics · Slack · dashboard · audit
//! ```
//!
//! Layers; each may name only what stands to its left (tests/layers.rs checks it):
//! `model ← config ← {file_lock, observe} ← {state, process, format} ← {reach, store} ← pipeline ← {source, catalog, notify} ← ops ← open ← web ← agent ← cli`.
//! `error` stands below them all.

pub mod error;

pub mod file_lock;

pub mod model;

pub mod config;

pub mod observe;

pub mod format;
pub mod process;
pub mod state;

pub mod pipeline;
pub mod reach;
pub mod store;

pub mod catalog;
pub mod notify;
pub mod source;

pub mod ops;

pub mod open;

pub mod web;

pub mod agent;

pub mod cli;

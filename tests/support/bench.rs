//! An agent in fast time: its own code, real sources and stores, a clock that the test sets.
//!
//! Include it with `#[path = "support/bench.rs"] mod bench;`, beside `mod cli` and `mod http_standin`.

#![allow(dead_code, reason = "every test file uses its own part of it")]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::Arc;

use drctl::agent::log::Log;
use drctl::agent::service::Agent;
use drctl::config::environment::Environment;
use drctl::model::{Clock, TestClock, Timestamp};
use drctl::observe::Bus;
use drctl::open::Surroundings;
use drctl::state::{RunOutcome, StateFile};
use tokio_util::sync::CancellationToken;

use crate::cli::Home;
use crate::http_standin::Got;

/// An agent over the configuration of a home.
pub struct Bench {
    pub clock: Arc<TestClock>,
    pub agent: Agent,
}

pub fn around(home: &Home, clock: Arc<dyn Clock>) -> Surroundings {
    let mut vars = home.env.clone();
    vars.push(("STATE_DIRECTORY".into(), home.state().display().to_string()));
    vars.push(("PATH".into(), std::env::var("PATH").unwrap()));
    let environment = Environment::of(home.path(""), vars);
    let around = Surroundings::new("agent", Some(home.path("drctl.yaml")), Bus::new(), CancellationToken::new());
    Surroundings { clock, environment, ..around }
}

impl Bench {
    pub async fn start(home: &Home, now: &str) -> Bench {
        let clock = Arc::new(TestClock::at(now.parse().unwrap()));
        let agent = Agent::start(around(home, clock.clone()), Log::silent(clock.clone())).await.unwrap();
        Bench { clock, agent }
    }

    /// Ticks every `step` seconds until `until`; whatever begins ends before the next tick.
    pub async fn go(&mut self, until: &str, step: i64) {
        let until: Timestamp = until.parse().unwrap();
        while self.clock.now() < until {
            self.agent.tick().await;
            self.agent.settle().await;
            self.agent.tick().await;
            self.agent.deliver().await;
            self.clock.step_seconds(step);
        }
    }

    /// Lets time pass until a changed configuration is read: it is, once two looks found the same.
    pub async fn look_at_files(&mut self) {
        for _ in 0..2 {
            self.clock.step_seconds(10);
            self.agent.tick().await;
        }
    }

    pub fn alerts(&self) -> Vec<String> {
        self.agent.desk().open_incidents().unwrap().into_iter().map(|incident| incident.key).collect()
    }
}

pub fn runs(home: &Home) -> Vec<(String, RunOutcome, String)> {
    let state = StateFile::open(&home.state().join("state.sqlite"), Arc::new(drctl::model::SystemClock)).unwrap();
    let mut rows = state.runs(None, None, 100).unwrap();
    rows.reverse();
    rows.into_iter().map(|row| (row.verb, row.outcome, row.started_at.strftime("%d %H:%M").to_string())).collect()
}

pub fn titles(got: &[Got]) -> Vec<String> {
    got.iter().map(|got| got.json()["message"]["title"].as_str().unwrap_or_default().to_owned()).collect()
}

pub const ONE_JOB: &str = r#"jobs:
  - job: shop
    timezone: UTC
    schedule: { full: "0 2 * * *" }
    sources: [ { command: { name: data, run: [cat, data] } } ]
"#;

pub fn home(jobs: &str) -> Home {
    let home = Home::new();
    home.write("data", "one");
    home.init(jobs);
    no_pages(&home);
    home
}

/// Tests run beside each other: one address is not enough for all.
pub fn no_pages(home: &Home) {
    let text = std::fs::read_to_string(home.path("drctl.yaml")).unwrap();
    home.write("drctl.yaml", &format!("agent: {{ listen: none, stop_within: 3s }}\n{text}"));
}

/// How the newest run of a verb ended.
pub fn last(home: &Home, verb: &str) -> Option<RunOutcome> {
    runs(home).into_iter().rev().find(|run| run.0 == verb).map(|run| run.1)
}

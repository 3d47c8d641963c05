//! A repository of 10,000 sets: what looking at it costs. `make soak` runs it with a release build.

#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use drctl::catalog::Outcome;
use drctl::config::load::load;
use drctl::config::typed::Retention;
use drctl::model::record::Grade;
use drctl::model::{SetClass, SetKind, TestClock, Timestamp};
use drctl::observe::Bus;
use drctl::open::{Opened, Surroundings};
use drctl::ops::retention::{Candidate, Policy, Whole, plan};
use tokio_util::sync::CancellationToken;

#[path = "support/cli.rs"]
mod cli;
#[path = "support/versitygw.rs"]
mod versitygw;

use cli::Home;

const SETS: u64 = 10_000;

/// A set an hour, each as large in the log as that of a job with six databases, its objects one byte each.
async fn fill(home: &Home) {
    home.ok(&["backup", "now"]);
    let first = Timestamp::now().as_second() - SETS as i64 * 3600;
    let clock = Arc::new(TestClock::at(Timestamp::from_second(first).unwrap()));
    let around = Surroundings::new("test", Some(home.path("drctl.yaml")), Bus::new(), CancellationToken::new());
    let around = Surroundings { clock: clock.clone(), ..around };
    let mut config = load(&around.load_options()).unwrap();
    config.state = home.path("other-state");
    let opened = Opened::of(&around, Arc::new(config), None, true, None).await.unwrap();
    let mut log = opened.setup.log(&"shop".parse().unwrap()).await.unwrap();
    let template = log.state().live().next().unwrap().manifest.clone();
    for _ in 1..SETS {
        clock.step_seconds(3600);
        let run = log.begin_run(SetKind::Full, "main").await.unwrap();
        let mut manifest = (*template).clone();
        (manifest.set, manifest.chain, manifest.base) = (run.set().clone(), run.chain().clone(), run.base());
        (manifest.started_at, manifest.finished_at) = (run.set().at(), run.set().at());
        let folder = home.path("drctl-repository").join(run.set().prefix());
        std::fs::create_dir_all(&folder).unwrap();
        for object in manifest.every_object() {
            std::fs::write(folder.join(&object.file), "x").unwrap();
        }
        assert!(matches!(run.commit(&mut log, manifest, |_| Ok(())).await.unwrap(), Outcome::Committed { .. }));
    }
}

/// Wall time and peak memory in MiB of a run that must succeed.
fn measured(home: &Home, args: &[&str]) -> (Duration, u64) {
    let binary = std::env::var_os("DRCTL_BIN").map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_drctl")), PathBuf::from);
    let mut command = Command::new(binary);
    command.args(args).current_dir(home.path("")).env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    command.env("STATE_DIRECTORY", home.state()).envs(home.env.iter().map(|(n, v)| (n, v)));
    let began = Instant::now();
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let (id, mut peak) = (child.id(), 0);
    loop {
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        peak = peak.max(line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0) / 1024);
        if child.try_wait().unwrap().is_some() {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let took = began.elapsed();
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    (took, peak)
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    let copied = Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status().unwrap();
    assert!(copied.success());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "10,000 sets: make soak"]
async fn soak_10_000_sets_are_listed_and_planned_at_once() {
    let mut home = Home::new();
    let source = |name: &str| format!("      - command: {{ name: {name}, run: [echo, {name}] }}\n");
    let sources: String = ["one", "two", "three", "four", "five", "six"].iter().map(|name| source(name)).collect();
    home.init(&format!(
        "jobs:\n  - job: shop\n    timezone: UTC\n    schedule: {{ full: \"0 * * * *\" }}\n    retention: {{ keep_hourly: 48, keep_daily: 30, keep_monthly: 12 }}\n    sources:\n{sources}"
    ));
    let began = Instant::now();
    fill(&home).await;
    println!("{SETS} sets were made in {:.0} s", began.elapsed().as_secs_f64());

    let (cold, _) = measured(&home, &["list"]);
    let warm: Vec<(Duration, u64)> = (0..5).map(|_| measured(&home, &["list"])).collect();
    let plan: Vec<(Duration, u64)> = (0..3).map(|_| measured(&home, &["prune"])).collect();
    let best = |runs: &[(Duration, u64)]| runs.iter().min().copied().unwrap();
    println!("list, folder: cold {cold:.2?}, warm {:.2?} with {} MiB", best(&warm).0, best(&warm).1);
    println!("plan of prune: {:.2?} with {} MiB", best(&plan).0, best(&plan).1);
    let mut far = Duration::ZERO;
    if let Some(gateway) = versitygw::start() {
        copy(&home.path("drctl-repository"), &gateway.data().join("many"));
        home.env("AWS_ACCESS_KEY_ID", versitygw::ROOT);
        home.env("AWS_SECRET_ACCESS_KEY", versitygw::ROOT_SECRET);
        home.env("DRCTL_PASSPHRASE_FILE", "passphrase");
        home.env("AWS_EC2_METADATA_DISABLED", "true");
        let endpoint = format!("http%3A%2F%2F127.0.0.1%3A{}", gateway.port);
        let url = format!("s3://{}/many?endpoint={endpoint}&region=us-east-1&provider=versitygw", versitygw::BUCKET);
        let (took, memory) = measured(&home, &["list", "--repo", &url]);
        println!("list, versitygw, cold: {took:.2?} with {memory} MiB");
        far = took;
    }
    if std::env::var_os("DRCTL_BIN").is_some() || !cfg!(debug_assertions) {
        assert!(best(&warm).0 <= Duration::from_secs(1), "warm list");
        assert!(best(&plan).0 <= Duration::from_secs(1), "plan of prune");
        assert!(far <= Duration::from_secs(15), "cold list on versitygw");
        assert!(best(&plan).1 <= 200, "memory of the plan");
    }
}

/// Peak memory of this process in MiB.
fn own_peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1024
}

/// By itself: `--exact` in a process of its own, or the memory is that of the other test.
#[test]
#[ignore = "100,000 sets: make soak"]
fn soak_100_000_sets_are_planned_in_little_memory() {
    let first = Timestamp::now().as_second() - 100_000 * 3600;
    let job: drctl::model::JobName = "shop".parse().unwrap();
    let candidate = |n: u64| {
        let at = Timestamp::from_second(first + n as i64 * 3600).unwrap();
        let set = drctl::model::SetId::new(job.clone(), at, SetKind::Full, n as u32);
        Candidate {
            chain: set.clone(),
            set,
            number: n + 1,
            committed_at: at,
            group: "main".into(),
            class: SetClass::Ordinary,
            whole: Whole::Complete,
            grade: Some(Grade::ReadBack),
            sources: ["postgres", "redis", "uploads", "environment", "compose", "logs"].map(str::to_owned).to_vec(),
            stored_bytes: 1 << 30,
            pinned_until: None,
            held_until: None,
        }
    };
    let before = own_peak();
    let sets: Vec<Candidate> = (0..100_000).map(candidate).collect();
    let rules = Retention {
        keep_last: 0,
        keep_within: Some(Duration::from_secs(30 * 86_400)),
        keep_hourly: 48,
        keep_daily: 30,
        keep_weekly: 8,
        keep_monthly: 24,
        keep_yearly: 10,
        keep_min_verified: 3,
    };
    let zone = jiff::tz::TimeZone::get("Asia/Shanghai").unwrap();
    let asked = |_: &str| {
        let rules = Some(&rules);
        Some(Policy {
            retention: rules,
            zone: &zone,
            per_day: Some(24),
            interval: None,
            stopped: None,
            accept_surplus: false,
            confirmed: None,
            sources: None,
        })
    };
    let began = Instant::now();
    let plan = plan(&sets, asked, Timestamp::now());
    let (took, memory) = (began.elapsed(), own_peak());
    println!(
        "plan of 100,000 sets: {took:.2?}, {memory} MiB in all, {} before; {} stay",
        before,
        plan.sets.iter().filter(|set| set.keep).count()
    );
    assert!(memory <= 200 && (cfg!(debug_assertions) || took <= Duration::from_secs(5)));
}

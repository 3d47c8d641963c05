//! What an agent costs while it waits: with one job, and with 1,000. `make soak` runs it with a release build.

#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use drctl::model::Timestamp;

#[path = "support/cli.rs"]
mod cli;

use cli::Home;

/// Ended when the test ends, however it ends.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Agent {
    fn start(home: &Home) -> Agent {
        let binary = std::env::var_os("DRCTL_BIN").map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_drctl")), PathBuf::from);
        let mut command = Command::new(binary);
        command.arg("agent").current_dir(home.path("")).env_clear().env("PATH", std::env::var_os("PATH").unwrap());
        command.envs(home.env.iter().map(|(name, value)| (name, value))).env("STATE_DIRECTORY", home.state());
        Agent(command.stdout(Stdio::null()).stderr(std::fs::File::create(home.away("agent.log")).unwrap()).spawn().unwrap())
    }

    /// A figure of `/proc/PID/status`, in MiB.
    fn mib(&self, name: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() >> 10
    }

    /// Processor time of it and of its children that ended.
    fn processor(&self) -> Duration {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
        let fields: Vec<&str> = text.rsplit(')').next().unwrap().split_whitespace().collect();
        // Fields 14 to 17 of proc_pid_stat(5), in ticks of 10 ms; the first one here is field 3.
        Duration::from_millis(10 * fields[11..15].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum::<u64>())
    }
}

fn sets(home: &Home) -> usize {
    let mut found = 0;
    cli::walk(&home.path("drctl-repository"), &mut |path| found += usize::from(path.ends_with("RESTORE.md")));
    found
}

/// A home with so many jobs, of which the first `soon` are due in a minute and a half, when the agent surely runs; the others once a day.
fn home(jobs: usize, soon: usize) -> Home {
    let home = Home::new();
    home.write("data", "one");
    let at = Timestamp::now().checked_add(jiff::SignedDuration::from_secs(90)).unwrap();
    let (now, other) = (at.strftime("%-S %-M %-H * * *").to_string(), at.checked_sub(jiff::SignedDuration::from_hours(2)).unwrap());
    let mut text = "jobs:\n".to_owned();
    for n in 0..jobs {
        let full = if n < soon { now.clone() } else { format!("{} {} * * *", n % 60, other.strftime("%-H")) };
        text.push_str(&format!(
            "  - job: job-{n}\n    timezone: UTC\n    schedule: {{ full: \"{full}\", verify: \"{} {} * * *\", prune: \"{} {} * * *\" }}\n    \
             sources: [ {{ command: {{ name: data, run: [cat, data] }} }} ]\n",
            (n * 7) % 60,
            other.strftime("%-H"),
            (n * 13) % 60,
            other.strftime("%-H"),
        ));
    }
    home.init(&text);
    let config = std::fs::read_to_string(home.path("drctl.yaml")).unwrap();
    home.write("drctl.yaml", &format!("agent: {{ listen: \"127.0.0.1:0\" }}\n{config}"));
    home
}

/// Waits for the sets that are due, then as long as `idle`; gives resident memory now, at its peak, and the share of a processor meanwhile.
fn measured(jobs: usize, soon: usize, idle: Duration) -> (u64, u64, f64) {
    let home = home(jobs, soon);
    let agent = Agent::start(&home);
    let begun = Instant::now();
    while sets(&home) < soon {
        assert!(begun.elapsed() < Duration::from_secs(300), "{}", std::fs::read_to_string(home.away("agent.log")).unwrap());
        std::thread::sleep(Duration::from_millis(200));
    }
    std::thread::sleep(Duration::from_secs(10));
    let (before, began) = (agent.processor(), Instant::now());
    std::thread::sleep(idle);
    let share = (agent.processor() - before).as_secs_f64() / began.elapsed().as_secs_f64();
    (agent.mib("VmRSS"), agent.mib("VmHWM"), share)
}

fn is_release() -> bool {
    std::env::var_os("DRCTL_BIN").is_some() || !cfg!(debug_assertions)
}

#[test]
#[ignore = "waits for minutes, and wants a release build"]
fn soak_an_agent_with_one_job_costs_next_to_nothing() {
    let (now, peak, share) = measured(1, 1, Duration::from_secs(120));
    println!("one job: {now} MiB, {peak} at its peak, {:.3} % of a processor", share * 100.0);
    if is_release() {
        assert!(now <= 40 && share <= 0.001, "{now} MiB, {share}");
    }
}

#[test]
#[ignore = "waits for minutes, and wants a release build"]
fn soak_an_agent_with_a_thousand_jobs_stays_small() {
    let (now, peak, share) = measured(1000, 20, Duration::from_secs(120));
    println!("1,000 jobs, 20 have run: {now} MiB, {peak} at its peak, {:.3} % of a processor", share * 100.0);
    if is_release() {
        assert!(now <= 80, "{now} MiB");
    }
}

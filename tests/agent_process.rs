//! `drctl agent` as a process of its own: signals, the service manager's socket, reload, sudden death, a state folder that fails.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic")]

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use drctl::config::{Environment, LoadOptions, load};
use drctl::model::{SystemClock, Timestamp};
use drctl::state::{RunOutcome, ScheduleMark, StateFile};
use rustix::process::{Pid, Signal, geteuid, kill_process};

#[path = "support/cli.rs"]
mod cli;
#[path = "support/http_standin.rs"]
mod http_standin;
#[path = "support/versitygw.rs"]
mod versitygw;

use cli::{Home, Ran};
use http_standin::Standin;

/// `SCHEDULE` and `RUN` are put in by each test.
const JOB: &str = "jobs:\n  - job: shop\n    timezone: UTC\n    schedule: { full: \"SCHEDULE\" }\n    sources: [ { command: { name: data, run: [sh, -c, \"RUN\"] } } ]\n";

const OFTEN: &str = "*/2 * * * * *";
const NEVER: &str = "0 0 29 2 *";

/// Writes `pid`, waits as long as `hold` is there, and gives some bytes. Only the first run waits.
const HELD: &str = "if mkdir first 2>/dev/null; then echo $$ > pid; while [ -e hold ]; do sleep 0.05; done; fi; cat data";

fn home(schedule: &str, run: &str) -> Home {
    let home = Home::new();
    home.write("data", "one");
    home.init(&JOB.replace("SCHEDULE", schedule).replace("RUN", run));
    // Tests run beside each other: one address is not enough for all.
    settings(&home, NO_PAGES);
    home
}

const NO_PAGES: &str = "agent: { listen: none }";

/// Puts settings before everything else of the configuration.
fn settings(home: &Home, text: &str) {
    let config = std::fs::read_to_string(home.path("drctl.yaml")).unwrap();
    home.write("drctl.yaml", &format!("{text}\n{config}"));
}

/// Lets the job run once, as soon as an agent begins, and then for a day no more: its time has just passed, and no agent has handled it. A
/// time to come might be over before the agent is there.
fn once_soon(home: &Home) {
    let at = Timestamp::now() - jiff::SignedDuration::from_secs(2);
    let cron = at.strftime("%-S %-M %-H * * *").to_string();
    let config = std::fs::read_to_string(home.path("drctl.yaml")).unwrap();
    home.write("drctl.yaml", &config.replace(NEVER, &cron));
    let config = load(&LoadOptions::new(Environment::of(home.path(""), home.env.clone()))).unwrap();
    let handled = at - jiff::SignedDuration::from_secs(60);
    let mark = ScheduleMark { job: "shop".into(), group: "main".into(), what: "full".into(), schedule: format!("{cron} UTC"), handled };
    let state = StateFile::open(&home.state().join("state.sqlite"), Arc::new(SystemClock)).unwrap();
    state.keep_schedule_marks(&config.repository.id, &[mark]).unwrap();
}

/// An agent under way; killed when the test fails.
struct Agent {
    child: Option<Child>,
    log: PathBuf,
}

impl Agent {
    fn start(home: &Home) -> Agent {
        Agent::start_with(home, home.command(&["agent"]))
    }

    fn start_with(home: &Home, mut command: Command) -> Agent {
        let log = home.away(&format!("agent-{:08x}.log", rand::random::<u32>()));
        let child = command.stdout(Stdio::null()).stderr(std::fs::File::create(&log).unwrap()).spawn().unwrap();
        Agent { child: Some(child), log }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(self.child.as_ref().unwrap()), signal).unwrap();
    }

    fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    fn until(&mut self, what: &str, holds: impl Fn(&Agent) -> bool) {
        let begun = Instant::now();
        while !holds(self) {
            if let Some(status) = self.child.as_mut().unwrap().try_wait().unwrap() {
                panic!("{what} never came, the agent ended ({status}): {}", self.log());
            }
            // SQLite tries again for 10 s a write where a full disk keeps its shared memory from growing.
            assert!(begun.elapsed() < Duration::from_secs(150), "{what} never came: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn says(&mut self, words: &str) {
        self.until(words, |agent| agent.log().contains(words));
    }

    /// Its exit code, and how long it took.
    fn end(mut self, within: Duration) -> (i32, Duration) {
        let begun = Instant::now();
        let mut child = self.child.take().unwrap();
        while child.try_wait().unwrap().is_none() {
            if begun.elapsed() > within {
                child.kill().unwrap();
                child.wait().unwrap();
                panic!("it did not end within {within:?}: {}", self.log());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let took = begun.elapsed();
        (Ran::of(child.wait_with_output().unwrap()).code, took)
    }

    fn stop(self) {
        self.signal(Signal::TERM);
        let log = self.log.clone();
        assert_eq!(self.end(Duration::from_secs(150)).0, 0, "{}", std::fs::read_to_string(log).unwrap());
    }

    fn kill(self) {
        self.signal(Signal::KILL);
        assert_eq!(self.end(Duration::from_secs(60)).0, 137);
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn told(home: &Home, name: &str) -> Option<u32> {
    std::fs::read_to_string(home.path(name)).ok()?.strip_suffix('\n')?.parse().ok()
}

fn gone_soon(pid: u32) {
    let begun = Instant::now();
    while drctl::state::process_is_alive(pid) {
        assert!(begun.elapsed() < Duration::from_secs(60), "process {pid} lives on");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Keys of the repository that only a run may make.
fn stored(home: &Home) -> Vec<String> {
    home.files("drctl-repository").into_iter().filter(|f| f.starts_with("jobs/") && !f.contains("/lease/")).collect()
}

fn outcomes(home: &Home) -> Vec<RunOutcome> {
    let state = StateFile::open(&home.state().join("state.sqlite"), Arc::new(SystemClock)).unwrap();
    state.runs(None, Some("backup"), 100).unwrap().into_iter().rev().map(|row| row.outcome).collect()
}

fn titles(hears: &Standin) -> Vec<String> {
    hears.taken().iter().map(|got| got.json()["message"]["title"].as_str().unwrap_or_default().to_owned()).collect()
}

fn notify(home: &Home, hears: &Standin) {
    settings(home, &format!("notify: [{{ webhook: {{ url: \"{}\", digest: never }} }}]", hears.url("/")));
}

#[test]
fn it_makes_sets_by_schedule_and_sigterm_lets_work_in_hand_finish() {
    let home = home(OFTEN, &HELD.replace("mkdir first", "[ -e hold ]"));
    let mut agent = Agent::start(&home);
    agent.until("two sets", |_| stored(&home).iter().filter(|f| f.contains("/log/")).count() >= 2);
    assert!(home.ok(&["status"]).out.contains(&format!("agent runs as process {}", agent.pid())));
    home.write("hold", "");
    agent.until("a run", |_| told(&home, "pid").is_some());
    agent.signal(Signal::TERM);
    agent.says("may end within");
    assert!(drctl::state::process_is_alive(told(&home, "pid").unwrap()), "work in hand goes on");
    std::fs::remove_file(home.path("hold")).unwrap();
    assert_eq!(agent.end(Duration::from_secs(60)).0, 0);
    let outcomes = outcomes(&home);
    assert!(outcomes.len() >= 3 && outcomes.iter().all(|outcome| *outcome == RunOutcome::Finished(0)), "{outcomes:?}");
    assert_eq!(home.sets().len(), outcomes.len());
    home.ok(&["verify", "--all"]);
    let status = home.ok(&["status", "--max-age", "1h"]).out;
    assert!(status.contains("agent DOES NOT RUN since about 20") && status.contains("start it: drctl agent"), "{status}");
}

#[test]
fn sigterm_aborts_what_takes_too_long_and_a_second_one_ends_at_once() {
    for (limit, signals, code) in [("1s", 1, 0), ("5m", 2, 143)] {
        let home = home(OFTEN, "echo $$ > pid; head -c 3000000 /dev/urandom; sleep 600 & echo $! > child; wait");
        let config = std::fs::read_to_string(home.path("drctl.yaml")).unwrap();
        home.write("drctl.yaml", &config.replacen(NO_PAGES, &format!("agent: {{ listen: none, stop_within: {limit} }}"), 1));
        let before = stored(&home);
        let mut agent = Agent::start(&home);
        agent.until("the children", |_| told(&home, "pid").and(told(&home, "child")).is_some());
        let children = [told(&home, "pid").unwrap(), told(&home, "child").unwrap()];
        agent.signal(Signal::TERM);
        if signals == 2 {
            agent.says("may end within");
            agent.signal(Signal::TERM);
        }
        let (ended, took) = agent.end(Duration::from_secs(120));
        assert_eq!(ended, code);
        assert!(signals == 1 || took < Duration::from_secs(60), "it waited for what runs: {took:?}");
        gone_soon(children[0]);
        if signals == 2 {
            // What the child itself started is left to the service manager, which ends all of the group.
            let _ = kill_process(Pid::from_raw(i32::try_from(children[1]).unwrap()).unwrap(), Signal::KILL);
        } else {
            gone_soon(children[1]);
            assert_eq!(stored(&home), before, "no object, no record");
            assert_eq!(outcomes(&home), [RunOutcome::Finished(130)]);
        }
        assert!(!home.files("drctl-repository").iter().any(|file| file.contains("/log/")));
        assert!(home.sets().is_empty());
    }
}

#[test]
fn the_service_manager_is_told_of_start_life_and_end() {
    let home = home(NEVER, "cat data");
    let path = home.away("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
    let hear = |wanted: &str| loop {
        let mut bytes = [0; 1000];
        let length = socket.recv(&mut bytes).unwrap_or_else(|e| panic!("{wanted} never came: {e}"));
        let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
        if text.lines().any(|line| line == wanted) {
            return text;
        }
        assert!(wanted != "READY=1", "the first word is that it is ready, not {text}");
    };
    let mut command = home.command(&["agent"]);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "10000000");
    let agent = Agent::start_with(&home, command);
    let ready = hear("READY=1");
    assert!(ready.contains(&format!("MAINPID={}", agent.pid())) && ready.contains("STATUS="), "{ready}");
    hear("WATCHDOG=1");
    hear("WATCHDOG=1");
    agent.signal(Signal::TERM);
    let stopping = hear("STOPPING=1");
    assert!(stopping.contains("EXTEND_TIMEOUT_USEC="), "{stopping}");
    assert_eq!(agent.end(Duration::from_secs(60)).0, 0);
}

#[test]
fn f60_a_changed_file_is_taken_up_a_broken_one_refused_and_status_says_so() {
    let home = home(NEVER, "cat data");
    let hears = Standin::new();
    notify(&home, &hears);
    let good = std::fs::read_to_string(home.path("drctl.yaml")).unwrap();
    let mut agent = Agent::start(&home);
    agent.says("1 job");
    // By itself.
    home.exchange("drctl.yaml", &good.replace(NEVER, "0 0 1 1 *"));
    agent.says("the configuration changed: ");
    // By a signal, and broken: the line is named wherever one looks.
    let line = good.lines().position(|line| line.contains("schedule:")).unwrap() + 1;
    home.exchange("drctl.yaml", &good.replace("schedule:", "schedul:"));
    agent.signal(Signal::HUP);
    agent.says("reload refused");
    let refused = format!("reload refused, line {line}; the agent works by the configuration it had");
    agent.until("the word of status", |_| home.run(&["status"]).err.contains(&refused));
    assert_eq!(home.run(&["status"]).code, 2);
    agent.until("the alarm", |_| titles(&hears).iter().any(|title| title.starts_with("reload refused")));
    // Good again, and it runs what is in it. A mistake that only the agent sees is told by status as well.
    home.exchange("drctl.yaml", &good.replace(NEVER, OFTEN));
    agent.signal(Signal::HUP);
    agent.until("a set by the new schedule", |_| stored(&home).iter().any(|f| f.contains("/log/")));
    let status = home.ok(&["status"]).out;
    assert!(!status.contains("refused"), "{status}");
    let needs = good.replace("[sh, -c, \"cat data\"]", "[sh, -c, \"cat ${ONLY_HERE}\"]");
    assert_ne!(needs, good);
    home.exchange("drctl.yaml", &needs);
    agent.signal(Signal::HUP);
    agent.until("the refusal in status", |_| {
        let status = Ran::of(home.command(&["status"]).env("ONLY_HERE", "data").output().unwrap());
        assert_eq!(status.code, 0, "{}", status.all());
        status.out.contains("ALARM: reload refused, line ")
    });
    agent.stop();
    let status = Ran::of(home.command(&["status"]).env("ONLY_HERE", "data").output().unwrap());
    assert!(!status.out.contains("refused"), "no agent works by another configuration now: {}", status.out);
}

#[test]
fn f01_f02_killed_in_mid_run_its_children_die_the_verbs_work_and_the_next_makes_up_for_it_once() {
    let home = home(NEVER, HELD);
    std::fs::create_dir(home.path("first")).unwrap();
    home.ok(&["backup", "now"]);
    std::fs::remove_dir(home.path("first")).unwrap();
    home.write("hold", "");
    once_soon(&home);
    let mut agent = Agent::start(&home);
    agent.until("the run", |_| told(&home, "pid").is_some());
    let child = told(&home, "pid").unwrap();
    agent.kill();
    gone_soon(child);

    // Till the set of before is older than is allowed below.
    std::thread::sleep(Duration::from_millis(2100));
    let status = home.ok(&["status", "--max-age", "1h"]).out;
    assert!(status.contains("interrupted: backup shop") && status.contains("agent DOES NOT RUN"), "{status}");
    assert_eq!(home.run(&["status", "--max-age", "1s"]).code, 9);
    assert!(home.ok(&["schedule"]).out.contains("shop"));
    assert_eq!(home.sets().len(), 1);

    std::fs::remove_file(home.path("hold")).unwrap();
    let mut next = Agent::start(&home);
    next.says("was interrupted");
    next.until("the run made up for", |_| outcomes(&home).len() == 3 && !outcomes(&home).contains(&RunOutcome::Running));
    next.stop();
    let mut later = Agent::start(&home);
    later.says("1 job");
    later.stop();
    assert_eq!(outcomes(&home), [RunOutcome::Finished(0), RunOutcome::Interrupted, RunOutcome::Finished(0)]);
    assert_eq!(home.sets().len(), 2, "one set, and once");
    home.ok(&["verify", "--all"]);
}

/// A run that takes its agent with it (out of memory, say) must not do so at every start.
#[test]
fn f01_what_dies_once_more_is_left_to_its_next_time() {
    let home = home(NEVER, "echo $$ > pid; while [ -e hold ]; do sleep 0.05; done; cat data");
    home.write("hold", "");
    once_soon(&home);
    for runs in [1, 2] {
        let mut agent = Agent::start(&home);
        agent.until("the run", |_| told(&home, "pid").is_some());
        agent.kill();
        std::fs::remove_file(home.path("pid")).unwrap();
        // Another verb notes the interruption before the next agent can.
        home.ok(&["status"]);
        assert_eq!(outcomes(&home), vec![RunOutcome::Interrupted; runs]);
    }
    let mut agent = Agent::start(&home);
    agent.says("was interrupted");
    std::thread::sleep(Duration::from_millis(1500));
    agent.stop();
    assert_eq!(outcomes(&home), [RunOutcome::Interrupted; 2]);
}

#[test]
fn f05_killed_behind_its_commit_it_is_not_run_twice() {
    let home = home(NEVER, "cat data");
    home.write("hold", "");
    let config = std::fs::read_to_string(home.path("drctl.yaml")).unwrap();
    let hook = "    hooks: { after: [{ run: [sh, -c, \"echo $$ > pid; while [ -e hold ]; do sleep 0.05; done\"] }] }\n    sources: [";
    home.write("drctl.yaml", &config.replace("    sources: [", hook));
    once_soon(&home);
    let mut agent = Agent::start(&home);
    agent.until("the hook after the run", |_| told(&home, "pid").is_some());
    agent.kill();
    std::fs::remove_file(home.path("hold")).unwrap();
    let mut next = Agent::start(&home);
    next.says("it is not made up for");
    next.stop();
    assert_eq!((home.sets().len(), outcomes(&home)), (1, vec![RunOutcome::Interrupted]));
    assert!(home.ok(&["status"]).out.contains("after its commit, the set stands"));
}

/// FAULTS 9 wants no commit by one who lost the lease. FORMAT rule 16 is the finer word: the lease only saves work, the order of the log decides,
/// and by rule 3 a commit in between does not void a full set, for nothing in that refers to anything else. So both runs may end with a whole set,
/// or the one that slept with an error and nothing left; never may a set be broken, or the log fork.
#[test]
fn f09_stopped_in_mid_run_while_another_host_takes_the_lease() {
    let as_another_host = |home: &Home, args: &[&str]| {
        let plain = home.command(args);
        let mut command = Command::new("unshare");
        command.args(["--uts", "sh", "-c", "hostname elsewhere && exec \"$0\" \"$@\""]).arg(plain.get_program()).args(args);
        command.current_dir(home.path("")).env_clear().envs(plain.get_envs().filter_map(|(n, v)| Some((n, v?))));
        Ran::of(command.env("STATE_DIRECTORY", home.away("state")).output().unwrap())
    };
    let home = home(NEVER, HELD);
    if as_another_host(&home, &["list"]).code != 0 {
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), "SKIPPED f09: no host name of one's own can be had here");
        return;
    }
    home.write("hold", "");
    once_soon(&home);
    let mut agent = Agent::start(&home);
    agent.until("the run", |_| told(&home, "pid").is_some());
    agent.signal(Signal::STOP);

    let held = as_another_host(&home, &["backup", "now"]);
    assert_eq!(held.code, 7, "{}", held.all());
    let freed = as_another_host(&home, &["unlock", "shop", "--yes"]);
    assert_eq!(freed.code, 0, "{}", freed.all());
    let made = as_another_host(&home, &["backup", "now"]);
    assert_eq!(made.code, 0, "{}", made.all());
    assert_eq!(home.sets().len(), 1);
    let between = stored(&home);
    std::thread::sleep(Duration::from_secs(2));

    std::fs::remove_file(home.path("hold")).unwrap();
    agent.signal(Signal::CONT);
    agent.until("the end of the run", |_| matches!(outcomes(&home)[..], [RunOutcome::Finished(_)]));
    agent.stop();
    let sets = home.sets();
    match outcomes(&home)[..] {
        [RunOutcome::Finished(0)] => assert_eq!(sets.len(), 2),
        [RunOutcome::Finished(_)] => assert_eq!(stored(&home), between, "a run that failed leaves nothing"),
        _ => unreachable!(),
    }
    let verified = home.json(&["verify", "--all"]);
    assert_eq!(verified["result"].as_array().map_or(sets.len(), Vec::len), sets.len(), "{verified}");
    assert!(!home.ok(&["status"]).out.contains("ALARM"), "the log is as it was written");
    home.ok(&["backup", "now"]);
    assert_eq!(home.sets().len(), sets.len() + 1);
}

/// An agent whose state folder something is done to in a mount namespace of its own; `None` where that is not allowed.
fn in_namespace(home: &Home, test: &str, mounts: &str) -> Option<Agent> {
    let unshare: &[&str] = if geteuid().is_root() { &["-m"] } else { &["-rm"] };
    let allowed = Command::new("unshare").args(unshare).args(["mount", "-t", "tmpfs", "none", "/mnt"]).output();
    if !allowed.is_ok_and(|output| output.status.success()) {
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), "SKIPPED {test}: no mount namespace can be made here");
        return None;
    }
    let plain = home.command(&["agent"]);
    let mut command = Command::new("unshare");
    command.args(unshare).args(["sh", "-c", &format!("{mounts} && exec \"$0\" agent")]).arg(plain.get_program());
    command.current_dir(home.path("")).env_clear().envs(plain.get_envs().filter_map(|(n, v)| Some((n, v?))));
    Some(Agent::start_with(home, command))
}

/// The folder as the agent sees it.
fn seen_by(agent: &Agent, folder: &Path) -> PathBuf {
    PathBuf::from(format!("/proc/{}/root", agent.pid())).join(folder.strip_prefix("/").unwrap())
}

fn commits(home: &Home) -> usize {
    stored(home).iter().filter(|f| f.contains("/log/")).count()
}

#[test]
fn f13_a_read_only_state_folder_stops_no_run_and_an_alarm_goes_out() {
    let home = home(OFTEN, "cat data");
    let hears = Standin::new();
    notify(&home, &hears);
    let mounts = "mount --bind \"$STATE_DIRECTORY\" \"$STATE_DIRECTORY\" && mount -o remount,bind,ro \"$STATE_DIRECTORY\"";
    let Some(mut agent) = in_namespace(&home, "f13 read-only", mounts) else { return };
    agent.until("two sets", |_| commits(&home) >= 2);
    agent.says("the state file cannot be used");
    agent.until("the alarm", |_| titles(&hears).contains(&"the state file cannot be used".to_owned()));
    agent.stop();
    home.ok(&["verify", "--all"]);
}

#[test]
fn f13_a_state_folder_that_fills_up_stops_no_run_and_an_alarm_goes_out() {
    let home = home(OFTEN, "cat data");
    let hears = Standin::new();
    notify(&home, &hears);
    let Some(mut agent) = in_namespace(&home, "f13 full", "mount -t tmpfs -o size=2m none \"$STATE_DIRECTORY\"") else { return };
    agent.until("a set", |_| commits(&home) >= 1);
    assert!(!agent.log().contains("state file"), "{}", agent.log());
    let fill = seen_by(&agent, &home.state()).join("fill");
    let full = std::fs::write(&fill, vec![1; 4 << 20]).unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    let then = commits(&home);
    agent.until("two more sets", |_| commits(&home) >= then + 2);
    agent.says("the state file cannot be used");
    agent.until("the alarm", |_| titles(&hears).contains(&"the state file cannot be used".to_owned()));
    agent.stop();
    home.ok(&["verify", "--all"]);
}

#[test]
fn a_broken_state_file_stops_no_run_and_every_verb_says_what_to_do() {
    let home = home(OFTEN, "cat data");
    let hears = Standin::new();
    notify(&home, &hears);
    let state = home.state().join("state.sqlite");
    for more in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(home.state().join(format!("state.sqlite{more}")));
    }
    std::fs::write(&state, "this was a state file once, and now it is a text that is long enough to be looked at".repeat(20)).unwrap();
    let mut agent = Agent::start(&home);
    agent.until("a set", |_| commits(&home) >= 1);
    agent.until("the alarm", |_| titles(&hears).contains(&"the state file cannot be used".to_owned()));
    let told: Vec<serde_json::Value> = hears.taken().iter().map(|got| got.json()["message"].clone()).collect();
    let of_it = told.iter().find(|message| message["title"] == "the state file cannot be used").unwrap();
    let next = of_it["next"].as_str().unwrap_or_default();
    assert!(next.contains("move it away"), "{next}");
    let status = home.ok(&["status"]).out;
    assert!(status.contains("ALARM: nothing is remembered on this host") && status.contains("move it away"), "{status}");
    let doctor = home.run(&["doctor"]).out;
    assert!(doctor.contains("not a sound state file") && doctor.contains("move it away"), "{doctor}");
    agent.stop();
}

#[test]
fn a_state_file_that_is_new_although_there_are_sets_is_told_of_once() {
    let home = home(OFTEN, "cat data");
    home.ok(&["backup", "now"]);
    let hears = Standin::new();
    notify(&home, &hears);
    std::fs::remove_dir_all(home.state()).unwrap();
    std::fs::create_dir(home.state()).unwrap();
    let mut agent = Agent::start(&home);
    let title = "the state file is new although there are sets";
    agent.until("the end of the warning", |_| titles(&hears).contains(&format!("{title}: over")));
    agent.stop();
    // On a slow machine there may be others, of runs that are late.
    let of_it = || titles(&hears).into_iter().filter(|told| told.starts_with(title)).collect::<Vec<_>>();
    assert_eq!(of_it(), [title.to_owned(), format!("{title}: over")], "{:?}", titles(&hears));
    // The next one knows it.
    let mut agent = Agent::start(&home);
    let then = commits(&home);
    agent.until("a set", |_| commits(&home) > then);
    agent.stop();
    assert_eq!(of_it().len(), 2, "{:?}", titles(&hears));
}

#[test]
fn nagios_gets_one_line_whatever_happens() {
    let home = home(NEVER, "cat data");
    let nagios = |more: &[&str]| {
        let ran = home.run(&[&["status", "--nagios"], more].concat());
        assert!(ran.out.lines().count() == 1 && ran.out.starts_with("DRCTL "), "{more:?}: {}", ran.all());
        (ran.code, ran.out)
    };
    let none = nagios(&[]);
    assert!(none.0 == 2 && none.1.starts_with("DRCTL CRITICAL - shop: no good set|"), "{none:?}");
    home.ok(&["backup", "now"]);
    let good = nagios(&["--max-age", "1h"]);
    assert!(good.0 == 0 && good.1.starts_with("DRCTL OK - shop: newest good set "), "{good:?}");
    assert!(good.1.contains("s;2880;3600;0 'shop_sets'=1;;;0"), "{good:?}");
    std::thread::sleep(Duration::from_millis(2100));
    assert_eq!(nagios(&["--max-age", "1s"]).0, 2);
    let config = std::fs::read_to_string(home.path("drctl.yaml")).unwrap();
    home.write("drctl.yaml", &config.replace("    sources: [", "    objectives: { rpo: 1s }\n    sources: ["));
    assert_eq!(nagios(&[]).0, 2, "the job's own objective");
    assert_eq!(nagios(&["--max-age", "1h"]).0, 0, "what is asked for goes first");
    // What cannot be found out, and what cannot be understood.
    assert_eq!(nagios(&["--job", "nobody"]).0, 3);
    assert_eq!(nagios(&["--max-age", "soon"]).0, 3);
    assert_eq!(nagios(&["--no-such-flag"]).0, 3);
    std::fs::rename(home.path("drctl-repository"), home.path("gone")).unwrap();
    assert_eq!(nagios(&[]).0, 3);
    home.write("drctl.yaml", "jobs: [");
    let broken = nagios(&[]);
    assert!(broken.0 == 3 && broken.1.starts_with("DRCTL UNKNOWN - drctl.yaml:1:"), "{broken:?}");
}

#[test]
fn uploads_that_nobody_ends_are_counted_for_the_pages() {
    let Some(gateway) = versitygw::start() else { return };
    let mut home = Home::new();
    for (name, value) in
        [("AWS_ACCESS_KEY_ID", versitygw::ROOT), ("AWS_SECRET_ACCESS_KEY", versitygw::ROOT_SECRET), ("AWS_EC2_METADATA_DISABLED", "true")]
    {
        home.env(name, value);
    }
    home.write("data", "one");
    let endpoint = format!("http%3A%2F%2F127.0.0.1%3A{}", gateway.port);
    let url = format!("s3://{}/drctl?endpoint={endpoint}&region=us-east-1&provider=versitygw", versitygw::BUCKET);
    home.init_with(&["--store", &url], &JOB.replace("SCHEDULE", NEVER).replace("RUN", "cat data"));
    settings(&home, "agent: { listen: none, textfile: drctl.prom }");
    let figures = || std::fs::read_to_string(home.path("drctl.prom")).unwrap_or_default();
    let mut agent = Agent::start(&home);
    agent.until("the first figures", |_| figures().contains("drctl_up 1"));
    assert!(!figures().contains("drctl_orphan_multiparts{"), "nobody looked yet: {}", figures());
    let config = std::fs::read_to_string(home.path("drctl.yaml")).unwrap();
    home.exchange("drctl.yaml", &config.replace(NEVER, OFTEN));
    agent.signal(Signal::HUP);
    agent.until("what was found", |_| figures().contains("drctl_orphan_multiparts{store=\"main\"} 0"));
    agent.stop();
}

#[test]
fn a_second_agent_on_the_same_state_folder_is_refused() {
    let home = home(NEVER, "cat data");
    let mut agent = Agent::start(&home);
    agent.says("1 job");
    let second = Agent::start(&home);
    let log = second.log.clone();
    assert_eq!(second.end(Duration::from_secs(60)).0, 7);
    let said = std::fs::read_to_string(log).unwrap();
    assert!(said.contains(&format!("process {}", agent.pid())) && said.contains("hint: "), "{said}");
    agent.kill();
    // A dead one keeps nobody out.
    let mut third = Agent::start(&home);
    third.says("1 job");
    third.stop();
}

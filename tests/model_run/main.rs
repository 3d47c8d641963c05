//! The model run: seeded random histories of the catalog over a store in memory, checked after each step against an independent
//! model (FORMAT.md; FAULTS, "Beyond rows").
//!
//! Two writers, a prover, a pruner, a sweeper, a checkpointer, a reader and a person share one log. Each request to the store is a
//! point where others run or where a process dies; answers get lost, writes and deletes land late, clocks jump by up to 50 hours.
//! `MODEL_SEED=n cargo test --test model_run one_seed -- --nocapture` shows the history of one seed.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test: what panics has failed")]

mod actors;
mod model;
#[path = "../tiny/mod.rs"]
mod tiny;
mod world;

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::Context;

use async_trait::async_trait;
use futures::FutureExt as _;
use futures::task::noop_waker_ref;

use drctl::catalog::encoding::{Minisign, Scheme};
use drctl::catalog::{Env, HighWater, MinisignKey, Pause, PublicKey, Random, Repository, RoleKey, Rules, Signer, Trust};
use drctl::error::{Error, Result};
use drctl::model::record::Record;
use drctl::model::{JobName, Sha256, TestClock, Timestamp};
use drctl::pipeline::split::Sink;

use actors::{Deed, Host, Vault};
use model::Model;
use world::{Dice, Line, Op, Place, Server, Shared, World, step};

/// Records by type, and voids.
type Counts = BTreeMap<String, u64>;

/// Seeds that once failed.
const REGRESSIONS: &[u64] = &[];

/// A signature that costs one hash: whoever knows the public key could forge it, and nobody here does.
struct Cheap(PublicKey);

fn cheap_signature(public: &str, line: &[u8], subject: &str) -> String {
    let mut hasher = Sha256::hasher();
    for part in [public.as_bytes(), subject.as_bytes(), line] {
        hasher.update(part);
    }
    format!("u\n{}\nt\ng\n", hasher.finish())
}

impl Cheap {
    fn signer(number: u64) -> Arc<dyn Signer> {
        use base64::Engine as _;
        let mut raw = b"Ed".to_vec();
        raw.extend_from_slice(&number.to_le_bytes());
        raw.extend_from_slice(&[7; 32]);
        Arc::new(Cheap(base64::engine::general_purpose::STANDARD.encode(raw).parse().unwrap()))
    }
}

impl Signer for Cheap {
    fn public(&self) -> &PublicKey {
        &self.0
    }
    fn sign(&self, line: &[u8], subject: &str) -> Result<String> {
        Ok(cheap_signature(self.0.as_str(), line, subject))
    }
}

#[derive(Default)]
struct CheapScheme(Mutex<HashMap<Sha256, Record>>);

impl Scheme for CheapScheme {
    fn parse(&self, json: &str) -> Result<Record> {
        let key = Sha256::of(json.as_bytes());
        let mut known = self.0.lock().unwrap();
        if let Some(record) = known.get(&key) {
            return Ok(record.clone());
        }
        let record: Record = serde_json::from_str(json).map_err(|e| Error::corrupt("it is no record").because(e))?;
        known.insert(key, record.clone());
        Ok(record)
    }

    fn verify(&self, key: &PublicKey, line: &[u8], subject: &str, signature: &str) -> Result<()> {
        if cheap_signature(key.as_str(), line, subject) == signature { Ok(()) } else { Err(Error::corrupt("bad signature")) }
    }
}

fn subject(number: u64) -> String {
    format!("drctl log record shop {number:010}")
}

fn split_line(bytes: &[u8]) -> (&[u8], &str) {
    let end = bytes.iter().position(|b| *b == b'\n').unwrap() + 1;
    (&bytes[..end], std::str::from_utf8(&bytes[end..]).unwrap())
}

fn cheap_check(public: &str, bytes: &[u8], number: u64) -> bool {
    let (line, signature) = split_line(bytes);
    cheap_signature(public, line, &subject(number)) == signature
}

fn real_check(public: &str, bytes: &[u8], number: u64) -> bool {
    let (line, signature) = split_line(bytes);
    Minisign.verify(&public.parse().unwrap(), line, &subject(number), signature).is_ok()
}

fn real_signer(_: u64) -> Arc<dyn Signer> {
    Arc::new(MinisignKey::generate().unwrap())
}

struct HostDice(Shared);

impl Random for HostDice {
    fn bits(&self) -> u32 {
        self.0.lock().unwrap().dice.bits() as u32
    }
}

/// Three more tries, with others running in between.
struct ShortPause;

#[async_trait]
impl Pause for ShortPause {
    async fn before_retry(&self, attempt: u32) -> bool {
        step().await;
        step().await;
        attempt <= 3
    }
}

#[derive(Default)]
struct Mark(Mutex<Option<(u64, Sha256)>>);

impl HighWater for Mark {
    fn get(&self, _: &str, _: &JobName) -> Result<Option<(u64, Sha256)>> {
        Ok(*self.0.lock().unwrap())
    }
    fn set(&self, _: &str, _: &JobName, number: u64, sha256: &Sha256) -> Result<()> {
        *self.0.lock().unwrap() = Some((number, *sha256));
        Ok(())
    }
    fn reset(&self, repository: &str, job: &JobName, number: u64, sha256: &Sha256) -> Result<()> {
        self.set(repository, job, number, sha256)
    }
}

struct Task {
    host: usize,
    future: Pin<Box<dyn Future<Output = ()>>>,
}

fn poll(task: &mut Task) -> bool {
    task.future.as_mut().poll(&mut Context::from_waker(noop_waker_ref())).is_ready()
}

/// Who does what, and how often one begins.
const DEEDS: &[(usize, Deed, u64)] = &[
    (0, Deed::Backup, 30),
    (1, Deed::Backup, 30),
    (2, Deed::Prove, 6),
    (3, Deed::Prune, 16),
    (4, Deed::Sweep, 12),
    (5, Deed::Checkpoint, 5),
    (6, Deed::Read, 12),
    (2, Deed::Read, 8),
    (5, Deed::Pin, 6),
    (7, Deed::Pin, 8),
    (8, Deed::ChangeKey, 3),
    (7, Deed::CloseChain, 2),
    (9, Deed::Copy, 8),
    (9, Deed::ReadCopy, 4),
];

/// How a history is run.
#[derive(Clone, Copy)]
struct Setup {
    rules: Rules,
    real_keys: bool,
    steps: u32,
    trace: bool,
    /// Garbage records come too.
    garbage: bool,
}

/// Runs one history; `Err` tells what must never be.
fn run(seed: u64, setup: Setup) -> Result<Counts, (String, Vec<String>)> {
    let start: Timestamp = "2025-01-01T00:00:00Z".parse().unwrap();
    let mut dice = Dice::new(seed);
    let faults = [0, 2, 8, 20][dice.roll(4) as usize];
    // Some histories have a second store.
    let copied = dice.percent(40);
    let check = if setup.real_keys { real_check } else { cheap_check };
    let world =
        Arc::new(Mutex::new(World { dice, model: Model::new(check), late: Vec::new(), faults: 0, trace: setup.trace.then(Vec::new) }));
    let server = Arc::new(Server::new(Place::First, world.clone(), start));
    let second = copied.then(|| Arc::new(Server::new(Place::Copy, world.clone(), start)));
    let vault = vault(setup.real_keys);
    let hosts = hosts(&world, &server, second.as_ref(), &vault, setup.rules, start);
    world.lock().unwrap().faults = faults;
    let mut tasks: Vec<Task> = Vec::new();
    for _ in 0..setup.steps {
        let (choice, pick) = {
            let mut world = world.lock().unwrap();
            (world.dice.roll(1000), world.dice.bits())
        };
        turn(choice, pick, setup, &world, (&server, second.as_ref()), &hosts, &mut tasks);
        if world.lock().unwrap().model.violation.is_some() {
            break;
        }
    }
    drop(tasks);
    calm_end(&world, (&server, second.as_ref()), &hosts);
    let mut world = world.lock().unwrap();
    let trace = world.trace.take().unwrap_or_default();
    match world.model.violation.take() {
        Some(what) => Err((what, trace)),
        None if setup.trace => Err(("nothing wrong".into(), trace)),
        None => Ok(std::mem::take(&mut world.model.counts)),
    }
}

/// The servers of the first store and, in some histories, of the copy.
type Servers<'a> = (&'a Arc<Server>, Option<&'a Arc<Server>>);

fn land((first, copy): Servers<'_>, (place, op): (Place, Op)) {
    let _ = match (place, copy) {
        (Place::Copy, Some(copy)) => copy.land(op),
        _ => first.land(op),
    };
}

/// One step of the scheduler.
fn turn(choice: u64, pick: u64, setup: Setup, world: &Shared, servers: Servers<'_>, hosts: &[Arc<Host>], tasks: &mut Vec<Task>) {
    match choice {
        0..=849 if !tasks.is_empty() => {
            let index = pick as usize % tasks.len();
            if poll(&mut tasks[index]) {
                drop(tasks.swap_remove(index));
            }
        }
        850..=899 => {
            let op = {
                let mut world = world.lock().unwrap();
                let count = world.late.len();
                (count > 0).then(|| world.late.swap_remove(pick as usize % count))
            };
            if let Some(op) = op {
                land(servers, op);
            }
        }
        900..=914 if !tasks.is_empty() => {
            let task = tasks.swap_remove(pick as usize % tasks.len());
            world.lock().unwrap().say(|| format!("{} dies", hosts[task.host].name));
            drop(task);
        }
        915..=929 => servers.0.clock.step_seconds((pick % (5 * 3600)) as i64),
        930..=939 => hosts[(pick >> 32) as usize % hosts.len()].clock.step_seconds((pick % (100 * 3600)) as i64 - 50 * 3600),
        940..=941 if setup.garbage => begin(4, Deed::Garbage, hosts, tasks),
        942..=943 if setup.garbage => begin(5, Deed::Acknowledge, hosts, tasks),
        _ => {
            let total: u64 = DEEDS.iter().map(|(_, _, weight)| weight).sum();
            let mut left = pick % total;
            for (host, deed, weight) in DEEDS {
                if left < *weight {
                    return begin(*host, *deed, hosts, tasks);
                }
                left -= weight;
            }
        }
    }
}

/// Begins a deed, unless that host is busy.
fn begin(host: usize, deed: Deed, hosts: &[Arc<Host>], tasks: &mut Vec<Task>) {
    if tasks.iter().all(|task| task.host != host) {
        tasks.push(Task { host, future: Box::pin(hosts[host].clone().act(deed)) });
    }
}

/// When the network is well again, what was late has landed and everybody has stopped, a backup still works and everybody agrees.
fn calm_end(world: &Shared, servers: Servers<'_>, hosts: &[Arc<Host>]) {
    world.lock().unwrap().faults = 0;
    loop {
        let op = world.lock().unwrap().late.pop();
        let Some(op) = op else { break };
        land(servers, op);
    }
    let before = world.lock().unwrap().model.head();
    for (host, deed) in [(0, Deed::Backup), (4, Deed::Sweep)] {
        // As a new process.
        *hosts[host].log.lock().unwrap() = None;
        let mut task = Task { host, future: Box::pin(hosts[host].clone().act(deed)) };
        let done = (0..20_000).any(|_| poll(&mut task));
        let mut world = world.lock().unwrap();
        if !done {
            world.model.wrong(format!("{deed:?} does not come to an end"));
        }
        if host == 0 && before == world.model.head() {
            world.model.wrong("a backup on a calm day did not work".into());
        }
    }
}

fn vault(real: bool) -> Arc<Vault> {
    let make: fn(u64) -> Arc<dyn Signer> = if real { real_signer } else { Cheap::signer };
    let scheme: Arc<dyn Scheme> = if real { Arc::new(Minisign) } else { Arc::new(CheapScheme::default()) };
    let keys = Mutex::new(vec![RoleKey { number: 1, signer: make(1) }]);
    Arc::new(Vault { root: make(1000), make, keys, scheme })
}

fn hosts(
    world: &Shared,
    server: &Arc<Server>,
    second: Option<&Arc<Server>>,
    vault: &Arc<Vault>,
    rules: Rules,
    start: Timestamp,
) -> Vec<Arc<Host>> {
    let names = ["writer-1", "writer-2", "prover", "pruner", "sweeper", "checkpointer", "reader", "person", "keeper", "copier"];
    let env = |clock: &Arc<TestClock>| Env {
        clock: clock.clone(),
        random: Arc::new(HostDice(world.clone())),
        pause: Arc::new(ShortPause),
        high_water: Some(Arc::new(Mark::default())),
        cache: None,
        writer_lock: None,
    };
    let first = vault.keys.lock().unwrap()[0].signer.public().clone();
    let clock = Arc::new(TestClock::at(start));
    let line = Arc::new(Line(server.clone()));
    let init = Repository::init_with(line.clone(), env(&clock), "model", &*vault.root, first, vault.scheme.clone());
    drive(init).unwrap();
    let open = |name: &&str| {
        let clock = Arc::new(TestClock::at(start));
        let opened = Repository::open_with(line.clone(), env(&clock), &Trust::OnFirstUse, vault.scheme.clone());
        Arc::new(Host {
            name: (*name).to_owned(),
            repository: drive(opened).unwrap(),
            clock,
            journal: Mutex::new(None),
            log: Mutex::new(None),
            server: server.clone(),
            copy: second.map(|second| Sink::new("copy", Arc::new(Line(second.clone())))),
            world: world.clone(),
            vault: vault.clone(),
            rules,
        })
    };
    names.iter().map(open).collect()
}

fn drive<T>(future: impl Future<Output = T>) -> T {
    let mut future = Box::pin(future);
    loop {
        if let Some(done) = future.as_mut().now_or_never() {
            return done;
        }
    }
}

const USUAL: fn() -> Setup = || Setup { rules: Rules::default(), real_keys: false, steps: 360, trace: false, garbage: true };

fn check(seed: u64, setup: Setup) -> Counts {
    match run(seed, setup) {
        Ok(counts) => counts,
        Err((what, _)) => {
            let again = run(seed, Setup { trace: true, ..setup }).err().map(|(_, trace)| trace).unwrap_or_default();
            let tail = again.iter().skip(again.len().saturating_sub(150)).cloned().collect::<Vec<_>>().join("\n");
            panic!("seed {seed}: {what}\nMODEL_SEED={seed} shows the whole; its end:\n{tail}");
        }
    }
}

#[test]
fn ten_thousand_histories_keep_every_promise() {
    for seed in REGRESSIONS {
        check(*seed, USUAL());
    }
    let seeds = std::env::var("MODEL_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(10_000);
    let mut counts = Counts::new();
    let half = |odd: u64| (0..seeds).filter(|seed| seed % 2 == odd).map(|seed| check(seed, USUAL())).collect::<Vec<_>>();
    let (even, odd) = std::thread::scope(|scope| {
        let odd = scope.spawn(|| half(1));
        (half(0), odd.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    for (what, count) in even.into_iter().chain(odd).flatten() {
        *counts.entry(what).or_default() += count;
    }
    println!("{counts:?}");
    // A run in which nothing happens would prove nothing.
    for (what, per_thousand) in [
        ("commit", 3000),
        ("delete-intent", 300),
        ("deleted", 100),
        ("void", 100),
        ("key-change", 100),
        ("copied record", 1000),
        ("deleted in copy", 100),
    ] {
        let found = counts.get(what).copied().unwrap_or_default();
        assert!(found * 1000 >= seeds * per_thousand, "only {found} {what} in {seeds} histories: {counts:?}");
    }
}

#[test]
fn histories_with_real_signatures() {
    for seed in 0..20 {
        check(seed, Setup { real_keys: true, ..USUAL() });
    }
}

#[test]
fn one_seed() {
    let Some(seed) = std::env::var("MODEL_SEED").ok().and_then(|n| n.parse().ok()) else { return };
    let (what, trace) = run(seed, Setup { trace: true, ..USUAL() }).unwrap_err();
    println!("{}\n{what}", trace.join("\n"));
}

/// With the rule taken out, some history within `seeds` must break a promise.
fn needed(name: &str, seeds: u64, change: fn(&mut Rules)) {
    let mut rules = Rules::default();
    change(&mut rules);
    assert_ne!(rules, Rules::default());
    let found = (0..seeds).find_map(|seed| run(seed, Setup { rules, ..USUAL() }).err().map(|(what, _)| (seed, what)));
    let (seed, what) = found.unwrap_or_else(|| panic!("{seeds} histories without {name} broke nothing"));
    println!("without {name}, seed {seed}: {what}");
}

macro_rules! rules_needed {
    ($($test:ident, $field:ident, $seeds:expr;)*) => {
        $(#[test]
        fn $test() {
            needed(stringify!($field), $seeds, |rules| rules.$field = false);
        })*
    };
}

rules_needed! {
    rule_1_same_bytes_is_needed, same_bytes, 2000;
    rule_2_judge_all_is_needed, judge_all, 2000;
    rule_3_chain_moves_is_needed, chain_moves, 2000;
    rule_4_fresh_key_is_needed, fresh_key, 2000;
    rule_5_unknown_is_unknown_is_needed, unknown_is_unknown, 2000;
    rule_6_keep_records_is_needed, keep_records, 4000;
    rule_7_plan_anew_is_needed, plan_anew, 4000;
    rule_7_dead_is_dead_is_needed, dead_is_dead, 2000;
    rule_8_orphan_intent_is_needed, orphan_intent, 2000;
    rule_8_intent_voids_is_needed, intent_voids, 2000;
    rule_9_hold_first_is_needed, hold_first, 2000;
    rule_10_refuse_late_pins_is_needed, refuse_late_pins, 2000;
    rule_11_copy_intent_is_needed, copy_intent, 2000;
    rule_11_copy_in_order_is_needed, copy_in_order, 2000;
    rule_12_unverified_is_nothing_is_needed, unverified_is_nothing, 2000;
    rule_12_unverified_takes_number_is_needed, unverified_takes_number, 2000;
}

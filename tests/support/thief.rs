//! A thief who may write to the store, may not take anything away or write over it, and has a copy of a host whose key was revoked since.
//!
//! Include it with `#[path = "support/thief.rs"] mod thief;`, beside `cli` and `versitygw`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aws_sdk_s3::primitives::ByteStream;
use drctl::catalog::MinisignKey;
use drctl::catalog::encoding::{record_subject, seal, split};
use drctl::model::JobName;

use crate::cli::{Home, Ran, walk};
use crate::versitygw::{BUCKET, Gateway, ROOT, ROOT_SECRET};

const PREFIX: &str = "acme/drctl";
const SECRET: &str = "writer-secret-canary";
const FILES: &str = "jobs:\n  - job: shop\n    sources:\n      - files: { name: data, paths: [data] }\n";

/// How long each verb may take beside twice of what it takes without a thief: machines are busy.
const SLACK: Duration = Duration::from_millis(300);

/// Random numbers that can be had again: xorshift.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }

    fn bytes(&mut self, n: u64) -> Vec<u8> {
        (0..n).map(|_| self.next() as u8).collect()
    }
}

/// Where the repository lies.
pub enum Place {
    Folder(Box<Home>),
    Bucket(Box<(Home, Gateway, tokio::runtime::Runtime, aws_sdk_s3::Client)>),
}

impl Place {
    pub fn folder() -> Place {
        let home = Home::new();
        home.write("data/a.txt", "set 0");
        home.init(FILES);
        Place::Folder(Box::new(home))
    }

    pub fn bucket(gateway: Gateway) -> Place {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        gateway.user("writer", SECRET);
        let mut home = Home::new();
        for (name, value) in [("AWS_ACCESS_KEY_ID", ROOT), ("AWS_SECRET_ACCESS_KEY", ROOT_SECRET), ("AWS_EC2_METADATA_DISABLED", "true")] {
            home.env(name, value);
        }
        home.write("data/a.txt", "set 0");
        let url = format!("s3://{BUCKET}/{PREFIX}?endpoint=http%3A%2F%2F127.0.0.1%3A{}&region=us-east-1&provider=versitygw", gateway.port);
        home.init_with(&["--store", &url], FILES);
        let printed = home.json(&["grants", "s3", &url, "--role", "writer", "--user-arn", "writer"]);
        let mut statements = printed["result"][0]["policy"]["Statement"].as_array().unwrap().clone();
        statements.iter_mut().for_each(|s| drop(s.as_object_mut().unwrap().remove("Sid")));
        runtime.block_on(gateway.policy(&serde_json::json!({ "Version": "2012-10-17", "Statement": statements })));
        let client = runtime.block_on(async { gateway.client_of("writer", SECRET) });
        Place::Bucket(Box::new((home, gateway, runtime, client)))
    }

    fn home(&self) -> &Home {
        match self {
            Place::Folder(home) => home,
            Place::Bucket(all) => &all.0,
        }
    }

    /// The folder in which the objects lie as files.
    fn data(&self) -> PathBuf {
        match self {
            Place::Folder(home) => home.path("drctl-repository"),
            Place::Bucket(all) => all.1.data().join(PREFIX),
        }
    }

    fn repo(&self) -> String {
        match self {
            Place::Folder(home) => home.path("drctl-repository").display().to_string(),
            Place::Bucket(all) => {
                format!("s3://{BUCKET}/{PREFIX}?endpoint=http%3A%2F%2F127.0.0.1%3A{}&region=us-east-1&provider=versitygw", all.1.port)
            }
        }
    }

    /// Creates an object; says whether the store took it.
    fn put(&self, key: &str, bytes: Vec<u8>) -> bool {
        match self {
            Place::Folder(_) => {
                let path = self.data().join(key);
                let made = std::fs::create_dir_all(path.parent().unwrap()).and_then(|()| std::fs::File::create_new(&path));
                made.and_then(|mut file| file.write_all(&bytes)).is_ok()
            }
            Place::Bucket(all) => {
                let put = all.3.put_object().bucket(BUCKET).key(format!("{PREFIX}/{key}")).if_none_match("*").body(ByteStream::from(bytes));
                all.2.block_on(put.send()).is_ok()
            }
        }
    }

    fn keys(&self) -> Vec<String> {
        let root = self.data();
        let mut keys = Vec::new();
        walk(&root, &mut |path| {
            let key = path.strip_prefix(&root).unwrap().display().to_string();
            if !key.starts_with(".") && path.symlink_metadata().is_ok_and(|meta| meta.is_file()) {
                keys.push(key);
            }
        });
        keys.sort();
        keys
    }
}

/// What the thief has: the old key, and what he has seen.
struct Thief {
    dice: Dice,
    key: MinisignKey,
    seen: Vec<String>,
    moves: Vec<String>,
}

impl Thief {
    fn head(place: &Place) -> u64 {
        let number = |path: &Path| path.file_name()?.to_str()?.strip_suffix(".signed")?.parse::<u64>().ok();
        let mut numbers = Vec::new();
        walk(&place.data().join("jobs/shop/log"), &mut |path| numbers.extend(number(path)));
        numbers.sort_unstable();
        numbers.iter().zip(1..).take_while(|(a, b)| *a == b).count() as u64
    }

    fn name(&mut self) -> String {
        let names = ["x", "0000000001", "0001.json", "a.b", "~", "-", ".hidden", "0000000001.signed.0", "RESTORE.md", "data", "z9"];
        let dice = &mut self.dice;
        match dice.below(3) {
            0 => (*dice.one(&names)).to_owned(),
            1 => format!("{:010}", dice.below(40)),
            _ => format!("n{}", dice.below(100_000)),
        }
    }

    fn number(&mut self, from: u64) -> u64 {
        match self.dice.below(6) {
            0 => from + 1,
            1 => from + 1 + self.dice.below(5),
            2 => from + 1 + self.dice.below(200),
            3 => from + 1 + self.dice.below(20_000),
            4 => u64::MAX - self.dice.below(3),
            _ => self.dice.next(),
        }
    }

    fn key(&mut self, place: &Place) -> String {
        match self.dice.below(12) {
            0 | 1 => format!("repository/{:04}.json", self.number(0)),
            2 | 3 => format!("keys/{:04}.json", self.number(1)),
            4..=6 => format!("jobs/shop/log/{:010}.signed", self.number(Self::head(place))),
            7 => format!("jobs/shop/lease/{:010}.json", self.number(5)),
            8 => format!("jobs/j{}/log/{:010}.signed", self.dice.below(3000), 1 + self.dice.below(3)),
            9 => format!(
                "jobs/shop/{}/{}",
                self.dice.one(&["lease", "log", "sets/2025/01/01/020000Z-full-7k3q", "sets/2025/13/x", "other"]),
                self.name()
            ),
            10 => format!("{}/{}", self.dice.one(&["repository", "keys", "jobs", "jobs/Strange", "probe", "elsewhere"]), self.name()),
            _ => self.name(),
        }
    }

    /// A record as the old key signs it, under the number that its place says.
    fn signed(&mut self, place: &Place, key: &str) -> Option<Vec<u8>> {
        let number = key.rsplit('/').next()?.strip_suffix(".signed")?.parse::<u64>().ok()?;
        let job: JobName = key.split('/').nth(1)?.parse().ok()?;
        let records: Vec<&String> = self.seen.iter().filter(|key| key.starts_with("jobs/shop/log/")).collect();
        let known = std::fs::read(place.data().join(self.dice.one(&records))).ok()?;
        let mut json: serde_json::Value = serde_json::from_str(split(&known).ok()?.json().ok()?).ok()?;
        json["number"] = number.into();
        json["job"] = job.as_str().into();
        json["key"] = 1.into();
        let set = json["body"]["manifest"]["set"].as_str().map(str::to_owned);
        if let Some(set) = set {
            match self.dice.below(4) {
                0 => json["body"] = serde_json::json!({ "type": "delete-intent", "sets": [set], "reason": "x" }),
                1 => json["body"] = serde_json::json!({ "type": "unpin", "set": set }),
                2 => {
                    let other = format!("{job}/20290101T000000Z-full-{:04}", self.dice.below(10_000));
                    json["body"]["manifest"]["set"] = other.as_str().into();
                    json["body"]["manifest"]["chain"] = other.into();
                }
                _ => {}
            }
        }
        Some(seal(&self.key, &json.to_string(), &record_subject(&job, number)).ok()?.to_vec())
    }

    fn content(&mut self, place: &Place, key: &str) -> (String, Vec<u8>) {
        let copy = |dice: &mut Dice, seen: &[String]| {
            let from = dice.one(seen).clone();
            (format!("a copy of {from}"), std::fs::read(place.data().join(&from)).unwrap_or_default())
        };
        match self.dice.below(8) {
            0 => ("nothing".into(), Vec::new()),
            1 => ("4 bytes".into(), self.dice.bytes(4)),
            2 => {
                let n = self.dice.below(4000);
                (format!("{n} bytes"), self.dice.bytes(n))
            }
            3 if self.dice.below(20) == 0 => ("70 MB".into(), vec![0; 70 << 20]),
            3 | 4 => copy(&mut self.dice, &self.seen),
            5 => {
                let (what, mut bytes) = copy(&mut self.dice, &self.seen);
                if !bytes.is_empty() {
                    let at = self.dice.below(bytes.len() as u64) as usize;
                    bytes[at] ^= 1;
                }
                (format!("{what}, a bit flipped"), bytes)
            }
            6 => {
                let epoch = key.rsplit('/').next().and_then(|name| name.strip_suffix(".json")).and_then(|n| n.parse().ok()).unwrap_or(7u64);
                let year = 2020 + self.dice.below(7979);
                let lease = format!(
                    r#"{{"epoch":{epoch},"holder":{{"host":"thief","pid":1,"since":"2025-01-01T00:00:00Z"}},"until":"{year}-06-01T00:00:00Z","released":false}}"#
                );
                (format!("a lease until {year}"), lease.into_bytes())
            }
            _ => match self.signed(place, key) {
                Some(bytes) => ("signed by the old key".into(), bytes),
                None => copy(&mut self.dice, &self.seen),
            },
        }
    }

    fn step(&mut self, place: &Place) {
        let key = self.key(place);
        let special = matches!(place, Place::Folder(_)) && self.dice.below(4) == 0;
        let (what, done) = if special {
            self.occupy(place, &key)
        } else {
            let (what, bytes) = self.content(place, &key);
            (what, place.put(&key, bytes))
        };
        self.moves.push(format!("{key}: {what}{}", if done { "" } else { " (not taken)" }));
    }

    /// Puts what is no file there.
    fn occupy(&mut self, place: &Place, key: &str) -> (String, bool) {
        let path = place.data().join(key);
        // The names of folders of the layout are left alone: whoever takes those in a folder store takes the place of all that comes.
        if path.symlink_metadata().is_ok() || std::fs::create_dir_all(path.parent().unwrap()).is_err() {
            return ("something special".into(), false);
        }
        let seen = place.data().join(self.dice.one(&self.seen));
        match self.dice.below(6) {
            0 => ("a link to /dev/zero".into(), std::os::unix::fs::symlink("/dev/zero", &path).is_ok()),
            1 => (format!("a link to {}", seen.display()), std::os::unix::fs::symlink(&seen, &path).is_ok()),
            2 => ("a link to a folder".into(), std::os::unix::fs::symlink("..", &path).is_ok()),
            3 => ("a pipe".into(), rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::from(0o600)).is_ok()),
            4 => ("a socket".into(), std::os::unix::net::UnixListener::bind(&path).is_ok()),
            _ => ("a folder".into(), std::fs::create_dir(&path).and_then(|()| std::fs::write(path.join(self.name()), "x")).is_ok()),
        }
    }
}

/// The owner, and what he knows of his sets: id and content.
struct Owner<'a> {
    place: &'a Place,
    sets: Vec<(String, String)>,
    restores: usize,
}

impl Owner<'_> {
    fn ran(&self, args: &[&str]) -> (Ran, Duration) {
        let begun = Instant::now();
        let mut command = self.place.home().command(args);
        command.env("DRCTL_PASSPHRASE_FILE", self.place.home().path("passphrase"));
        let ran = Ran::of(command.output().unwrap());
        (ran, begun.elapsed())
    }

    fn ok(&self, args: &[&str]) -> Duration {
        let (ran, took) = self.ran(args);
        assert_eq!(ran.code, 0, "drctl {args:?}\n{}", ran.all());
        took
    }

    fn backup(&mut self) -> Duration {
        let text = format!("set {}", self.sets.len());
        self.place.home().write("data/a.txt", &text);
        let took = self.ok(&["backup", "now"]);
        self.sets.push((self.place.home().newest(), text));
        took
    }

    fn restore(&mut self, at: usize) -> Duration {
        let (set, text) = self.sets[at].clone();
        self.restores += 1;
        let target = format!("back{}", self.restores);
        let took = self.ok(&["restore", &set, "--source", "data", "--target", &target, "--yes"]);
        let home = self.place.home();
        let file = home.files(&target).into_iter().find(|file| file.ends_with("a.txt")).unwrap();
        assert_eq!(std::fs::read_to_string(home.path(&target).join(file)).unwrap(), text, "{set}");
        std::fs::remove_dir_all(home.path(&target)).unwrap();
        took
    }

    /// Prunes. What takes a number of the log may have been a pin that was damaged: a person looks first, as often as there is a new one.
    fn prune(&self) -> Duration {
        for _ in 0..30 {
            let (ran, took) = self.ran(&["prune", "--apply"]);
            if ran.code == 0 {
                return took;
            }
            assert!(ran.code == 5 && ran.err.contains("drctl repository acknowledge shop"), "{}", ran.all());
            self.ok(&["repository", "acknowledge", "shop", "--yes"]);
        }
        panic!("however often a person looks, nothing can be pruned");
    }

    /// Every verb once, each with the time that it took.
    fn every_verb(&mut self) -> Vec<(String, Duration)> {
        let (repo, newest) = (self.place.repo(), self.sets.last().unwrap().0.clone());
        self.ok(&["repository", "acknowledge", "shop", "--yes"]);
        let mut took = vec![("backup".to_owned(), self.backup()), ("restore".to_owned(), self.restore(0))];
        let with_repo = ["list", "--repo", &repo, "--recovery", "drctl-recovery.txt"];
        for args in [
            &["list"][..],
            &["list", "--job", "shop"],
            &["status"],
            &["show", &newest],
            &["verify", &newest],
            &["cat", &newest, "data"],
            &["key", "list"],
            &["unlock", "shop"],
            &["prune"],
            &["hold", &newest],
            &with_repo,
        ] {
            took.push((args[..args.len().min(2)].join(" "), self.ok(args)));
        }
        took.push(("prune --apply".into(), self.prune()));
        let (doctor, time) = self.ran(&["doctor"]);
        assert!(doctor.out.contains("newest good set"), "{}", doctor.all());
        took.push(("doctor".into(), time));
        took
    }
}

/// What the owner does beside the thief; without him it is done once more, to measure by.
#[derive(Clone, Copy)]
enum Deed {
    Backup,
    Restore(usize),
    Every,
}

impl Owner<'_> {
    fn does(&mut self, deed: Deed) {
        match deed {
            Deed::Backup => drop(self.backup()),
            Deed::Restore(at) => drop(self.restore(at)),
            Deed::Every => drop(self.every_verb()),
        }
    }
}

fn owner(place: &Place) -> Owner<'_> {
    let mut owner = Owner { place, sets: Vec::new(), restores: 0 };
    owner.backup();
    owner.backup();
    owner
}

/// Plays for `THIEF_SECONDS` in a place that `make` makes.
pub fn run(make: impl Fn() -> Place) {
    let seconds = std::env::var("THIEF_SECONDS").ok().and_then(|n| n.parse().ok()).unwrap_or(60);
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    let seed = std::env::var("THIEF_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(clock) | 1;
    println!("THIEF_SEED={seed} THIEF_SECONDS={seconds}");
    let place = make();
    let old = std::fs::read_to_string(place.home().path("drctl-keys/signing.key")).unwrap();
    let key = MinisignKey::from_text(&drctl::model::Secret::new(old)).unwrap();
    let mut owner = owner(&place);
    let mut thief = Thief { dice: Dice(seed), key, seen: place.keys(), moves: Vec::new() };
    owner.ok(&["key", "rotate", "--by", "drctl-recovery.txt"]);

    let playing = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let end = Instant::now() + Duration::from_secs(seconds);
        let mut deeds = Vec::new();
        while Instant::now() < end || deeds.is_empty() {
            for _ in 0..20 {
                thief.step(&place);
            }
            let at = thief.dice.below(owner.sets.len() as u64) as usize;
            for deed in [Some(Deed::Backup), Some(Deed::Restore(at)), (deeds.len() % 10 == 0).then_some(Deed::Every)] {
                let Some(deed) = deed else { continue };
                owner.does(deed);
                deeds.push(deed);
            }
        }
        // Junk is read once by each host.
        owner.every_verb();
        let times = [owner.every_verb(), owner.every_verb()];
        for at in 0..owner.sets.len() {
            owner.restore(at);
        }
        let doctor = owner.ran(&["doctor"]).0.all();
        assert!(doctor.contains("nobody signed it"), "{doctor}");
        let status = owner.ran(&["status"]).0.all();
        assert!(status.contains("passed over"), "{status}");
        println!("{} sets, {} moves, {} objects in the store", owner.sets.len(), thief.moves.len(), place.keys().len());
        (deeds, times)
    }));
    let (deeds, with) = match playing {
        Ok(played) => played,
        Err(panic) => {
            println!("the last moves before it broke (THIEF_SEED={seed}):");
            thief.moves.iter().rev().take(25).rev().for_each(|step| println!("  {step}"));
            std::panic::resume_unwind(panic);
        }
    };
    // The same without a thief.
    let alone = make();
    let mut owner = self::owner(&alone);
    deeds.into_iter().for_each(|deed| owner.does(deed));
    owner.every_verb();
    let without = [owner.every_verb(), owner.every_verb()];
    let mut slow = Vec::new();
    for (at, (verb, _)) in with[0].iter().enumerate() {
        let (took, measure) = (with[0][at].1.min(with[1][at].1), without[0][at].1.max(without[1][at].1));
        println!("{verb}: {took:.0?}, without the thief {measure:.0?}");
        if took > measure * 2 + SLACK {
            slow.push(verb.clone());
        }
    }
    assert!(slow.is_empty(), "more than twice its time: {slow:?}");
}

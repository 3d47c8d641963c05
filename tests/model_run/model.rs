//! The model: an independent reading of the log, written from FORMAT.md and not from src/catalog.
//!
//! It sees every record in the order in which it came to stand and every object that came or went, and says at once when
//! something that must never be is so. It shares no code with the catalog but the JSON field names.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use drctl::model::{Sha256, Timestamp};

/// A committed set.
#[derive(Clone, Default)]
struct Set {
    number: u64,
    chain: String,
    prefix: String,
    objects: Vec<(String, String)>,
    dead: bool,
    /// Number of the intent that named it.
    dead_by: Option<u64>,
    /// Whether its manifest names the copy.
    copied: bool,
    pins: Option<Timestamp>,
    holds: BTreeMap<String, Timestamp>,
}

/// What must be true.
pub struct Model {
    pub violation: Option<String>,
    repository: String,
    previous: String,
    /// Number of the newest record, and the live sets after each record.
    pub live_at: Vec<BTreeSet<String>>,
    keys: BTreeMap<u64, String>,
    /// The highest key that ever was valid: older ones do not come any more.
    newest_key: u64,
    offered: BTreeMap<u64, (String, String, Vec<u64>)>,
    sets: BTreeMap<String, Set>,
    doomed: BTreeSet<String>,
    closed: BTreeSet<String>,
    told_void: BTreeSet<String>,
    store: BTreeMap<String, String>,
    /// What stands in the copy, and the newest record there.
    copy: BTreeMap<String, String>,
    copy_head: u64,
    ever_good: bool,
    /// How many records of each type counted, and how often writers were told what.
    pub counts: BTreeMap<String, u64>,
    verify: fn(&str, &[u8], u64) -> bool,
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

/// Where a set's objects lie: written out again from FORMAT "Keys".
fn prefix_of(set: &str) -> String {
    let (job, rest) = set.split_once('/').unwrap();
    format!("jobs/{job}/sets/{}/{}/{}/{}/", &rest[0..4], &rest[4..6], &rest[6..8], &rest[9..])
}

impl Model {
    pub fn new(verify: fn(&str, &[u8], u64) -> bool) -> Model {
        Model {
            violation: None,
            repository: String::new(),
            previous: String::new(),
            live_at: vec![BTreeSet::new()],
            keys: BTreeMap::new(),
            newest_key: 1,
            offered: BTreeMap::new(),
            sets: BTreeMap::new(),
            doomed: BTreeSet::new(),
            closed: BTreeSet::new(),
            told_void: BTreeSet::new(),
            store: BTreeMap::new(),
            copy: BTreeMap::new(),
            copy_head: 0,
            ever_good: false,
            counts: BTreeMap::new(),
            verify,
        }
    }

    pub fn wrong(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    pub fn head(&self) -> u64 {
        self.live_at.len() as u64 - 1
    }

    fn live(&self) -> BTreeSet<String> {
        self.sets.iter().filter(|(_, set)| !set.dead).map(|(id, _)| id.clone()).collect()
    }

    /// An object came to stand at `now` (server date).
    pub fn created(&mut self, key: &str, bytes: &[u8], now: Timestamp) {
        let sha256 = Sha256::of(bytes).to_string();
        if self.store.insert(key.to_owned(), sha256.clone()).is_some() {
            self.wrong(format!("{key} was overwritten"));
        }
        if key.contains("/sets/") {
            return;
        }
        let line = bytes.split(|b| *b == b'\n').next().unwrap_or_default();
        let json: Value = serde_json::from_slice(line).unwrap_or_default();
        if key == "drctl-repository.json" {
            self.repository = text(&json, "repository").to_owned();
            self.previous = sha256;
        } else if key.starts_with("keys/") {
            let revokes = json["revokes"].as_array().map(|all| all.iter().filter_map(Value::as_u64).collect()).unwrap_or_default();
            let number = json["number"].as_u64().unwrap_or_default();
            let public = text(&json, "public").to_owned();
            if number == 1 {
                self.keys.insert(1, public.clone());
            }
            self.offered.insert(number, (public, sha256, revokes));
        } else if let Some(number) = key.split_once("/log/").map(|(_, n)| n.trim_end_matches(".signed").parse::<u64>().unwrap()) {
            if number != self.head() + 1 {
                return self.wrong(format!("two records stood under {number}, or one before its time; the head is {}", self.head()));
            }
            let before = std::mem::replace(&mut self.previous, sha256);
            let ours =
                text(&json, "repository") == self.repository && json["number"].as_u64() == Some(number) && text(&json, "job") == "shop";
            let key = json["key"].as_u64().unwrap_or_default();
            // A new key may bring itself and those before it, nothing else.
            let brings = json["body"]["type"] == "key-change" && key > self.newest_key && json["body"]["number"].as_u64() <= Some(key);
            let public = self.keys.get(&key).or_else(|| self.offered.get(&key).filter(|_| brings).map(|(public, ..)| public));
            let signed = public.is_some_and(|public| (self.verify)(public, bytes, number));
            if ours && signed {
                if text(&json, "previous") != before {
                    self.wrong(format!("record {number} does not bind the bytes before it"));
                }
                self.record(number, &json["body"], now);
            }
            let live = self.live();
            if self.ever_good && live.is_empty() {
                self.wrong(format!("record {number} took the last good set"));
            }
            self.live_at.push(live);
            self.check_whole();
        }
    }

    fn record(&mut self, number: u64, body: &Value, now: Timestamp) {
        let set = text(body, "set").to_owned();
        let until = text(body, "until").parse::<Timestamp>();
        *self.counts.entry(text(body, "type").to_owned()).or_default() += 1;
        match text(body, "type") {
            "commit" => self.commit(number, &body["manifest"]),
            "delete-intent" => self.intent(number, body, now),
            kind @ ("pin" | "hold") => match self.sets.get_mut(&set) {
                Some(known) if !known.dead => match (kind, until) {
                    ("pin", Ok(until)) => known.pins = known.pins.max(Some(until)),
                    (_, Ok(until)) => drop(known.holds.insert(text(body, "hold").to_owned(), until)),
                    _ => self.wrong(format!("record {number} has no end")),
                },
                _ => self.wrong(format!("record {number}, a {kind}, was promised on {set}, which is gone")),
            },
            "unpin" => drop(self.sets.get_mut(&set).and_then(|known| known.pins.take())),
            "release" => drop(self.sets.get_mut(&set).and_then(|known| known.holds.remove(text(body, "hold")))),
            "close-chain" => drop(self.closed.insert(text(body, "chain").to_owned())),
            "key-change" => {
                let key = body["number"].as_u64().unwrap_or_default();
                if let Some((public, sha256, revokes)) = self.offered.get(&key).cloned()
                    && sha256 == text(body, "sha256")
                    && key > self.newest_key
                {
                    self.newest_key = key;
                    self.keys.retain(|old, _| !revokes.contains(old));
                    self.keys.insert(key, public);
                }
            }
            _ => {}
        }
    }

    fn commit(&mut self, number: u64, manifest: &Value) {
        let id = text(manifest, "set").to_owned();
        let chain = text(manifest, "chain").to_owned();
        let base = manifest["base"].as_u64().unwrap_or(u64::MAX);
        if let Some(before) = self.sets.get(&id) {
            return self.wrong(format!("{id} was committed twice, by {} and {number}", before.number));
        }
        if self.doomed.contains(&id) {
            return self.wrong(format!("{id} was committed by {number} though an intent names it"));
        }
        if self.told_void.contains(&id) {
            return self.wrong(format!("{id} was committed by {number} though its writer was told that it is void"));
        }
        if id != chain {
            let moved = self.sets.values().any(|set| set.chain == chain && set.number > base);
            if moved || self.closed.contains(&chain) || self.sets.get(&chain).is_none_or(|first| first.dead) {
                return self.wrong(format!("{id} joined by {number} a chain that is closed, gone, or moved on since {base}"));
            }
        }
        let mut objects = Vec::new();
        collect_objects(manifest, &mut objects);
        let prefix = prefix_of(&id);
        let copied = manifest["stores"].as_array().is_some_and(|names| names.iter().any(|name| name == "copy"));
        self.sets.insert(id, Set { number, chain, prefix, objects, copied, ..Set::default() });
        self.ever_good = true;
    }

    fn intent(&mut self, number: u64, body: &Value, now: Timestamp) {
        let named: BTreeSet<String> = body["sets"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
        let mut wrong = None;
        for (id, set) in self.sets.iter_mut().filter(|(_, set)| !set.dead) {
            if named.contains(id) {
                if set.pins.is_some_and(|until| until > now) {
                    wrong = Some(format!("the intent {number} names {id}, which is pinned"));
                }
                if set.holds.values().any(|until| *until > now) {
                    wrong = Some(format!("the intent {number} names {id}, which is held"));
                }
                set.dead = true;
                set.dead_by = Some(number);
                self.closed.insert(set.chain.clone());
            } else if named.contains(&set.chain) {
                wrong = Some(format!("the intent {number} leaves {id} without its chain"));
            }
        }
        if let Some(what) = wrong {
            self.wrong(what);
        }
        self.doomed.extend(named);
    }

    /// An object went.
    pub fn deleted(&mut self, key: &str) {
        self.store.remove(key);
        self.check_whole();
    }

    /// An object came to stand in the copy. Rule 11: records in order, none that does not stand in the first store with the same bytes.
    pub fn copy_created(&mut self, key: &str, bytes: &[u8]) {
        let sha256 = Sha256::of(bytes).to_string();
        if self.copy.insert(key.to_owned(), sha256.clone()).is_some() {
            self.wrong(format!("{key} was overwritten in the copy"));
        }
        if key.contains("/sets/") {
            return;
        }
        if self.store.get(key) != Some(&sha256) {
            self.wrong(format!("the copy leads: {key} does not stand in the first store, or with other bytes"));
        }
        if let Some(number) = key.split_once("/log/").map(|(_, n)| n.trim_end_matches(".signed").parse::<u64>().unwrap()) {
            if number != self.copy_head + 1 {
                self.wrong(format!("record {number} came into the copy after {}", self.copy_head));
            }
            *self.counts.entry("copied record".to_owned()).or_default() += 1;
            self.copy_head = number;
            self.check_copy();
        }
    }

    /// An object went from the copy.
    pub fn copy_deleted(&mut self, key: &str) {
        if self.copy.remove(key).is_some() {
            *self.counts.entry("deleted in copy".to_owned()).or_default() += 1;
        }
        self.check_copy();
    }

    /// Every set that a reader of the copy lists, and that was stored there, has every object there.
    fn check_copy(&mut self) {
        let lost = self.sets.iter().filter(|(_, set)| set.copied && set.number <= self.copy_head).find_map(|(id, set)| {
            let listed = set.dead_by.is_none_or(|intent| intent > self.copy_head);
            let lacks = |(file, sha256): &&(String, String)| self.copy.get(&format!("{}{file}", set.prefix)) != Some(sha256);
            let file = set.objects.iter().find(lacks).filter(|_| listed)?;
            Some(format!("the copy lists {id} and lacks {}", file.0))
        });
        if let Some(what) = lost {
            self.wrong(what);
        }
    }

    /// (a) Every set committed and not dead has every object with the right bytes.
    fn check_whole(&mut self) {
        let lost = self.sets.iter().filter(|(_, set)| !set.dead).find_map(|(id, set)| {
            let whole = |(file, sha256): &&(String, String)| self.store.get(&format!("{}{file}", set.prefix)) == Some(sha256);
            set.objects.iter().find(|object| !whole(object)).map(|(file, _)| format!("{id} is committed and lacks {file}"))
        });
        if let Some(what) = lost {
            self.wrong(what);
        }
    }

    /// A writer was told that its set exists.
    pub fn told_committed(&mut self, set: &str, number: u64) {
        match self.sets.get(set) {
            Some(known) if known.number == number => {}
            Some(known) => self.wrong(format!("{set} was said to stand at {number}, it stands at {}", known.number)),
            None => self.wrong(format!("{set} was said to stand at {number}, it does not exist")),
        }
    }

    /// A writer was told that its set never will be.
    pub fn told_void(&mut self, set: &str) {
        *self.counts.entry("void".to_owned()).or_default() += 1;
        // A set that was committed and deleted since is as good as void.
        if self.sets.get(set).is_some_and(|known| !known.dead) {
            self.wrong(format!("{set} was said to be void, it exists"));
        }
        self.told_void.insert(set.to_owned());
    }

    /// (b) What a reader lists at `head` is what was live there.
    pub fn listed(&mut self, who: &str, head: u64, live: &BTreeSet<String>) {
        match self.live_at.get(head as usize) {
            None => self.wrong(format!("{who} has read up to {head}, the log ends at {}", self.head())),
            Some(expected) if expected != live => self.wrong(format!("{who} lists {live:?} at {head}, there are {expected:?}")),
            Some(_) => {}
        }
    }

    /// A reader under a hold in force did not find an object.
    pub fn lost_under_hold(&mut self, set: &str) {
        self.wrong(format!("a reader lost an object of {set} under its hold"));
    }
}

/// Every `{file, stored_bytes, stored_sha256}` in a manifest.
fn collect_objects(value: &Value, out: &mut Vec<(String, String)>) {
    match value {
        Value::Object(map) if map.contains_key("stored_sha256") => {
            out.push((text(value, "file").to_owned(), text(value, "stored_sha256").to_owned()));
        }
        Value::Object(map) => map.values().for_each(|inner| collect_objects(inner, out)),
        Value::Array(all) => all.iter().for_each(|inner| collect_objects(inner, out)),
        _ => {}
    }
}

//! The world of one history: chance, the server's clock, a store whose answers get lost and whose writes land late.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::FutureExt as _;

use drctl::error::{Error, Kind, Result};
use drctl::model::{TestClock, Timestamp};
use drctl::store::memory::MemoryStore;
use drctl::store::{Body, Entry, Head, Piece, Store, whole};

use crate::model::Model;

/// SplitMix64.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x9e37_79b9_7f4a_7c15)
    }

    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0 .. n
    pub fn roll(&mut self, n: u64) -> u64 {
        self.bits() % n
    }

    pub fn percent(&mut self, p: u64) -> bool {
        self.roll(100) < p
    }
}

/// Which of the repository's stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    First,
    Copy,
}

/// A write or delete on its way.
#[derive(Debug)]
pub enum Op {
    Put(String, Bytes),
    Delete(String),
}

pub struct World {
    pub dice: Dice,
    pub model: Model,
    /// With the server that it is on its way to.
    pub late: Vec<(Place, Op)>,
    /// Percent of requests that go wrong in some way.
    pub faults: u64,
    pub trace: Option<Vec<String>>,
}

pub type Shared = Arc<Mutex<World>>;

impl World {
    pub fn say(&mut self, what: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            let line = what();
            trace.push(line);
        }
    }
}

/// Returns `Pending` once: a point where others run, or where a crash may come.
pub struct Yield(bool);

pub fn step() -> Yield {
    Yield(false)
}

impl Future for Yield {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.0, true) {
            return Poll::Ready(());
        }
        // Groups of futures ask only those that were woken.
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

/// The server of one store.
pub struct Server {
    pub place: Place,
    pub store: MemoryStore,
    pub clock: Arc<TestClock>,
    pub world: Shared,
}

impl Server {
    pub fn new(place: Place, world: Shared, now: Timestamp) -> Server {
        let clock = Arc::new(TestClock::at(now));
        Server { place, store: MemoryStore::new(clock.clone()), clock, world }
    }

    /// Carries an operation out, and tells the model.
    pub fn land(&self, op: Op) -> Result<()> {
        match op {
            Op::Put(key, bytes) => {
                let done = whole::create(&self.store, &key, bytes.clone()).now_or_never().expect("memory answers at once");
                if done.is_ok() {
                    let now = drctl::model::Clock::now(&*self.clock);
                    let mut world = self.world.lock().unwrap();
                    world.say(|| format!("    + {key} in {:?}", self.place));
                    match self.place {
                        Place::First => world.model.created(&key, &bytes, now),
                        Place::Copy => world.model.copy_created(&key, &bytes),
                    }
                }
                done
            }
            Op::Delete(key) => {
                let done = self.store.delete(&key).now_or_never().expect("memory answers at once");
                let mut world = self.world.lock().unwrap();
                world.say(|| format!("    - {key} in {:?}", self.place));
                match self.place {
                    Place::First => world.model.deleted(&key),
                    Place::Copy => world.model.copy_deleted(&key),
                }
                done
            }
        }
    }
}

/// An operation whose sender may die: then it may still land.
struct InFlight<'a> {
    world: &'a Shared,
    place: Place,
    op: Option<Op>,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        if let Some(op) = self.op.take() {
            let mut world = self.world.lock().unwrap();
            if world.dice.percent(60) {
                world.late.push((self.place, op));
            }
        }
    }
}

/// The server as one host sees it over a bad network.
pub struct Line(pub Arc<Server>);

fn unreachable(what: &str) -> Error {
    Error::new(Kind::Unreachable, format!("{what}: no answer"))
}

impl Line {
    async fn send(&self, op: Op, what: &str) -> Result<()> {
        let world = &self.0.world;
        let mut flight = InFlight { world, place: self.0.place, op: Some(op) };
        step().await;
        let fate = {
            let mut world = world.lock().unwrap();
            let faults = world.faults;
            if world.dice.percent(faults) { world.dice.roll(3) } else { 9 }
        };
        let Some(op) = flight.op.take() else { return Err(unreachable(what)) };
        match fate {
            0 => Err(unreachable(what)),
            1 => {
                world.lock().unwrap().late.push((self.0.place, op));
                Err(unreachable(what))
            }
            2 => {
                let _ = self.0.land(op);
                Err(unreachable(what))
            }
            _ => {
                let done = self.0.land(op);
                // Landed, and the answer is on its way: a crash here knows nothing of it.
                step().await;
                done
            }
        }
    }

    async fn read<T>(&self, what: &str, answer: Result<T>) -> Result<T> {
        let lost = {
            let mut world = self.0.world.lock().unwrap();
            let faults = world.faults / 4;
            world.dice.percent(faults)
        };
        if lost { Err(unreachable(what)) } else { answer }
    }
}

#[async_trait]
impl Store for Line {
    fn location(&self) -> String {
        "model".into()
    }

    async fn put(&self, key: &str, mut body: Body) -> Result<()> {
        let mut data = BytesMut::new();
        while let Piece::Data(bytes) = body.next().await? {
            data.extend_from_slice(&bytes);
        }
        self.send(Op::Put(key.to_owned(), data.freeze()), key).await
    }

    async fn get_range(&self, key: &str, offset: u64, length: u64) -> Result<Bytes> {
        self.0.store.get_range(key, offset, length).await
    }

    async fn head(&self, key: &str) -> Result<Head> {
        step().await;
        self.read(key, self.0.store.head(key).await).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<Entry>> {
        step().await;
        self.read(prefix, self.0.store.list(prefix, after, limit).await).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.send(Op::Delete(key.to_owned()), key).await
    }

    async fn server_date(&self) -> Result<Timestamp> {
        self.0.store.server_date().await
    }
}

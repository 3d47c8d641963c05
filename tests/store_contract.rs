//! One suite that every store must pass, and what the folder store promises beyond it.

#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

#[path = "store_contract/suite.rs"]
mod suite;

#[path = "store_contract/folder.rs"]
mod folder;

#[path = "store_contract/disk_order.rs"]
mod disk_order;

#[path = "store_contract/wrappers.rs"]
mod wrappers;

#[path = "store_contract/s3.rs"]
mod s3;

#[path = "support/s3_proxy.rs"]
mod s3_proxy;
#[path = "support/versitygw.rs"]
mod versitygw;

use std::sync::Arc;
use std::time::Duration;

use drctl::observe::Bus;
use drctl::store::DynStore;
use drctl::store::faulty::FaultyStore;
use drctl::store::local::LocalStore;
use drctl::store::memory::MemoryStore;
use drctl::store::retry::{RetryPolicy, RetryStore};

/// A store, and the folder that must live as long as it does.
type Fixture = (DynStore, Option<tempfile::TempDir>);

fn in_memory() -> Fixture {
    (Arc::new(MemoryStore::default()), None)
}

fn in_a_folder() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(LocalStore::create(&folder.path().join("made/anew")).unwrap());
    (store, Some(folder))
}

fn retrying() -> Fixture {
    let policy = RetryPolicy { first_delay: Duration::from_millis(1), ..RetryPolicy::default() };
    (Arc::new(RetryStore::new(in_memory().0, policy, Bus::new())), None)
}

fn faulty_without_rules() -> Fixture {
    (Arc::new(FaultyStore::new(in_memory().0)), None)
}

macro_rules! contract {
    ($store:ident: $($case:ident),+ $(,)?) => {
        mod $store {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let (store, _folder) = super::$store();
                    crate::suite::$case(store).await;
                }
            )+
        }
    };
}

macro_rules! contract_over {
    ($($store:ident),+ $(,)?) => {$(
        contract!($store:
            create_only, sixteen_creators_one_winner, an_aborted_body_leaves_nothing, a_wrong_end_leaves_nothing, ranges, heads,
            pages_come_in_byte_order, prefixes, odd_keys, deleting_twice, an_empty_object, a_large_object, dates_go_forward,
            reading_while_others_write,
        );
    )+};
}

contract_over!(in_memory, in_a_folder, retrying, faulty_without_rules);

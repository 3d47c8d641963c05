//! The suite over a real S3 server, by every checksum that a provider may have.

use std::sync::Arc;
use std::time::Duration;

use drctl::store::DynStore;
use drctl::store::retry::RetryPolicy;
use drctl::store::s3::{Algorithm, S3Store, Settings};

use crate::s3_proxy::{Fault, Proxy, When};
use crate::versitygw::{self, Gateway};

async fn store(gateway: &Gateway, prefix: &str, checksum: Algorithm) -> DynStore {
    let settings = Settings { checksum: Some(checksum), ..Settings::default() };
    Arc::new(S3Store::open(&gateway.place(prefix), settings).await.unwrap())
}

macro_rules! over_s3 {
    ($name:ident, $prefix:literal, $checksum:expr, $($case:ident),+ $(,)?) => {
        mod $name {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let Some(gateway) = versitygw::start() else { return };
                    crate::suite::$case(store(&gateway, $prefix, $checksum).await).await;
                }
            )+
        }
    };
}

over_s3!(
    crc64nvme,
    "drctl",
    Algorithm::Crc64Nvme,
    a_wrong_checksum_or_length_at_the_end_leaves_nothing,
    create_only,
    sixteen_creators_one_winner,
    an_aborted_body_leaves_nothing,
    a_wrong_end_leaves_nothing,
    ranges,
    heads,
    pages_come_in_byte_order,
    prefixes,
    odd_keys,
    deleting_twice,
    an_empty_object,
    a_large_object,
    dates_go_forward,
    reading_while_others_write,
);

over_s3!(
    crc32c_in_the_bucket_itself,
    "",
    Algorithm::Crc32c,
    create_only,
    ranges,
    heads,
    pages_come_in_byte_order,
    prefixes,
    an_empty_object,
    a_large_object,
);

over_s3!(
    no_checksum_below_two_folders,
    "a/b",
    Algorithm::None,
    create_only,
    an_aborted_body_leaves_nothing,
    a_wrong_end_leaves_nothing,
    heads,
    pages_come_in_byte_order,
    deleting_twice,
    an_empty_object,
    a_large_object,
);

/// A line on which one request in four or so goes wrong in one way or another.
async fn over_a_bad_line(gateway: &Gateway) -> DynStore {
    let proxy = Proxy::before(gateway.port).await;
    let faults = [
        (5, Fault::Answer(500, "InternalError")),
        (7, Fault::Swallow),
        (11, Fault::CutUp(0)),
        (13, Fault::Answer(503, "SlowDown")),
        (17, Fault::CutDown(3)),
    ];
    for (n, fault) in faults {
        proxy.rule("*", "", When::Every(n), fault);
    }
    let retry = RetryPolicy {
        tries: 12,
        first_delay: Duration::from_millis(1),
        longest_delay: Duration::from_millis(50),
        ..RetryPolicy::default()
    };
    let settings = Settings { retry, ..Settings::default() };
    Arc::new(S3Store::open(&gateway.place_at(&proxy.endpoint(), "drctl"), settings).await.unwrap())
}

macro_rules! over_a_bad_line {
    ($($case:ident),+ $(,)?) => {
        mod bad_line {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let Some(gateway) = versitygw::start() else { return };
                    crate::suite::$case(over_a_bad_line(&gateway).await).await;
                }
            )+
        }
    };
}

// Without `create_only`: after a lost answer equal bytes pass for one's own (rule 1).
over_a_bad_line!(
    sixteen_creators_one_winner,
    an_aborted_body_leaves_nothing,
    a_wrong_end_leaves_nothing,
    ranges,
    heads,
    pages_come_in_byte_order,
    prefixes,
    odd_keys,
    deleting_twice,
    an_empty_object,
    a_large_object,
    dates_go_forward,
    reading_while_others_write,
);

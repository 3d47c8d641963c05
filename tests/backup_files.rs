//! Backup and verification of a folder over the true parts, without the command line.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic")]

use std::sync::Arc;

use drctl::catalog::env::Env;
use drctl::catalog::{Repository, RoleKey};
use drctl::model::Sha256;
use drctl::model::record::Grade;
use drctl::ops::backup::{BackupOptions, backup};
use drctl::ops::verify::verify;
use drctl::ops::{JobSpec, Setup, SourceSpec};
use drctl::pipeline::seal::{Identities, Sealing};
use drctl::pipeline::split::Sink;
use drctl::source::files::{FilesSettings, FilesSource};
use drctl::store::local::LocalStore;

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_becomes_a_set_that_verifies() {
    let temp = tempfile::tempdir().unwrap();
    let data = temp.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("a.txt"), "hello").unwrap();
    std::fs::write(data.join("b.bin"), vec![7u8; 3_000_000]).unwrap();

    let store = Arc::new(LocalStore::create(&temp.path().join("repo")).unwrap());
    let new = Repository::init(store.clone(), Env::default(), "test").await.unwrap();
    let (secret, recipient) = Identities::generate();
    let mut setup = Setup::new(new.repository.clone(), vec![Sink::new("local", store)], Sealing::Age(vec![recipient]));
    setup.keys = vec![RoleKey { number: 1, signer: Arc::new(new.key) }];
    setup.identities = Identities::parse(&secret, "test").unwrap();
    let source = FilesSource::new("uploads", FilesSettings::all_of([&data])).unwrap();
    let job = JobSpec {
        name: "shop".parse().unwrap(),
        group: "main".into(),
        sources: vec![SourceSpec { source: Arc::new(source), allowed: Default::default(), allow_plaintext: false }],
        warnings: Vec::new(),
        config_text: "x: 1\n".into(),
        config_sha256: Sha256::of(b""),
    };
    let report = backup(&setup, &job, &BackupOptions::default()).await.unwrap();
    println!("{report:#?}");
    assert_eq!(report.state, "complete");
    let mut log = setup.log(&job.name).await.unwrap();
    let verified = verify(&setup, &mut log, &report.set, Grade::ReadBack).await.unwrap();
    println!("{verified:#?}");
    assert!(verified.passed, "{:?}", verified.findings);
}

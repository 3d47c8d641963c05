//! A store that could not be opened: every request gives the error that stood in the way.
//!
//! So a repository can be read from its first store while a further one is down; whoever needs that one hears why it is not there.

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;

use crate::error::{Error, Kind, Result};
use crate::store::{Body, Entry, Head, Store};

/// Stands in the place of a store that is not there.
pub struct AbsentStore {
    location: String,
    kind: Kind,
    why: String,
    hint: Option<String>,
}

impl AbsentStore {
    /// For the store at `location`, which could not be opened because of `error`.
    pub fn new(location: String, error: &Error) -> Self {
        AbsentStore { location, kind: error.kind(), why: error.to_string(), hint: error.hint_text().map(str::to_owned) }
    }

    fn error<T>(&self) -> Result<T> {
        let error = Error::new(self.kind, self.why.clone());
        Err(match &self.hint {
            Some(hint) => error.hint(hint.clone()),
            None => error,
        })
    }
}

#[async_trait]
impl Store for AbsentStore {
    fn location(&self) -> String {
        self.location.clone()
    }
    async fn put(&self, _: &str, _: Body) -> Result<()> {
        self.error()
    }
    async fn get_range(&self, _: &str, _: u64, _: u64) -> Result<Bytes> {
        self.error()
    }
    async fn head(&self, _: &str) -> Result<Head> {
        self.error()
    }
    async fn list(&self, _: &str, _: Option<&str>, _: usize) -> Result<Vec<Entry>> {
        self.error()
    }
    async fn delete(&self, _: &str) -> Result<()> {
        self.error()
    }
    async fn server_date(&self) -> Result<Timestamp> {
        self.error()
    }
}

//! (to come)

/// The state file.
pub struct StateFile;

impl StateFile {
    /// x
    pub fn journal_note(&self, _restore: &str, _source: &str, _key: &str, _value: &serde_json::Value) -> crate::error::Result<()> {
        Ok(())
    }
    /// x
    pub fn journal_get(&self, _restore: &str, _source: &str, _key: &str) -> crate::error::Result<Option<serde_json::Value>> {
        Ok(None)
    }
    /// x
    pub fn journal_restores(&self) -> crate::error::Result<Vec<String>> {
        Ok(vec![])
    }
}
/// x
pub fn process_is_alive(_pid: u32) -> bool {
    true
}

//! (to come)

/// The state file.
pub struct StateFile;

impl StateFile {
    pub fn open(_: &std::path::Path) -> crate::error::Result<Self> {
        Ok(StateFile)
    }
    pub fn run_started(&self, _: &str, _: &str) -> crate::error::Result<i64> {
        Ok(1)
    }
    pub fn run_finished(&self, _: i64, _: Option<&str>, _: u8, _: Option<&str>) -> crate::error::Result<()> {
        Ok(())
    }
    pub fn interrupted_runs(&self) -> crate::error::Result<Vec<String>> {
        Ok(vec![])
    }
    pub fn high_water(&self, _: &str, _: &str) -> crate::error::Result<Option<(u64, crate::model::Sha256)>> {
        Ok(None)
    }
    pub fn raise_high_water(&self, _: &str, _: &str, _: u64, _: &crate::model::Sha256) -> crate::error::Result<()> {
        Ok(())
    }

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

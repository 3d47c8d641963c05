//! `drctl config check|show|schema`.
use crate::cli::args::{ConfigVerb, Global};
use crate::cli::output::Output;
use crate::error::Result;
pub fn run(_g: &Global, _o: Output, _v: ConfigVerb) -> Result<u8> {
    Ok(0)
}

//! `drctl init`.
use crate::cli::Shell;
use crate::cli::args::InitArgs;
use crate::error::Result;
pub async fn run(_s: &Shell, _a: InitArgs) -> Result<u8> {
    Ok(0)
}

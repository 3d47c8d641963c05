//! `drctl key`.

use crate::cli::Shell;
use crate::cli::args::{KeyArgs, KeyVerb};
use crate::cli::open::{Opened, recovery_file};
use crate::error::Result;
use crate::ops::confirm::confirm;

/// Tries the recovery file.
pub async fn run(shell: &Shell, args: KeyArgs) -> Result<u8> {
    let KeyVerb::Confirm { file } = args.verb;
    let opened = Opened::for_reading(shell).await?;
    let (file, secrets) = recovery_file(&file).await?;
    let confirmed = confirm(&opened.setup, &file, &secrets).await?;
    shell.out.result("key", &confirmed, |confirmed| {
        let sets: Vec<String> = confirmed.sets.iter().map(ToString::to_string).collect();
        format!("ok  the recovery file and its passphrase open {}\nput it back where it came from, away from this host\n", sets.join(", "))
    });
    Ok(0)
}

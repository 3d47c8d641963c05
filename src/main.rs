//! arguments → [`drctl::cli::run`] → exit code.

fn main() -> std::process::ExitCode {
    drctl::cli::run(std::env::args_os())
}

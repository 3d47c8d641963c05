//! Running a tool where the server is, so that no client need be installed here and no other version can come in between.
//!
//! A secret goes there as the first line of standard input: it stands neither in arguments, which every user of both machines can read,
//! nor in a file. A program that only writes is watched over by the shell that started it: when standard input ends, because drctl, `docker`
//! or `ssh` ended however, the program is ended too. (Killing `docker exec` alone leaves the process in the container.)

use crate::error::Result;
use crate::model::Secret;
use crate::process::Command;
use crate::reach::Reach;

/// A program to run there.
#[derive(Clone, Debug, Default)]
pub struct Program {
    /// Names it in errors: `pg_dump of shop`.
    pub what: String,
    /// Name or absolute path there.
    pub path: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Variables for it; no secrets.
    pub env: Vec<(String, String)>,
    /// A variable that holds a secret, at most 4,000 bytes without a line break.
    pub secret: Option<(String, Secret)>,
    /// It reads its standard input: then nobody watches over it, and it must end when its input does.
    pub reads: bool,
}

/// `$1` is the name of the variable that the first line goes to, or nothing.
const TAKE: &str = r#"v=$1; shift; IFS= read -r s || exit 90; if [ -n "$v" ]; then export "$v=$s"; fi; unset s; "#;
const READER: &str = r#"exec "$@""#;
/// The watcher must not hold the output open, and reads by itself, so that there is no other process to be left behind.
const WRITER: &str = r#"exec 3<&0; "$@" </dev/null 3<&- & p=$!; trap 'kill $p' TERM HUP INT; { while read -r x; do :; done; kill $p; } <&3 >/dev/null 2>&1 & w=$!; exec 3<&-; wait $p; r=$?; kill $w 2>/dev/null; exit $r"#;

/// The command that runs it. Its exit status is the program's; for a program that writes, its standard output is too.
pub async fn command(reach: &dyn Reach, program: &Program) -> Result<Command> {
    let script = format!("{TAKE}{}", if program.reads { READER } else { WRITER });
    let (variable, secret) = program.secret.clone().unwrap_or_else(|| (String::new(), Secret::new("")));
    let mut args = vec![variable, "env".to_owned()];
    args.extend(program.env.iter().map(|(name, value)| format!("{name}={value}")));
    args.push(program.path.clone());
    args.extend(program.args.iter().cloned());
    let command = reach.shell(&program.what, &script, &args).await?;
    Ok(command.secret(&secret).first_input(Secret::new(format!("{}\n", secret.expose()))))
}

/// A text as one word for any shell.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::{Duration, Instant};

    use async_trait::async_trait;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::error::Error;
    use crate::process::{Limits, Reason};
    use crate::reach::{Judge, Link};

    /// A shell here, taken apart once more as ssh has it done.
    #[derive(Debug)]
    struct Here;

    #[async_trait]
    impl Reach for Here {
        fn name(&self) -> String {
            "here".into()
        }
        async fn connect(&self, _: &str, _: u16) -> Result<Link> {
            Err(Error::failed("no"))
        }
        async fn address(&self, _: &str, _: u16) -> Result<Option<SocketAddr>> {
            Ok(None)
        }
        async fn shell(&self, what: &str, script: &str, args: &[String]) -> Result<Command> {
            let words = ["-c", script, "sh"].into_iter().chain(args.iter().map(String::as_str)).map(quoted);
            Ok(Command::new(what, "/bin/sh").arg("-c").arg(format!("exec sh {}", words.collect::<Vec<_>>().join(" "))))
        }
        fn host_there<'a>(&self, host: &'a str) -> &'a str {
            host
        }
        fn judge(&self) -> Judge {
            |_| None
        }
    }

    fn shell(script: &str, reads: bool) -> Program {
        Program {
            what: "a tool".into(),
            path: "sh".into(),
            args: vec!["-c".into(), script.into(), "it's".into(), "a b".into()],
            env: vec![("PLAIN".into(), "x y".into())],
            secret: Some(("SECRET".into(), Secret::new(" can\\ary '\"$x "))),
            reads,
        }
    }

    #[tokio::test]
    async fn a_program_gets_arguments_variables_and_the_secret_as_they_are() {
        let script = r#"printf '%s|%s|%s|%s' "$0" "$1" "$PLAIN" "$SECRET"; exit 0"#;
        let command = command(&Here, &shell(script, false)).await.unwrap();
        assert!(!format!("{command:?}").contains("can\\"), "{command:?}");
        let (out, _) = command.output(&CancellationToken::new(), 1000).await.unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "it's|a b|x y| can\\ary '\"$x ");
    }

    #[tokio::test]
    async fn a_bad_end_there_is_a_bad_end_here() {
        let command = command(&Here, &shell("echo sorry >&2; exit 7", false)).await.unwrap();
        let failure = command.output(&CancellationToken::new(), 1000).await.unwrap_err();
        assert_eq!(failure.reason, Reason::Exit(7));
        assert_eq!(failure.stderr, ["sorry"]);
    }

    #[tokio::test]
    async fn a_reader_gets_what_follows_the_secret() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("out");
        let script = format!("cat > {}", file.display());
        let command = command(&Here, &shell(&script, true)).await.unwrap();
        command.feed(&CancellationToken::new(), |input| input.write(b"line one\nline two").map(|_| ())).await.unwrap();
        assert_eq!(std::fs::read_to_string(file).unwrap(), "line one\nline two");
    }

    /// A line of what the kernel tells of a process.
    fn status(pid: u32, line: &str) -> String {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        status.lines().find_map(|l| l.strip_prefix(line)).unwrap().trim().to_owned()
    }

    fn parent(pid: u32) -> u32 {
        status(pid, "PPid:").parse().unwrap()
    }

    fn takes_sigterm(pid: u32) -> bool {
        u64::from_str_radix(&status(pid, "SigCgt:"), 16).unwrap() & (1 << (15 - 1)) != 0
    }

    /// Only the shell that stands for docker or ssh is killed, as when those die; the program is another process group's.
    #[tokio::test]
    async fn the_end_of_the_input_ends_the_program() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        // A session of its own: killing the group of the child does not reach it, as killing `docker exec` does not reach the container.
        let script = format!("echo $$ > {}; exec sleep 1000", file.display());
        let mut program = shell(&script, false);
        program.args.splice(0..0, ["-c".into(), r#"exec setsid sh "$@""#.into(), "sh".into()]);
        let cancel = CancellationToken::new();
        let limits = Limits { grace: Duration::from_secs(60), ..Limits::default() };
        let running = tokio::spawn({
            let cancel = cancel.clone();
            async move { command(&Here, &program).await.unwrap().limits(limits).output(&cancel, 1000).await }
        });
        let since = Instant::now();
        let pid = loop {
            assert!(since.elapsed() < Duration::from_secs(60));
            let pid = std::fs::read_to_string(&file).ok().and_then(|t| t.trim().parse::<u32>().ok());
            // The program may begin before the shell that started it has set its trap.
            if let Some(pid) = pid.filter(|pid| takes_sigterm(parent(*pid))) {
                break pid;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        cancel.cancel();
        assert_eq!(running.await.unwrap().unwrap_err().reason, Reason::Cancelled);
        let alive = || std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z"));
        while alive() {
            assert!(since.elapsed() < Duration::from_secs(120), "process {pid} was left behind");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

//! Secrets stay where they belong: passwords, the environment's values, the recovery passphrase and the private keys are looked for in
//! the arguments and environments of children while they run, and afterwards in all that was printed, logged and stored (promise 7).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic")]

#[path = "support/cli.rs"]
mod cli;
#[path = "support/shop.rs"]
mod shop;
#[path = "support/postgres.rs"]
mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use cli::Ran;
use shop::{ENV_CANARY, Shop};
use support::PASSWORD;

const PASSPHRASE: &str = "correct horse battery staple";

/// What children were seen with.
#[derive(Default)]
struct Seen {
    programs: BTreeSet<String>,
    leaks: BTreeSet<String>,
    /// That the look works: the variable that only the `command` source may have was seen there.
    control: bool,
}

/// Descendants of a process.
fn descendants(root: u32) -> Vec<u32> {
    let numbers = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    let parents: Vec<(u32, u32)> = numbers
        .filter_map(|pid| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let parent = stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()?;
            Some((pid, parent))
        })
        .collect();
    let mut found = vec![root];
    let mut at = 0;
    while at < found.len() {
        let parent_pid = found[at];
        found.extend(parents.iter().filter(|(_, parent)| *parent == parent_pid).map(|(pid, _)| *pid));
        at += 1;
    }
    found
}

/// Runs drctl and looks at its family as often as can be.
fn watched(shop: &Shop, args: &[&str], canaries: &[String], seen: &mut Seen) -> Ran {
    let child = shop.home.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let root = child.id();
    let waiting = std::thread::spawn(move || Ran::of(child.wait_with_output().unwrap()));
    while !waiting.is_finished() {
        for pid in descendants(root) {
            for file in ["cmdline", "environ"] {
                let text = String::from_utf8_lossy(&std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default()).replace('\0', " ");
                if file == "cmdline" && pid != root {
                    seen.programs.insert(text.split(' ').next().unwrap_or_default().rsplit('/').next().unwrap_or_default().to_owned());
                }
                seen.control |=
                    file == "environ" && pid != root && text.contains("TOKEN=canary-token-of-command") && text.contains("PATH=");
                for canary in canaries.iter().filter(|c| text.contains(c.as_str())) {
                    seen.leaks.insert(format!("{canary} in {file} of {text}"));
                }
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    waiting.join().unwrap()
}

fn search(what: &str, bytes: &[u8], canaries: &[String], found: &mut Vec<String>) {
    for canary in canaries {
        if bytes.windows(canary.len()).any(|window| window == canary.as_bytes()) {
            found.push(format!("{canary} in {what}"));
        }
    }
}

fn search_below(folder: &Path, canaries: &[String], found: &mut Vec<String>) {
    cli::walk(folder, &mut |path| search(&path.display().to_string(), &std::fs::read(path).unwrap_or_default(), canaries, found));
}

#[test]
fn no_secret_shows_anywhere() {
    let mut shop = Shop::new();
    // Enough to be seen at work, and a role whose password is a secret of the database.
    shop.sql("CREATE TABLE big AS SELECT i, repeat(md5(i::text), 8) t FROM generate_series(1, 40000) i");
    let role = format!("{}_canary_role", shop.database);
    shop.sql(&format!("CREATE ROLE {role} PASSWORD 'canary-role-pw'"));
    let mut command = "command: { name: hello, run: [sh, -c, 'echo hello; sleep 0.2; echo $TOKEN >&2'], artifact: greeting, env: { TOKEN: { env: THE_TOKEN } } }".to_owned();
    command =
        shop.jobs().replace("command: { name: hello, run: [sh, -c, 'echo hello world'], artifact: greeting, extension: txt }", &command);
    shop.home.env("THE_TOKEN", "canary-token-of-command");
    shop.set_jobs(&command);

    let identity = shop.file("drctl-keys/identity.txt");
    let identity = identity.lines().find(|l| l.starts_with("AGE-SECRET-KEY-1")).unwrap().to_owned();
    let signing = shop.file("drctl-keys/signing.key").lines().last().unwrap().to_owned();
    // As it is, as a .pgpass has it, as SQL and as a URL have it.
    let mut canaries: Vec<String> =
        [PASSWORD, "canary:pg", "canary\\:pg", "canary%3Apg", ENV_CANARY, "canary-role-pw", PASSPHRASE].map(str::to_owned).to_vec();
    canaries.extend([identity, signing]);
    // The command's own token is in the environment of that command alone, and ours: that is where it comes from.
    let mut everywhere = canaries.clone();
    everywhere.push("canary-token-of-command".into());

    let mut seen = Seen::default();
    let mut told = Vec::new();
    let verbose: &[&[&str]] = &[
        &["backup", "now", "-vvv"],
        &["backup", "now", "--json"],
        &["verify", "-vv"],
        &["list", "--json"],
        &["show", "latest", "--json"],
        &["status", "--json"],
        &["config", "show"],
        &["config", "show", "--json"],
        &["config", "check", "--json"],
        &["diff", "latest", "latest"],
        &["cat", "latest", "drctl.yaml"],
        &["cat", "latest", "no-such"],
        &["restore", "latest", "--yes", "-vvv"],
        &["restore", "--undo", "-vv"],
        &["restore", "--finish", "--json", "--yes"],
        &["restore", "latest", "--source", "environment", "--source", "compose", "--yes", "-vv"],
        &["restore", "latest", "--source", "postgres", "--in-place", "--yes", "--json"],
    ];
    for args in verbose {
        let ran = watched(&shop, args, &canaries, &mut seen);
        assert!(ran.code == 0 || args[0] == "cat", "{args:?}: {}", ran.all());
        told.push((format!("{args:?}"), ran));
    }
    // A look may have come too late for one that is soon done.
    let programs = ["pg_dump", "pg_dumpall", "pg_restore", "sh"];
    for args in [&["backup", "now"][..], &["restore", "latest", "--source", "postgres", "--in-place", "--yes"]].repeat(5) {
        if !seen.control || !programs.iter().all(|program| seen.programs.contains(*program)) {
            let ran = watched(&shop, args, &canaries, &mut seen);
            assert_eq!(ran.code, 0, "{args:?}: {}", ran.all());
        }
    }
    for program in programs {
        assert!(seen.programs.contains(program), "{program} was not seen at work: {:?}", seen.programs);
    }

    let phrase = shop.home.path("passphrase").display().to_string();
    shop.home.env("DRCTL_PASSPHRASE_FILE", &phrase);
    let recovery = ["--repo", "drctl-repository", "--recovery", "drctl-recovery.txt", "verify", "-vvv"];
    let ran = watched(&shop, &recovery, &canaries, &mut seen);
    assert_eq!(ran.code, 0, "{}", ran.all());
    told.push(("by the recovery file".into(), ran));

    // A target whose URL holds the password, refused and tried; a wrong password; a server that is down.
    let url = format!("postgres://postgres:canary-in-url@127.0.0.1:{}/{}", shop.server.port, shop.database);
    everywhere.push("canary-in-url".into());
    for args in [
        &["restore", "latest", "--source", "postgres", "--target", &url, "--dry-run"][..],
        &["restore", "latest", "--source", "postgres", "--target", &url],
    ] {
        told.push((format!("{args:?}"), shop.run(args)));
    }
    shop.home.write("pg-password", "canary-wrong-password");
    everywhere.push("canary-wrong-password".into());
    let wrong = shop.run(&["backup", "now", "--source", "postgres", "-vvv"]);
    assert_ne!(wrong.code, 0);
    assert!(wrong.err.contains("password"), "{}", wrong.err);
    told.push(("wrong password".into(), wrong));
    shop.home.env("PGPASSWORD", "canary-wrong-password");
    let down = shop.home.path("drctl.yaml");
    let text = std::fs::read_to_string(&down).unwrap().replace(&format!("port: {}", shop.server.port), "port: 1");
    std::fs::write(&down, text).unwrap();
    told.push(("down".into(), shop.run(&["backup", "now", "--source", "postgres", "-vvv", "--json"])));

    assert!(seen.control, "environments cannot be read here");
    assert!(seen.leaks.is_empty(), "{:#?}", seen.leaks);
    let mut found = Vec::new();
    for (what, ran) in &told {
        search(what, ran.out.as_bytes(), &everywhere, &mut found);
        search(&format!("standard error of {what}"), ran.err.as_bytes(), &everywhere, &mut found);
    }
    // Records, guides, leases, sealed objects; the state file with its journal of restores.
    search_below(&shop.home.path("drctl-repository"), &everywhere, &mut found);
    search_below(&shop.home.path("../state"), &everywhere, &mut found);
    search("drctl-recovery.txt", shop.file("drctl-recovery.txt").as_bytes(), &everywhere, &mut found);
    search("drctl.yaml", shop.file("drctl.yaml").as_bytes(), &everywhere, &mut found);
    assert!(found.is_empty(), "{found:#?}");
    assert!(told.iter().any(|(_, ran)| ran.err.len() > 2000), "the logs were on");
}

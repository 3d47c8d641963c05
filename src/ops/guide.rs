//! `RESTORE.md`: how to open a set with stock tools, on the day this program is gone. Written into every set, in clear.

use std::fmt::Write as _;

use crate::model::{Artifact, ArtifactFormat, Codec, Encryption, IndexPlace, Manifest};

/// Everything the guide says; the manifest's `guide` itself is not looked at.
pub fn restore_guide(manifest: &Manifest, repository: &str, root_key: &str) -> String {
    let mut out = String::new();
    let set = &manifest.set;
    let _ = write!(
        out,
        "# How to restore {set}\n\n\
         This folder holds one backup set of job `{job}`, begun {at} on host `{host}` by drctl {version}.\n\
         It opens with stock tools: `age`, `zstd`{gzip}, `tar`, PostgreSQL's `pg_restore` and `psql`. With drctl at hand it is one line:\n\n\
         ```sh\ndrctl restore {set}\n```\n\n",
        job = set.job(),
        at = manifest.started_at.strftime("%Y-%m-%d %H:%M:%S UTC"),
        host = manifest.host,
        version = manifest.drctl_version,
        gzip = if manifest.artifacts.iter().any(|a| matches!(a.codec, Codec::Gzip { .. })) { ", `gzip`" } else { "" },
    );
    let recipients: Vec<&str> = manifest.artifacts.iter().chain([&manifest.details]).flat_map(recipients).map(String::as_str).collect();
    if let Some(first) = recipients.first() {
        let mut all = recipients.clone();
        all.sort_unstable();
        all.dedup();
        let _ = write!(
            out,
            "## The key\n\n\
             The files ending in `.age` are sealed for: {}.\n\
             Put the matching identity (a line `AGE-SECRET-KEY-1…`, kept in the recovery file or password manager) into a file `key.txt`.\n\
             `age-keygen -y key.txt` must print {}.\n\n",
            all.join(", "),
            if all.len() == 1 { (*first).to_owned() } else { "one of them".to_owned() },
        );
    }
    out.push_str(
        "## Check first\n\n\
         Save this list as `sums` and run `sha256sum -c sums` in this folder:\n\n```text\n",
    );
    for object in manifest.artifacts.iter().chain([&manifest.details]).flat_map(Artifact::every_object) {
        let _ = writeln!(out, "{}  {}", object.stored_sha256, object.file);
    }
    out.push_str("```\n\n");
    let _ = write!(
        out,
        "The signed record that commits this set is in `jobs/{job}/log/` of the repository: `grep -l {short} ../../../../../log/*.signed` finds it.\n\
         To check its signature with stock minisign (repository {repository}, root key `{root_key}`):\n\n\
         ```sh\nhead -n 1 RECORD.signed > record.json\ntail -n +2 RECORD.signed > record.json.minisig\n\
         minisign -V -P ROLE_KEY -m record.json    # ROLE_KEY: the field \"public\" of ../../../../../../../keys/0001.json\n```\n\n## Open\n\n",
        job = set.job(),
        short = set.short(),
    );
    for source in &manifest.sources {
        let mut first = true;
        for artifact in manifest.artifacts.iter().filter(|a| a.source == source.name) {
            if first {
                let _ = write!(out, "### {} ({}), as of {}\n\n", source.name, source.kind, source.as_of.strftime("%Y-%m-%d %H:%M:%S UTC"));
                first = false;
            }
            artifact_lines(&mut out, artifact);
        }
    }
    out.push_str("### Details\n\nTrue names, counts per table and database properties that the dumps do not hold (owner, settings, access rights):\n\n");
    let _ = write!(out, "```sh\n{}\n```\n", open_line(&manifest.details, "details.json"));
    if !manifest.state.reasons().is_empty() {
        let _ = write!(out, "\n## This set is {}\n\n", manifest.state.name());
        for reason in manifest.state.reasons() {
            let _ = writeln!(out, "- {reason}");
        }
    }
    out
}

fn recipients(artifact: &Artifact) -> &[String] {
    match &artifact.encryption {
        Encryption::Age { recipients } => recipients,
        Encryption::None => &[],
    }
}

/// The command that prints the plain stream.
fn plain_command(artifact: &Artifact) -> String {
    let files: Vec<&str> = artifact.objects.iter().map(|o| o.file.as_str()).collect();
    let cat = format!("cat {}", files.join(" "));
    let mut line = match artifact.encryption {
        Encryption::Age { .. } if files.len() == 1 => format!("age -d -i key.txt {}", files[0]),
        Encryption::Age { .. } => format!("{cat} | age -d -i key.txt"),
        Encryption::None => cat,
    };
    match artifact.codec {
        Codec::Zstd { .. } => line.push_str(" | zstd -d"),
        Codec::Gzip { .. } => line.push_str(" | gzip -d"),
        Codec::None => {}
    }
    line
}

fn open_line(artifact: &Artifact, name: &str) -> String {
    format!("{} > {name}", plain_command(artifact))
}

fn artifact_lines(out: &mut String, artifact: &Artifact) {
    let plain = plain_command(artifact);
    let file = artifact.objects.first().map_or(artifact.file.as_str(), |o| o.file.as_str());
    let base = file.split(".zst").next().and_then(|f| f.split(".gz").next()).and_then(|f| f.split(".age").next()).unwrap_or(file);
    let lines = match artifact.format {
        ArtifactFormat::PgCustom => format!(
            "createdb --template=template0 NEW_DATABASE    # its true name and properties: see Details\n\
             {plain} | pg_restore --exit-on-error --dbname=NEW_DATABASE"
        ),
        ArtifactFormat::Sql => format!("{plain} > {base}\nless {base}    # look before you run it\npsql --dbname=postgres --file={base}"),
        ArtifactFormat::Tar => format!("mkdir restored && {plain} | tar -x --xattrs --xattrs-include='*' --numeric-owner -C restored"),
        ArtifactFormat::Env | ArtifactFormat::Yaml | ArtifactFormat::Json | ArtifactFormat::Raw => format!("{plain} > {base}"),
    };
    let totals: Vec<String> = artifact.totals.iter().map(|(name, count)| format!("{count} {name}")).collect();
    let _ = write!(out, "`{}`: {} bytes plain, {}.\n\n```sh\n{lines}\n```\n\n", artifact.file, artifact.plain_bytes, totals.join(", "));
    if let IndexPlace::Beside { object, .. } = &artifact.index {
        let _ = write!(out, "`{}` is its frame index; it is not needed here.\n\n", object.file);
    }
}

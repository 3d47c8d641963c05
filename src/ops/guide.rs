//! `RESTORE.md`: how to open a set with stock tools, on the day this program is gone. Written into every set, in clear.

use std::fmt::Write as _;

use crate::model::{Artifact, ArtifactFormat, Codec, Encryption, IndexPlace, Manifest};
use crate::ops::words::{count, counted};

/// What goes for every dump of a database. pg_restore empties the search_path (CVE-2018-1058), so what calls by a bare name fails in it and works
/// in psql.
const POSTGRES: &str = "\
PostgreSQL's programs connect to the server that `PGHOST`, `PGPORT`, `PGUSER` and `PGPASSWORD` name. They must be as new as the server, and
pg_restore as new as the pg_dump that made the dump.

Where Details name the extension `timescaledb` for a database, make it there first, in that version: `CREATE EXTENSION timescaledb
VERSION '…'`, then `SELECT timescaledb_pre_restore()`; after pg_restore `SELECT timescaledb_post_restore()`.

pg_restore goes on past errors and counts them at its end (`errors ignored on restore: N`). The `grep` behind it shows those that matter; if it
shows none, all is loaded. It leaves out that the server does not know `transaction_timeout`: pg_restore is newer than the server, no harm.
Each that it shows stands in the file `….errors`. Go through them from the first to the last:

- `Command was:` is followed by the statement that failed. Run it again, when the rest is loaded, in `psql --dbname=NEW_DATABASE`: there the
  database's own search_path holds, which pg_restore empties. First `SET ROLE` to the owner of what it makes, so that no function runs as a
  superuser. Where the server says `unrecognized … parameter`, leave that parameter out.
- `COPY failed for table`, or a statement that begins with `COPY`: none of the rows of this table are there. Mend what the error names, then
  put in front of the following the line of that dump up to `| LC_ALL=C`: `| pg_restore --data-only --table=TABLE --file=- | grep -avxF
  \"SELECT pg_catalog.set_config('search_path', '', false);\" | PGOPTIONS='-c lc_monetary=C' psql --dbname=NEW_DATABASE`.

`lc_monetary=C` is how values of type money are written in the dumps; read otherwise they would be other amounts. Where Details name another
`money_locale` for a database, use that one.

";

/// From a set's folder (`jobs/<job>/sets/2025/01/01/<set>`) to its job's.
const UP_TO_JOB: &str = "../../../../..";

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
    let _ = write!(
        out,
        "Out of a bucket it comes first, with the signed records, into an empty folder: `aws s3 sync s3://BUCKET/PREFIX . --exclude '*/sets/*'\n\
         --include '{prefix}/*'` (and `--endpoint-url URL` where it is not AWS), then `cd {prefix}`.\n\n",
        prefix = set.prefix().trim_end_matches('/'),
    );
    out.push_str("Type the lines below in this folder, in `bash`. So that no broken pipe goes unseen, begin with:\n\n");
    out.push_str("```sh\nset -o pipefail\n```\n\n## Check first\n\nEvery line must end in OK:\n\n```sh\ncat > sums <<'END'\n");
    for object in manifest.artifacts.iter().chain([&manifest.details]).flat_map(Artifact::every_object) {
        let _ = writeln!(out, "{}  {}", object.stored_sha256, object.file);
    }
    out.push_str("END\nsha256sum -c sums\n```\n\n");
    let _ = write!(
        out,
        "Who wrote them: the signed record that commits this set is in `jobs/{job}/log/` of the repository (id {repository}). With stock\n\
         minisign, from this folder inside the repository; the root key must be the one of your recovery file:\n\n\
         ```sh\n\
         record=$(grep -lF '\"type\":\"commit\",\"manifest\":{{\"set\":\"{set}\"' {up}/log/*.signed)\n\
         head -n 1 \"$record\" > record.json && tail -n +2 \"$record\" > record.json.minisig\n\
         head -n 1 {up}/../../keys/0001.json > key.json && tail -n +2 {up}/../../keys/0001.json > key.json.minisig\n\
         minisign -V -P {root_key} -m key.json\n\
         minisign -V -P \"$(sed 's/.*\"public\":\"\\([^\"]*\\)\".*/\\1/' key.json)\" -m record.json\n\
         cut -d ' ' -f 1 sums | while read -r sum; do grep -q \"$sum\" record.json || echo \"NOT in the record: $sum\"; done\n\
         ```\n\n\
         Where the record's field `key` is not 1, take that key file instead of `0001.json`.\n\n\
         ## Open\n\n",
        job = set.job(),
        up = UP_TO_JOB,
    );
    if manifest.artifacts.iter().any(|a| a.format == ArtifactFormat::PgCustom) {
        out.push_str(POSTGRES);
    }
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
    format!("{} > {}", plain_command(artifact), beside(artifact, name))
}

/// A name for the plain bytes that is none of the set's own: what is stored neither compressed nor sealed has the plain name already,
/// and a shell empties the file behind `>` before anything reads it.
fn beside(artifact: &Artifact, name: &str) -> String {
    if artifact.objects.iter().any(|object| object.file == name) { format!("plain.{name}") } else { name.to_owned() }
}

fn artifact_lines(out: &mut String, artifact: &Artifact) {
    let plain = plain_command(artifact);
    let file = artifact.objects.first().map_or(artifact.file.as_str(), |o| o.file.as_str());
    let base = file.split(".zst").next().and_then(|f| f.split(".gz").next()).and_then(|f| f.split(".age").next()).unwrap_or(file);
    let base = &beside(artifact, base);
    let lines = match artifact.format {
        ArtifactFormat::PgCustom => format!(
            "createdb --template=template0 NEW_DATABASE    # its true name and properties: see Details\n\
             {plain} | LC_ALL=C PGOPTIONS='-c lc_monetary=C' pg_restore --dbname=NEW_DATABASE 2> {base}.errors\n\
             grep ' error: ' {base}.errors | grep -v transaction_timeout    # shows nothing: all is loaded\n\
             vacuumdb --analyze-in-stages --dbname=NEW_DATABASE    # statistics for the planner, which a dump does not hold"
        ),
        ArtifactFormat::Sql => format!(
            "{plain} > {base}\nless {base}    # look before you run it\n\
             psql -X --dbname=postgres --file={base}    # that a role exists already is no harm"
        ),
        ArtifactFormat::Tar => format!("mkdir -p restored && {plain} | tar -x --xattrs --xattrs-include='*' --numeric-owner -C restored"),
        ArtifactFormat::Env | ArtifactFormat::Yaml | ArtifactFormat::Json | ArtifactFormat::Raw => format!("{plain} > {base}"),
    };
    let counts = counted(artifact.totals.iter().map(|(name, count)| (name.as_str(), *count)));
    let holds = if counts.is_empty() { counts } else { format!(": {counts}") };
    let plain_bytes = count(artifact.plain_bytes, "byte");
    let _ = write!(out, "`{}`, {plain_bytes} plain{holds}.\n\n```sh\n{lines}\n```\n\n", artifact.file);
    if let IndexPlace::Beside { object, .. } = &artifact.index {
        let _ = write!(out, "`{}` is its frame index; it is not needed here.\n\n", object.file);
    }
}

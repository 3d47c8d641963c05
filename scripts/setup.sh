#!/usr/bin/env bash
# Installs what tests, demo and bench need on a Debian-like machine, says what, and does nothing when all of it is there.
set -euo pipefail
. "$(dirname "$0")/common.sh"

# command or file to look for : package that brings it : what it is for
NEEDS=(
  "cc:build-essential:building the bundled SQLite and zstd"
  "/usr/lib/postgresql/*/bin/postgres:postgresql:the database that is backed up in tests"
  "pg_dump:postgresql-client:the dump tool"
  "age:age:opening sets without drctl"
  "zstd:zstd:opening sets without drctl"
  "minisign:minisign:checking records without drctl"
  "tar:tar:opening sets without drctl"
  "gzip:gzip:opening sets without drctl"
  "/usr/bin/time:time:measuring"
  "python3:python3:free ports, sums and medians in scripts"
  "unshare:util-linux:full and read-only disks in tests"
  "setpriv:util-linux:running PostgreSQL as another user"
  "mount:mount:full and read-only disks in tests"
  "getfattr:attr:extended attributes in tests"
  "setfacl:acl:access lists in tests"
  "strace:strace:looking at what a child is given"
)

missing=()
for need in "${NEEDS[@]}"; do
  IFS=: read -r what package why <<< "$need"
  if [[ $what == /* ]]; then
    compgen -G "$what" > /dev/null && continue
  else
    command -v "$what" > /dev/null && continue
  fi
  say "missing: $what ($why), in package $package"
  missing+=("$package")
done

if [ ${#missing[@]} -gt 0 ]; then
  mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)
  command -v apt-get > /dev/null || die "no apt-get here; install by your own means: ${missing[*]}"
  line="apt-get install -y --no-install-recommends ${missing[*]}"
  [ "$(id -u)" = 0 ] || die "not root; run: sudo apt-get update && sudo $line"
  if [[ " ${missing[*]} " == *" postgresql "* ]] && [ ! -e /etc/postgresql-common/createcluster.conf ]; then
    say "installing PostgreSQL without a server of its own (/etc/postgresql-common/createcluster.conf: create_main_cluster = false)"
    mkdir -p /etc/postgresql-common
    echo 'create_main_cluster = false' > /etc/postgresql-common/createcluster.conf
  fi
  export DEBIAN_FRONTEND=noninteractive
  say "running: apt-get update"
  apt-get update -qq
  say "running: $line"
  # shellcheck disable=SC2086
  $line > /dev/null
fi

command -v cargo > /dev/null || die "no Rust here; see https://rustup.rs, then run again"
wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$ROOT/Cargo.toml")
have=$(rustc --version | cut -d' ' -f2)
[ "$(printf '%s\n%s\n' "$wanted" "$have" | sort -V | head -1)" = "$wanted" ] || die "Rust $have is too old, $wanted is needed; run: rustup update"

# Without it the tests against S3 say that they are skipped.
"$ROOT/scripts/versitygw.sh" || [ $? = 77 ]

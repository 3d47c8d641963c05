#!/usr/bin/env bash
# Installs what tests, demo and bench need on a Debian-like machine, says what, and does nothing when all of it is there.
set -euo pipefail
. "$(dirname "$0")/common.sh"

# command or file to look for : package that brings it : what it is for
NEEDS=(
  "cc:build-essential:building the bundled SQLite and zstd"
  "/usr/lib/postgresql/*/bin/postgres:postgresql:the database that is backed up in tests"
  "pg_dump:postgresql-client:the dump tool"
  "/usr/*bin/pgbouncer:pgbouncer:a pooler before the database in tests"
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
  "ip:iproute2:a network of its own for the tests of Docker"
  "ssh:openssh-client:databases behind ssh"
  "/usr/sbin/sshd:openssh-server:databases behind ssh, in tests"
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

# A container engine for the tests of Docker, where root can have one; where not, they say that they were skipped.
if [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null && [ -z "${DRCTL_NO_DOCKER:-}" ]; then
  docker=()
  command -v dockerd > /dev/null || docker+=(docker.io)
  command -v debootstrap > /dev/null || docker+=(debootstrap)
  docker compose version > /dev/null 2>&1 || command -v docker-compose > /dev/null || docker+=(docker-compose)
  if [ ${#docker[@]} -gt 0 ]; then
    say "running: apt-get install -y --no-install-recommends ${docker[*]} (for the tests of Docker; DRCTL_NO_DOCKER=1 does without)"
    export DEBIAN_FRONTEND=noninteractive
    { [ ${#missing[@]} -gt 0 ] || apt-get update -qq; } && apt-get install -y --no-install-recommends "${docker[@]}" > /dev/null || say "that failed: the tests of Docker will be skipped"
  fi
  for image in postgres tools; do
    "$(dirname "$0")/docker-image.sh" $image > /dev/null || [ $? = 77 ]
  done
fi

command -v cargo > /dev/null || die "no Rust here; see https://rustup.rs, then run again"
wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$ROOT/Cargo.toml")
have=$(rustc --version | cut -d' ' -f2)
[ "$(printf '%s\n%s\n' "$wanted" "$have" | sort -V | head -1)" = "$wanted" ] || die "Rust $have is too old, $wanted is needed; run: rustup update"

# Without it the tests against S3 say that they are skipped.
"$ROOT/scripts/versitygw.sh" || [ $? = 77 ]
# So do the tests of clients and servers of several versions.
"$ROOT/scripts/postgres-wheels.sh" || [ $? = 77 ]

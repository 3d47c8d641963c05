# Sourced by the other scripts: where things are kept, how a server is started as another user, how to say something.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
CACHE=${DRCTL_TESTBENCH:-${XDG_CACHE_HOME:-$HOME/.cache}/drctl-testbench}

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }

# The newest PostgreSQL on this machine: its folder of programs.
postgres_bin() {
  local bin
  bin=$(find /usr/lib/postgresql -mindepth 2 -maxdepth 2 -name bin 2>/dev/null | sort -V | tail -1)
  [ -n "$bin" ] || die "no PostgreSQL server under /usr/lib/postgresql; run: make setup"
  printf '%s\n' "$bin"
}

# PostgreSQL refuses to run as root: as root its commands run as user postgres, else as ourselves.
as_postgres() {
  if [ "$(id -u)" = 0 ]; then
    (cd / && exec setpriv --reuid postgres --regid postgres --init-groups "$@")
  else
    "$@"
  fi
}

# Below the ports that Linux gives to outgoing connections, one of which could take it before the server that it is meant for.
free_port() {
  python3 - <<'END'
import random, socket
for port in random.sample(range(20000, 30000), 100):
    try:
        with socket.socket() as s:
            s.bind(("127.0.0.1", port))
        print(port)
        break
    except OSError:
        pass
END
}

# Where servers are kept between runs: the cache, unless user postgres cannot get there (a closed home of root).
servers_folder() {
  mkdir -p "$CACHE"
  if [ "$(id -u)" != 0 ] || as_postgres test -x "$CACHE"; then
    printf '%s\n' "$CACHE"
  else
    mkdir -p /var/cache/drctl-testbench
    printf '%s\n' /var/cache/drctl-testbench
  fi
}

# start_postgres FOLDER [PORT]: makes a server there if there is none and starts it on 127.0.0.1. Sets PGHOST, PGPORT, PGUSER, PGPASSWORD.
# The password of this throwaway server is random and lies in FOLDER/password (0600). POSTGRES_OPTIONS holds further options.
start_postgres() {
  local folder=$1 bin
  bin=$(postgres_bin)
  if [ ! -e "$folder/data/PG_VERSION" ]; then
    mkdir -p "$folder/data" "$folder/socket"
    (umask 077 && head -c 18 /dev/urandom | base64 | tr -d '/+=' > "$folder/password")
    chmod 0711 "$folder"
    chmod 0700 "$folder/data"
    if [ "$(id -u)" = 0 ]; then chown -R postgres: "$folder/data" "$folder/socket" "$folder/password"; fi
    as_postgres "$bin/initdb" -D "$folder/data" -U postgres -A scram-sha-256 --pwfile="$folder/password" -E UTF8 --locale=C.UTF-8 --no-sync \
      > "$folder/initdb.log" || die "initdb failed; see $folder/initdb.log"
    if [ "$(id -u)" = 0 ]; then chown root: "$folder/password"; fi
  fi
  PGPORT=${2:-$(free_port)}
  as_postgres "$bin/pg_ctl" -D "$folder/data" -l "$folder/data/server.log" -w -s \
    -o "-c listen_addresses=127.0.0.1 -c port=$PGPORT -c unix_socket_directories=$folder/socket ${POSTGRES_OPTIONS:-}" start \
    || die "PostgreSQL did not start; its log: $folder/data/server.log"
  PGHOST=127.0.0.1 PGUSER=postgres PGPASSWORD=$(cat "$folder/password")
  export PGHOST PGPORT PGUSER PGPASSWORD
}

stop_postgres() {
  if [ -e "$1/data/postmaster.pid" ]; then
    as_postgres "$(postgres_bin)/pg_ctl" -D "$1/data" -m fast -w -s stop
  fi
}

# The program: $DRCTL_BIN, or built from this source.
build_drctl() {
  if [ -z "${DRCTL_BIN:-}" ]; then
    say "building drctl (release); the first time takes some minutes"
    (cd "$ROOT" && cargo build --release --quiet --bin drctl) || die "it does not build"
    DRCTL_BIN=${CARGO_TARGET_DIR:-$ROOT/target}/release/drctl
  fi
  [ -x "$DRCTL_BIN" ] || die "there is no program $DRCTL_BIN"
}

# Nothing of the surroundings may lead drctl elsewhere than to the folder of this script's run.
own_surroundings() {
  unset DRCTL_CONFIG DRCTL_PASSPHRASE_FILE DATABASE_URL POSTGRES_URL POSTGRESQL_URL PG_URL PGSERVICE PGPASSFILE PGDATABASE PGSSLMODE
  export STATE_DIRECTORY=$1/state
}

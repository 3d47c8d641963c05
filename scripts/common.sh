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

free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# start_postgres FOLDER: makes a server there if there is none, starts it on 127.0.0.1. Sets PGHOST, PGPORT, PGUSER, PGPASSWORD.
# The password of this throwaway server is random and lies in FOLDER/password (0600).
start_postgres() {
  local folder=$1 bin
  bin=$(postgres_bin)
  mkdir -p "$folder"
  if [ ! -e "$folder/data/PG_VERSION" ]; then
    mkdir -p "$folder/data" "$folder/socket"
    (umask 077 && head -c 18 /dev/urandom | base64 | tr -d '/+=' > "$folder/password")
    chmod 0711 "$folder"
    chmod 0700 "$folder/data"
    [ "$(id -u)" = 0 ] && chown -R postgres: "$folder/data" "$folder/socket" "$folder/password"
    as_postgres "$bin/initdb" -D "$folder/data" -U postgres -A scram-sha-256 --pwfile="$folder/password" -E UTF8 --locale=C.UTF-8 --no-sync > "$folder/initdb.log"
    [ "$(id -u)" = 0 ] && chown root: "$folder/password"
  fi
  PGPORT=$(free_port)
  as_postgres "$bin/pg_ctl" -D "$folder/data" -l "$folder/data/server.log" -w -s \
    -o "-c listen_addresses=127.0.0.1 -c port=$PGPORT -c unix_socket_directories=$folder/socket ${POSTGRES_OPTIONS:-}" start \
    || die "PostgreSQL did not start; its log: $folder/data/server.log"
  PGHOST=127.0.0.1 PGUSER=postgres PGPASSWORD=$(cat "$folder/password")
  export PGHOST PGPORT PGUSER PGPASSWORD
}

stop_postgres() {
  local folder=$1
  [ -e "$folder/data/postmaster.pid" ] && as_postgres "$(postgres_bin)/pg_ctl" -D "$folder/data" -m fast -w -s stop
  return 0
}

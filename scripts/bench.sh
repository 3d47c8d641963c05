#!/usr/bin/env bash
# drctl beside the ordinary tools on one 1 GiB database, all in one interleaved run.
#   scripts/bench.sh [--rounds N] [--only WORD]…
# Each round runs every contestant once, one after the other; printed are medians. Files are kept under the testbench cache; raw figures too.
set -euo pipefail
. "$(dirname "$0")/common.sh"

scripts=$(cd "$(dirname "$0")" && pwd)
rounds=3
only=()
while [ $# -gt 0 ]; do
  case $1 in
    --rounds) rounds=$2; shift 2 ;;
    --only) only+=("$2"); shift 2 ;;
    *) die "unknown option $1; known: --rounds N, --only WORD" ;;
  esac
done
[ "$rounds" -ge 1 ] || die "--rounds must be 1 or more"

wanted() {
  [ ${#only[@]} = 0 ] && return 0
  local word
  for word in "${only[@]}"; do [[ $1 == *$word* ]] && return 0; done
  return 1
}

"$scripts/setup.sh"
drctl_wanted() { wanted 'drctl backup' || wanted 'drctl backup, no decode check' || wanted 'drctl verify --grade read-back' || wanted 'drctl restore' || s3_wanted; }
# Over S3 only where its server can be built.
versitygw=$CACHE/versitygw-1.8.0/bin/versitygw
s3_wanted() { [ -x "$versitygw" ] && { wanted 'drctl backup, versitygw' || wanted 'drctl restore, versitygw'; }; }
if drctl_wanted; then build_drctl; fi

# ---- the database: made once for each PostgreSQL version, 1 GiB as an uncompressed dump
version=$(basename "$(dirname "$(postgres_bin)")")
server=$(servers_folder)/bench-postgres-$version-2
mkdir -p "$CACHE"
work=$(mktemp -d "$CACHE/bench-run-XXXXXX")
chmod 0700 "$work"
own_surroundings "$work"
gateway=
trap '[ -z "$gateway" ] || kill "$gateway"; stop_postgres "$server" || true; rm -rf "$work"' EXIT

sql() { psql -X -q -v ON_ERROR_STOP=1 "$@"; }

# fsync=off for every contestant alike: the server's own disk is not what is measured.
POSTGRES_OPTIONS="-c fsync=off -c full_page_writes=off -c shared_buffers=256MB -c max_wal_size=4GB -c autovacuum=off -c maintenance_work_mem=128MB"
start_postgres "$server"
if [ ! -e "$server/bench-is-made" ]; then
  say "making the database, once (about a minute)"
  sql postgres -c "SET client_min_messages = error" -c "DROP DATABASE IF EXISTS bench" -c "CREATE DATABASE bench"
  sql bench <<'SQL'
SELECT setseed(0.42) \g /dev/null
CREATE TABLE customers (id bigint PRIMARY KEY, name text, email text, address text, since timestamptz, balance numeric(12,2));
CREATE TABLE orders (id bigint PRIMARY KEY, customer bigint, placed timestamptz, total numeric(10,2), status text, note text);
CREATE TABLE events (id bigint PRIMARY KEY, at timestamptz, body jsonb);
CREATE TABLE metrics (at timestamptz NOT NULL, device int NOT NULL, temperature double precision, humidity double precision, battery smallint);
CREATE TABLE blobs (id bigint PRIMARY KEY, name text, content bytea);
INSERT INTO customers SELECT i, initcap(md5(i::text)), md5((i * 7)::text) || '@example.org', (i % 997) || ' Long Street, Town ' || i % 5003,
  timestamptz '2020-01-01 00:00+00' + i * interval '31 s', round((random() * 10000)::numeric, 2) FROM generate_series(1, 800000) i;
INSERT INTO orders SELECT i, 1 + (random() * 799999)::int, timestamptz '2021-01-01 00:00+00' + i * interval '11 s', round((random() * 500)::numeric, 2),
  (ARRAY['paid','sent','returned','open'])[1 + (random() * 3)::int], CASE WHEN i % 3 = 0 THEN 'please ring at ' || md5(random()::text) END
  FROM generate_series(1, 3200000) i;
INSERT INTO events SELECT i, timestamptz '2024-01-01 00:00+00' + i * interval '3 s', jsonb_build_object('user', (random() * 800000)::int, 'page',
  '/item/' || (random() * 9999)::int, 'session', md5((i / 20)::text), 'ms', (random() * 900)::int, 'agent', 'Mozilla/5.0 (X11; Linux x86_64) ' || i % 37,
  'tags', jsonb_build_array('a' || i % 11, 'b' || i % 7)) FROM generate_series(1, 1300000) i;
INSERT INTO metrics SELECT timestamptz '2024-06-01 00:00+00' + (i / 500) * interval '10 s', i % 500, 20 + 5 * sin(i / 5000.0) + random(),
  50 + 20 * cos(i / 9000.0) + random(), 100 - i % 100 FROM generate_series(1, 3500000) i;
INSERT INTO blobs SELECT i, 'blob-' || i, (SELECT string_agg(decode(md5(random()::text || i || j), 'hex'), '') FROM generate_series(1, 640) j)
  FROM generate_series(1, 10500) i;
CREATE INDEX ON orders (customer);
CREATE INDEX ON metrics (device, at);
VACUUM ANALYZE;
SQL
  touch "$server/bench-is-made"
fi
PGDATABASE=bench
export PGDATABASE
plain=$work/plain.dump
pg_dump -Fc -Z0 -f "$plain"
plain_bytes=$(stat -c %s "$plain")

# ---- measuring
results=$work/results.tsv
# measure NAME KEPT COMMAND: one run of a shell command; KEPT is a file or folder whose bytes are what is kept, or -.
measure() {
  local name=$1 kept=$2 command=$3 bytes=- before=0
  wanted "$name" || return 0
  if [ "$kept" != - ] && [ -e "$kept" ]; then before=$(kept_bytes "$kept"); fi
  # What one leaves in the page cache would be written at the cost of the next.
  sync
  if ! /usr/bin/time -o "$work/time" -f '%e\t%U\t%S\t%M' bash -c "set -o pipefail; $command" > "$work/out" 2>&1; then
    say "failed: $name"
    tail -20 "$work/out" >&2
    exit 1
  fi
  if [ "$kept" != - ]; then bytes=$(($(kept_bytes "$kept") - before)); fi
  printf '%s\t%s\t%s\n' "$name" "$(tail -1 "$work/time")" "$bytes" >> "$results"
  say "$(printf '  %-44s %s s' "$name" "$(cut -f1 "$work/time" | tail -1)")"
}
kept_bytes() { find "$1" -type f -printf '%s\n' | awk '{ n += $1 } END { print n + 0 }'; }

# A folder in which drctl is set up for this database, with its repository there or in a bucket.
set_up() {
  local folder=$work/$1 store=${2:-$work/$1/repository}
  mkdir -m 0700 "$folder"
  (umask 077 && echo bench > "$folder/passphrase")
  (cd "$folder" && "$DRCTL_BIN" --quiet init --job bench --store "$store" --passphrase-file "$folder/passphrase" > "$work/init.out" 2>&1) \
    || { cat "$work/init.out" >&2; die "drctl init failed"; }
}
if drctl_wanted; then
  set_up checked
  set_up unchecked
  sed -i 's/^  # decode_check: true.*/  decode_check: false/' "$work/unchecked/drctl.yaml"
  grep -q '^  decode_check: false' "$work/unchecked/drctl.yaml" || die "drctl init writes another decode_check line than this script expects"
fi
if s3_wanted; then
  mkdir -p "$work/s3/bench" "$work/s3-iam"
  s3_port=$(free_port)
  export ROOT_ACCESS_KEY_ID=bench ROOT_SECRET_ACCESS_KEY=benchbench AWS_ACCESS_KEY_ID=bench AWS_SECRET_ACCESS_KEY=benchbench AWS_EC2_METADATA_DISABLED=true
  "$versitygw" --port "127.0.0.1:$s3_port" --quiet --iam-dir "$work/s3-iam" posix "$work/s3" > "$work/s3.log" 2>&1 &
  gateway=$!
  for _ in $(seq 100); do (exec 3<> "/dev/tcp/127.0.0.1/$s3_port") 2> /dev/null && break; sleep 0.1; done
  set_up bucket "s3://bench/drctl?endpoint=http%3A%2F%2F127.0.0.1%3A$s3_port&region=us-east-1&provider=versitygw"
fi
export RESTIC_PASSWORD=bench BORG_PASSPHRASE=bench RESTIC_CACHE_DIR=$work/restic-cache BORG_BASE_DIR=$work/borg-base

for round in $(seq "$rounds"); do
  say "round $round of $rounds"
  rm -rf "$work"/{z1.zst,z9.dump,restic,borg}
  measure 'pg_dump -Z0 >/dev/null' - 'pg_dump -Fc -Z0 > /dev/null'
  measure 'pg_dump -Z0 | zstd -1' "$work/z1.zst" "pg_dump -Fc -Z0 | zstd -q -1 > $work/z1.zst"
  measure 'drctl backup' "$work/checked/repository" "cd $work/checked && $DRCTL_BIN backup now"
  if s3_wanted; then measure 'drctl backup, versitygw' "$work/s3" "cd $work/bucket && $DRCTL_BIN backup now"; fi
  measure 'drctl backup, no decode check' "$work/unchecked/repository" "cd $work/unchecked && $DRCTL_BIN backup now"
  measure 'pg_dump -Z9, sha256sum' "$work/z9.dump" "pg_dump -Fc -Z9 > $work/z9.dump && sha256sum $work/z9.dump"
  if command -v restic > /dev/null && wanted restic; then
    restic init -q -r "$work/restic"
    measure 'pg_dump -Z0 | restic --stdin' "$work/restic" "pg_dump -Fc -Z0 | restic backup -q -r $work/restic --stdin"
  fi
  if command -v borg > /dev/null && wanted borg; then
    borg init -e repokey-blake2 "$work/borg" 2> /dev/null
    measure 'pg_dump -Z0 | borg create -' "$work/borg" "pg_dump -Fc -Z0 | borg create $work/borg::a -"
  fi
  [ -e "$work/z1.zst" ] || pg_dump -Fc -Z0 | zstd -q -1 > "$work/z1.zst"
  measure 'zstd -dc | pg_restore -f /dev/null' - "zstd -q -dc $work/z1.zst | pg_restore -f /dev/null"
  if drctl_wanted && ! wanted 'drctl backup' && [ "$round" = 1 ]; then (cd "$work/checked" && "$DRCTL_BIN" --quiet backup now > "$work/out" 2>&1); fi
  measure 'drctl verify --grade read-back' - "cd $work/checked && $DRCTL_BIN verify --grade read-back"
  sql postgres -c "SET client_min_messages = error" -c "DROP DATABASE IF EXISTS fresh" -c "CREATE DATABASE fresh TEMPLATE template0" -c "CHECKPOINT"
  measure 'pg_restore of a local file' - "pg_restore --exit-on-error -d fresh $plain"
  sql postgres -c "DROP DATABASE fresh" -c "CHECKPOINT"
  if wanted 'drctl restore'; then
    measure 'drctl restore' - "cd $work/checked && $DRCTL_BIN restore --date latest --source postgres --yes"
    (cd "$work/checked" && "$DRCTL_BIN" restore --finish --yes > "$work/out" 2>&1) || { cat "$work/out" >&2; die "drctl restore --finish failed"; }
  fi
  if s3_wanted && wanted 'drctl restore, versitygw'; then
    sql postgres -c "CHECKPOINT"
    measure 'drctl restore, versitygw' - "cd $work/bucket && $DRCTL_BIN restore --date latest --source postgres --yes"
    (cd "$work/bucket" && "$DRCTL_BIN" restore --finish --yes > "$work/out" 2>&1) || { cat "$work/out" >&2; die "drctl restore --finish failed"; }
  fi
done

keep=$CACHE/bench-results/$(date -u +%Y%m%dT%H%M%SZ).tsv
mkdir -p "$(dirname "$keep")"
cp "$results" "$keep"

python3 - "$results" "$plain_bytes" <<'PY'
import statistics, sys

rows = {}
for line in open(sys.argv[1]):
    name, *figures = line.rstrip("\n").split("\t")
    rows.setdefault(name, []).append(figures)
median = lambda name, i: statistics.median(float(r[i]) for r in rows[name])
wall = lambda name: median(name, 0) if name in rows else None

# What each is a multiple of.
BASE = {
    "drctl verify --grade read-back": "zstd -dc | pg_restore -f /dev/null",
    "zstd -dc | pg_restore -f /dev/null": "zstd -dc | pg_restore -f /dev/null",
    "drctl restore": "pg_restore of a local file",
    "drctl restore, versitygw": "pg_restore of a local file",
    "pg_restore of a local file": "pg_restore of a local file",
}
FIRST = "pg_dump -Z0 >/dev/null"
# Name, base, most allowed (the issue "must show").
LIMITS = [
    ("drctl backup", FIRST, 1.7),
    ("drctl backup, no decode check", FIRST, 1.6),
    ("drctl verify --grade read-back", "zstd -dc | pg_restore -f /dev/null", 1.5),
    ("drctl restore", "pg_restore of a local file", 1.10),
    ("drctl backup, versitygw", "drctl backup", 1.15),
    ("drctl restore, versitygw", "pg_restore of a local file", 1.15),
]

print(f"\nplain dump {int(sys.argv[2]) / 2**20:.0f} MiB; medians of {max(len(r) for r in rows.values())}; CPU is user + system of the whole process tree without")
print("the server; memory is that of the tree's largest process; 'times' is wall over the first line of the group")
print(f"\n{'':44} {'wall s':>8} {'times':>6} {'CPU s':>8} {'MiB mem':>8} {'MB kept':>8}")
for name in rows:
    base = wall(BASE.get(name, FIRST))
    times = f"{wall(name) / base:6.2f}" if base else "     -"
    kept = "-" if rows[name][0][4] == "-" else f"{statistics.median(float(r[4]) for r in rows[name]) / 1e6:.0f}"
    print(f"{name:44} {wall(name):8.2f} {times} {median(name, 1) + median(name, 2):8.2f} {median(name, 3) / 1024:8.0f} {kept:>8}")
print()
for name, base, most in LIMITS:
    if name in rows and base in rows:
        times = wall(name) / wall(base)
        print(f"{'ok  ' if times <= most else 'MISS'} {name}: {times:.2f} of at most {most} × {base}")
for name, most in [("drctl backup", 64), ("drctl backup, versitygw", 96)]:
    if name in rows:
        memory = median(name, 3) / 1024
        print(f"{'ok  ' if memory <= most else 'MISS'} {name}: {memory:.0f} MiB of at most {most} MiB of memory")
if "drctl backup" in rows:
    if "pg_dump -Z9, sha256sum" in rows:
        ours, theirs = (statistics.median(float(r[4]) for r in rows[n]) / 1e6 for n in ("drctl backup", "pg_dump -Z9, sha256sum"))
        print(f"{'ok  ' if ours <= theirs else 'MISS'} drctl backup: {ours:.0f} MB kept, pg_dump -Z9 {theirs:.0f} MB")
PY
say "raw figures: $keep"
say "$(uname -sr), $(nproc) CPUs, $(awk -F': ' '/model name/{ print $2; exit }' /proc/cpuinfo), PostgreSQL $version, $(zstd --version | grep -o 'v[0-9.]*' | head -1)"

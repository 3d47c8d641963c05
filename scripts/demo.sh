#!/usr/bin/env bash
# A small shop in a throwaway PostgreSQL: backed up, lost, restored, compared.
set -euo pipefail
. "$(dirname "$0")/common.sh"

scripts=$(cd "$(dirname "$0")" && pwd)
"$scripts/setup.sh"
build_drctl

demo=$(mktemp -d "${TMPDIR:-/tmp}/drctl-demo-XXXXXX")
chmod 0711 "$demo" # user postgres must get through to its own folder
own_surroundings "$demo"
trap 'status=$?; stop_postgres "$demo/server" || true; [ $status = 0 ] || say "the demo broke off (exit $status); its files: $demo"' EXIT

title() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
drctl() { printf '$ drctl %s\n' "$*"; "$DRCTL_BIN" "$@"; }
sql() { psql -X -q -v ON_ERROR_STOP=1 "$@"; }

# Per table: rows, and a checksum over every row in the order of its text.
fingerprint() {
  sql -At shop -c "SELECT format('SELECT %L, count(*), md5(coalesce(string_agg(md5(t::text), '''' ORDER BY t::text), '''')) FROM %I.%I t;', schemaname || '.' || tablename, schemaname, tablename)
    FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1" | sql -At shop
  sql -At shop -c "SELECT 'indexes ' || string_agg(indexdef, ' ' ORDER BY indexdef) FROM pg_indexes WHERE schemaname = 'public'" | md5sum
}

# The tables of a fingerprint with their rows.
rows() { grep '|' "$1" | cut -d'|' -f1,2 | sed 's/|/: /; s/$/ rows/; s/^/  /'; }

title "A throwaway PostgreSQL with a small shop in it"
start_postgres "$demo/server"
sql postgres -c "CREATE DATABASE shop"
sql shop <<'SQL'
CREATE TABLE customers (id bigserial PRIMARY KEY, name text NOT NULL, email text UNIQUE, since date NOT NULL);
CREATE TABLE orders (id bigserial PRIMARY KEY, customer bigint NOT NULL REFERENCES customers, placed timestamptz NOT NULL, total numeric(10,2), status text);
CREATE TABLE events (at timestamptz NOT NULL, kind text NOT NULL, body jsonb NOT NULL);
CREATE TABLE photos (name text PRIMARY KEY, image bytea NOT NULL);
CREATE INDEX orders_by_customer ON orders (customer, placed);
CREATE INDEX events_by_body ON events USING gin (body);
INSERT INTO customers (name, email, since)
  SELECT 'Customer ' || i, 'c' || i || '@example.org', date '2020-01-01' + i % 1800 FROM generate_series(1, 20000) i;
INSERT INTO orders (customer, placed, total, status)
  SELECT 1 + i % 20000, timestamptz '2024-01-01 00:00+00' + i * interval '97 s', (i * 7919 % 100000) / 100.0, (ARRAY['paid','sent','returned'])[1 + i % 3]
  FROM generate_series(1, 200000) i;
INSERT INTO events
  SELECT timestamptz '2025-01-01 00:00+00' + i * interval '13 s', 'click', jsonb_build_object('page', '/item/' || i % 997, 'user', i % 20000, 'ms', i % 313, 'grüße', '☕')
  FROM generate_series(1, 100000) i;
INSERT INTO photos SELECT 'photo-' || i, (SELECT string_agg(decode(md5(i || '-' || j), 'hex'), '') FROM generate_series(1, 1000) j) FROM generate_series(1, 300) i;
SQL
fingerprint > "$demo/before"
rows "$demo/before"

title "Make a configuration, a repository and keys"
mkdir -m 0700 "$demo/shop"
cd "$demo/shop"
(umask 077 && head -c 18 /dev/urandom | base64 > "$demo/passphrase")
drctl init --job shop --passphrase-file "$demo/passphrase"

title "Back up"
day=$(date +%Y%m%d)
drctl backup now
drctl list

title "Lose everything"
printf '$ psql -c "DROP DATABASE shop"\n'
psql -X postgres -c "DROP DATABASE shop"
if psql -X shop -c "SELECT 1" > /dev/null 2>&1; then die "the database is still there"; fi
echo "the database is gone"

title "Get it back"
drctl restore --date "$day" --yes

title "Prove it"
fingerprint > "$demo/after"
rows "$demo/after"
cmp "$demo/before" "$demo/after" || { diff "$demo/before" "$demo/after" >&2 || true; die "what came back is not what was there"; }
echo "what came back is what was there: the checksums over all rows of each table and the definitions of all indexes are equal"

# The server is stopped when the demo ends; these start it again on the same port.
cat > "$demo/start" <<SH
#!/usr/bin/env bash
. "$scripts/common.sh"
POSTGRES_OPTIONS= start_postgres "$demo/server" $PGPORT
SH
cat > "$demo/stop" <<SH
#!/usr/bin/env bash
. "$scripts/common.sh"
stop_postgres "$demo/server"
SH
cat > "$demo/env" <<SH
export PGHOST=$PGHOST PGPORT=$PGPORT PGUSER=$PGUSER PGPASSWORD=\$(cat "$demo/server/password")
export STATE_DIRECTORY="$demo/state" PATH="$(dirname "$DRCTL_BIN"):\$PATH"
SH
chmod +x "$demo/start" "$demo/stop"

title "Where everything lies, and what to type next"
cat <<TEXT
Configuration, repository, keys and recovery file: $demo/shop
Passphrase of the recovery file:                   $demo/passphrase
The throwaway server, stopped now:                 $demo/server

Look around in it:
  $demo/start && cd $demo/shop && . $demo/env
  drctl status                       where the job stands
  drctl show latest                  the set in full
  drctl verify                       read every byte of it again
  drctl restore --date latest        once more, now beside a live database: it asks, and can be undone
Remove it:
  $demo/stop; rm -r $demo

For your own database:
  export PGHOST=… PGUSER=… PGPASSWORD=…          or DATABASE_URL
  mkdir -m 700 ~/backup && cd ~/backup
  $DRCTL_BIN init --store FOLDER_ON_ANOTHER_DISK
  $DRCTL_BIN backup now
TEXT

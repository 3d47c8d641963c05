#!/usr/bin/env bash
# What takes longer than a test should: the ignored tests named soak_, then a flood from a command. SOAK_GIB (default 50) is what the command source prints.
set -euo pipefail
. "$(dirname "$0")/common.sh"

scripts=$(cd "$(dirname "$0")" && pwd)
"$scripts/setup.sh"
build_drctl
gib=${SOAK_GIB:-50}

say "== long tests"
(cd "$ROOT" && cargo test --release --test soak --test s3_many --test many_sets --test many_jobs -- --ignored soak_ --nocapture)

say "== $gib GiB from a command, in flat memory"
mkdir -p "$CACHE"
work=$(mktemp -d "$CACHE/soak-XXXXXX")
trap 'rm -rf "$work"' EXIT
own_surroundings "$work"
unset PGHOST PGPORT PGUSER PGPASSWORD
(umask 077 && echo soak > "$work/passphrase")
cd "$work"
"$DRCTL_BIN" --quiet init --job soak --passphrase-file "$work/passphrase"

# Lines of 1 KiB, each with 16 digits that never come again: every frame is new, and it compresses well, so that the disk holds it.
cat > "$work/print.pl" <<'PERL'
use integer; # multiplication wraps round
my ($left, $i, $pad) = ($ARGV[0] << 30, 0, ("all work and no play makes a dull backup, " x 25));
$pad = substr($pad, 0, 1007) . "\n";
while ($left > 0) {
    my $block = join "", map { sprintf("%016x", $i++ * -7046029254386353131) . $pad } 1 .. 256;
    print $block or exit 1;
    $left -= length $block;
}
PERL
cat > "$work/job" <<YAML
jobs:
  - job: soak
    sources:
      - command: { name: flood, run: [perl, $work/print.pl, "$gib"], artifact: flood, extension: txt }
YAML
# What init found around here is none of ours.
sed -i '/^jobs:/,$d' drctl.yaml
cat "$work/job" >> drctl.yaml

# Everything that goes where temporary files go, twice a second.
export TMPDIR=$work/tmp
mkdir "$TMPDIR"
watch_temporary() {
  while sleep 0.5; do find "$TMPDIR" -type f -size +64k 2> /dev/null || true; done
}
watch_temporary > "$work/temporary" &
watcher=$!
/usr/bin/time -o "$work/time" -f '%e %M' "$DRCTL_BIN" backup now
kill "$watcher" 2> /dev/null || say "the watcher of temporary files died"
read -r seconds kib < "$work/time"
stored=$(du -sm drctl-repository | cut -f1)
say "backup: $seconds s, $((kib / 1024)) MiB of memory at its peak, $stored MiB stored"
/usr/bin/time -o "$work/time" -f '%e %M' "$DRCTL_BIN" verify --grade read-back
read -r verify_seconds verify_kib < "$work/time"
say "verify: $verify_seconds s, $((verify_kib / 1024)) MiB of memory at its peak"

status=0
[ "$kib" -le $((96 * 1024)) ] || { say "MISS: more than 96 MiB of memory in the backup"; status=1; }
[ "$verify_kib" -le $((96 * 1024)) ] || { say "MISS: more than 96 MiB of memory in the verification"; status=1; }
[ ! -s "$work/temporary" ] || { say "MISS: temporary files: $(sort -u "$work/temporary")"; status=1; }
exit $status

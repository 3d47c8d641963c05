#!/usr/bin/env bash
# Makes, once, the file system of the container image that tests/reach_docker.rs runs: Debian with PostgreSQL, by debootstrap and apt.
# No image is pulled. Prints the path of the archive; exit 77: it is not there and cannot be made here.
set -euo pipefail
. "$(dirname "$0")/common.sh"

folder=$CACHE/docker-postgres-bookworm-1
if [ -s "$folder/rootfs.tar" ]; then
  echo "$folder/rootfs.tar"
  exit 0
fi
for need in debootstrap dockerd tar; do
  command -v "$need" > /dev/null || { say "no $need here: no image for the tests of Docker"; exit 77; }
done
[ "$(id -u)" = 0 ] || { say "not root: no image for the tests of Docker"; exit 77; }

mirror=$(awk '/^URIs:/{print $2; exit}' /etc/apt/sources.list.d/debian.sources 2> /dev/null || true)
work=$(mktemp -d)
trap 'rm -rf --one-file-system "$work"' EXIT
say "building a Debian with PostgreSQL into $folder, once (a minute or two)"
if ! debootstrap --variant=minbase --include=ca-certificates,postgresql-15 bookworm "$work/rootfs" ${mirror:+"$mirror"} > "$work/log" 2>&1; then
  tail -5 "$work/log" >&2
  say "debootstrap failed: no image for the tests of Docker"
  exit 77
fi
# What no test looks at; without LLVM, PostgreSQL does without its compiler.
(cd "$work/rootfs" && rm -rf var/cache/apt/archives/*.deb var/lib/apt/lists/* var/lib/postgresql/15 usr/share/{locale,i18n,doc,man} usr/lib/*/libLLVM* usr/lib/*/libz3*)
mkdir -p "$folder"
tar -C "$work/rootfs" --exclude='./dev/*' -cf "$folder/rootfs.tar.part" .
mv "$folder/rootfs.tar.part" "$folder/rootfs.tar"
echo "$folder/rootfs.tar"

#!/usr/bin/env bash
# Makes, once, what the tests of Docker run, by debootstrap and apt. No image is pulled. Prints the path of the archive; exit 77: it is not
# there and cannot be made here.
#   docker-image.sh          the file system of a Debian with PostgreSQL, for `docker import`
#   docker-image.sh tools    debian:bookworm-slim and the stage `tools` of the Dockerfile, for `docker load`
set -euo pipefail
. "$(dirname "$0")/common.sh"

# The stage and what it is built from: another text is another image.
stage() { sed '/^FROM tools AS prebuilt/,$d' "$ROOT/Dockerfile"; }

what=${1:-postgres}
case $what in
  postgres) folder=$CACHE/docker-postgres-bookworm-1 archive=rootfs.tar ;;
  tools) folder=$CACHE/docker-tools-$(stage | sha256sum | cut -c1-16) archive=image.tar ;;
  *) die "$0: postgres or tools, not $what" ;;
esac
if [ -s "$folder/$archive" ]; then
  echo "$folder/$archive"
  exit 0
fi
for need in debootstrap dockerd tar; do
  command -v "$need" > /dev/null || { say "no $need here: no image for the tests of Docker"; exit 77; }
done
[ "$(id -u)" = 0 ] || { say "not root: no image for the tests of Docker"; exit 77; }

mirror=$(awk '/^URIs:/{print $2; exit}' /etc/apt/sources.list.d/debian.sources 2> /dev/null || true)
work=$(mktemp -d)
daemon=
end() {
  if [ -n "$daemon" ]; then
    kill "$daemon" 2> /dev/null || true
    wait "$daemon" 2> /dev/null || true
    # It mounts folders of its own, which ones depends on the machine; the innermost come first.
    awk -v below="$work/" 'index($5, below) == 1 { print $5 }' /proc/self/mountinfo | sort -r | while read -r mounted; do
      umount "$mounted" 2> /dev/null || true
    done
  fi
  # What stays costs room and nothing else.
  rm -rf --one-file-system "$work" || say "could not be removed: $work"
}
trap end EXIT
cannot() {
  tail -5 "$work/log" >&2
  say "$1: no image for the tests of Docker"
  exit 77
}

# file_system PACKAGES…
file_system() {
  local include=$1
  debootstrap --variant=minbase ${include:+"--include=$include"} bookworm "$work/rootfs" ${mirror:+"$mirror"} > "$work/log" 2>&1 || cannot "debootstrap failed"
  # What no test looks at; without LLVM, PostgreSQL does without its compiler.
  (cd "$work/rootfs" && rm -rf var/cache/apt/archives/*.deb var/lib/apt/lists/* var/lib/postgresql/15 usr/share/{locale,i18n,doc,man} usr/lib/*/libLLVM* usr/lib/*/libz3*)
}

mkdir -p "$folder"
if [ "$what" = postgres ]; then
  say "building a Debian with PostgreSQL into $folder, once (a minute or two)"
  file_system ca-certificates,postgresql-15
  tar -C "$work/rootfs" --exclude='./dev/*' -cf "$folder/$archive.part" .
else
  say "building the tools of the Dockerfile into $folder, once (two minutes or three)"
  file_system "$(case $mirror in https:*) echo ca-certificates ;; esac)"
  export DOCKER_HOST=unix://$work/docker.sock DOCKER_BUILDKIT=0
  dockerd --host "$DOCKER_HOST" --data-root "$work/data" --exec-root "$work/exec" --pidfile "$work/pid" \
    --bridge none --iptables=false --ip6tables=false --ip-masq=false --ip-forward=false > "$work/log" 2>&1 &
  daemon=$!
  for _ in $(seq 100); do
    docker version > /dev/null 2>&1 && break
    kill -0 "$daemon" 2> /dev/null || cannot "dockerd does not start"
    sleep 0.1
  done
  tar -C "$work/rootfs" --exclude='./dev/*' -c . | docker import --change 'CMD ["bash"]' - debian:bookworm-slim > /dev/null
  mkdir "$work/context"
  stage > "$work/context/Dockerfile"
  docker build --network host -t drctl-tools "$work/context" > "$work/log" 2>&1 || cannot "docker build failed"
  docker save -o "$folder/$archive.part" debian:bookworm-slim drctl-tools
  # Those of earlier Dockerfiles.
  find "$CACHE" -maxdepth 1 -name 'docker-tools-*' ! -path "$folder" -exec rm -rf {} +
fi
mv "$folder/$archive.part" "$folder/$archive"
echo "$folder/$archive"

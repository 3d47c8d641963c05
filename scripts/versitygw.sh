#!/usr/bin/env bash
# Builds versitygw, the S3 server of the tests, once; says nothing when it is there. Exit 77: it is not there and cannot be built.
set -euo pipefail
. "$(dirname "$0")/common.sh"

# The version that tests/support/versitygw.rs looks for.
VERSION=1.8.0
# What its go.mod asks for.
GO_NEEDED=1.25.0

home=$CACHE/versitygw-$VERSION
[ -n "${DRCTL_VERSITYGW:-}" ] && exit 0
[ -x "$home/bin/versitygw" ] && exit 0

older() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -1)" != "$2" ]; }
go_version() { go env GOVERSION 2>/dev/null | sed 's/^go//'; }

if ! command -v go > /dev/null && [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
  say "running: apt-get install -y --no-install-recommends golang-go (building the S3 server of the tests)"
  DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends golang-go > /dev/null || say "that failed"
fi
if ! command -v go > /dev/null; then
  say "no versitygw: it needs Go to be built (https://go.dev/dl); tests against S3 are skipped"
  exit 77
fi

# Go $GO_NEEDED as the module that Go publishes of itself: any older Go, such as Debian's, can fetch and verify it. Modules carry no modes.
newer_go() {
  local module=golang.org/toolchain@v0.0.1-go$GO_NEEDED.linux-$(go env GOARCH) from
  [ -x "$CACHE/go-$GO_NEEDED/bin/go" ] && return
  say "fetching Go $GO_NEEDED into $CACHE/go-$GO_NEEDED, as $(go version | cut -d' ' -f3) is too old for versitygw"
  from=$(cd / && go mod download -json "$module" | sed -n 's/.*"Dir": "\(.*\)".*/\1/p') && [ -d "$from" ] || return
  rm -rf "$CACHE/go-$GO_NEEDED.part"
  cp -r "$from" "$CACHE/go-$GO_NEEDED.part" && chmod -R u+w "$CACHE/go-$GO_NEEDED.part" \
    && chmod u+x "$CACHE/go-$GO_NEEDED.part"/bin/* "$CACHE/go-$GO_NEEDED.part"/pkg/tool/*/* \
    && mv "$CACHE/go-$GO_NEEDED.part" "$CACHE/go-$GO_NEEDED"
}

mkdir -p "$CACHE"
go=$(command -v go)
if older "$(go_version)" "$GO_NEEDED"; then
  newer_go || { say "Go $GO_NEEDED cannot be fetched; no versitygw: tests against S3 are skipped"; exit 77; }
  go=$CACHE/go-$GO_NEEDED/bin/go
fi
say "building versitygw $VERSION into $home, once (about a minute)"
if ! GOBIN="$home/bin" GOTOOLCHAIN=local "$go" install "github.com/versity/versitygw/cmd/versitygw@v$VERSION"; then
  say "versitygw cannot be built here; tests against S3 are skipped"
  exit 77
fi

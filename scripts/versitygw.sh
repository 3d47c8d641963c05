#!/usr/bin/env bash
# Builds versitygw, the S3 server of the tests, once; says nothing when it is there. Exit 77: it is not there and cannot be built.
set -euo pipefail
. "$(dirname "$0")/common.sh"

# The version that tests/support/versitygw.rs looks for.
VERSION=1.8.0
# What its go.mod asks for. From 1.21 on, Go fetches a newer Go by itself where it may (GOTOOLCHAIN).
GO_NEEDED=1.21

home=$CACHE/versitygw-$VERSION
[ -n "${DRCTL_VERSITYGW:-}" ] && exit 0
[ -x "$home/bin/versitygw" ] && exit 0

older() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -1)" != "$2" ]; }
go_version() { go env GOVERSION 2>/dev/null | sed 's/^go//'; }

if ! command -v go > /dev/null && [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
  candidate=$(apt-cache policy golang-go 2>/dev/null | sed -n 's/.*Candidate: \(.*:\)\?\([0-9.]*\).*/\2/p')
  if [ -n "$candidate" ] && ! older "$candidate" "$GO_NEEDED"; then
    say "running: apt-get install -y --no-install-recommends golang-go (building the S3 server of the tests)"
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends golang-go > /dev/null
  fi
fi
if ! command -v go > /dev/null || older "$(go_version)" "$GO_NEEDED"; then
  say "no versitygw: it needs Go $GO_NEEDED or later to be built (https://go.dev/dl, or golang-go of a newer Debian); tests against S3 are skipped"
  exit 77
fi
say "building versitygw $VERSION into $home, once (about a minute)"
if ! GOBIN="$home/bin" go install "github.com/versity/versitygw/cmd/versitygw@v$VERSION"; then
  say "versitygw cannot be built here; tests against S3 are skipped"
  exit 77
fi

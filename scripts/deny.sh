#!/usr/bin/env bash
# Runs cargo-deny; builds it once when it is not there. Exit 77: it is not there and cannot be built.
set -euo pipefail
. "$(dirname "$0")/common.sh"
cd "$ROOT"

VERSION=0.20.2
home=$CACHE/cargo-deny-$VERSION
if command -v cargo-deny > /dev/null; then
  deny=cargo-deny
elif [ -x "$home/bin/cargo-deny" ]; then
  deny=$home/bin/cargo-deny
else
  say "building cargo-deny $VERSION into $home, once (some minutes)"
  if ! cargo install cargo-deny --version "$VERSION" --locked --quiet --root "$home"; then
    say "cargo-deny cannot be built here"
    exit 77
  fi
  deny=$home/bin/cargo-deny
fi
exec "$deny" --log-level error check "$@"

#!/usr/bin/env bash
# Runs what tests/compose_service.rs does with a database against the real images of docker-compose.test.yml. Needs an engine and a registry.
#   test-compose.sh [SERVICE…]      all of them when none is named
set -euo pipefail
. "$(dirname "$0")/common.sh"
cd "$ROOT"

compose() {
  if docker compose version > /dev/null 2>&1; then
    docker compose -p drctl-test -f docker-compose.test.yml "$@"
  else
    docker-compose -p drctl-test -f docker-compose.test.yml "$@"
  fi
}

services=("$@")
[ $# -gt 0 ] || mapfile -t services < <(compose config --services)
trap 'compose down --volumes > /dev/null 2>&1 || say "still there: docker compose -p drctl-test -f docker-compose.test.yml down --volumes"' EXIT
compose up --detach "${services[@]}" || die "they do not start"
say "running against: ${services[*]}"
DRCTL_TEST_SERVERS="${services[*]}" cargo test --test compose_service the_originals -- --nocapture

#!/usr/bin/env bash
# Everything that must hold before a change is taken. Steps go on after a failure, so that one run tells all.
# The last line is `N passed, N failed, N skipped`: tests, as the test programs counted them, and one more failed for each other step that failed.
set -uo pipefail
. "$(dirname "$0")/common.sh"
cd "$ROOT" || exit 1

scripts/setup.sh || { echo "0 passed, 1 failed, 0 skipped"; exit 1; }

log=$(mktemp)
trap 'rm -f "$log"' EXIT
failed_steps=()
skipped_steps=()

step() {
  local name=$1 status=0
  shift
  say "== $name"
  "$@" || status=$?
  case $status in
    0) ;;
    77) skipped_steps+=("$name") ;;
    *) failed_steps+=("$name") ;;
  esac
}

# Many tests wait, for servers, time limits and pauses: more of them at once than there are cores. A test program runs on each core besides.
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-$(($(nproc) + 1))}

# stdout and stderr together: what a test says it skipped stands on stderr.
logged() {
  "$@" 2>&1 | tee -a "$log"
  [ "${PIPESTATUS[0]}" = 0 ]
}

step "format" cargo fmt --check
step "lints" cargo clippy --all-targets --quiet -- -D warnings
step "licences, bans, sources (advisories need the network: make audit)" scripts/deny.sh licenses bans sources
step "tests" logged scripts/run_tests.py
step "documentation tests" logged cargo test --quiet --doc
if [ -f tests/crash_points.rs ]; then
  step "crash points" logged cargo test --no-fail-fast --features failpoints --test crash_points
  step "damage behind the compressor" logged cargo test --no-fail-fast --features failpoints --lib i15
fi

# `test result: ok. 87 passed; 0 failed; 2 ignored; …`
sum() { awk -v what="$1" '/^test result: /{ for (i = 1; i < NF; i++) if ($(i + 1) == what ";") n += $i } END { print n + 0 }' "$log"; }
passed=$(sum passed)
failed=$(sum failed)
ignored=$(sum ignored)
# A test that finds that it cannot run here says so and counts as passed to its test program.
mapfile -t could_not < <(grep -o 'SKIPPED .*' "$log" | sort -u)
skipped=$((ignored + ${#could_not[@]} + ${#skipped_steps[@]}))
passed=$((passed - ${#could_not[@]}))

say
say "ran against: $(pg_dump --version), $(zstd --version | grep -o 'v[0-9.]*' | head -1 | sed 's/^/zstd /'), age $(age --version), minisign $(minisign -v 2>&1 | grep -o '[0-9.]*$' | tail -1), $(tar --version | head -1), $(uname -sr), $(rustc --version)"
for line in "${could_not[@]}" "${skipped_steps[@]}"; do say "skipped: ${line#SKIPPED }"; done
grep -E '^test .* \.\.\. FAILED$' "$log" | sort -u >&2
test_steps_failed=0
for name in "${failed_steps[@]}"; do
  say "failed: $name"
  case $name in *tests | "crash points" | damage*) test_steps_failed=1 ;; *) failed=$((failed + 1)) ;; esac
done
# Tests that did not even compile, or died, must not read as none failed.
if [ $test_steps_failed = 1 ] && [ "$(sum failed)" = 0 ]; then failed=$((failed + 1)); fi

echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ] && [ ${#failed_steps[@]} = 0 ]

#!/bin/bash
# Runs every test of the workspace, then says what could not run here and how many passed. Arguments go to
# `cargo test` (for example `-p pgherd-storage`, `--test cluster`).
set -uo pipefail
cd "$(dirname "$0")/../.."

target=${CARGO_TARGET_DIR:-target}
log=$target/test.log
mkdir -p "$target"
started=$SECONDS
# A failed scenario shows the logs of its nodes; stacks of the runtime would bury them.
export RUST_BACKTRACE=0

# Cluster tests start all three programs; cargo builds only those of the tested package by itself.
cargo build --locked --workspace --bins || exit 1

# The output of passed tests goes to the log only: that is where they say what they had to leave out.
cargo test --locked --workspace --no-fail-fast "$@" -- --show-output 2>&1 |
    tee "$log" |
    sed -u '/^successes:$/,/^\(failures:\|test result:\)/ { /^\(failures:\|test result:\)/ !d }'
status=${PIPESTATUS[0]}

# Some tests run themselves again as another user; those results, with all other tests filtered out, count once only.
whole='; 0 filtered out'
[ $# -eq 0 ] || whole=
counts=$(awk -v whole="$whole" '/^test result:/ && index($0, whole) { for (i = 1; i < NF; i++) { if ($(i + 1) == "passed;") p += $i
                                                           if ($(i + 1) == "failed;") f += $i } }
              END { printf "%d %d", p, f }' "$log")
read -r passed failed <<<"$counts"

echo
# A helper that a test runs as another process is no test that is missing.
sed -n '/::body \.\.\. ignored/d
    s/^test \(.*\) \.\.\. ignored\(, \)\{0,1\}\(.*\)$/not run: \1: \3/p
    s/^\([a-z ]*\): not run, \(.*\)$/not run: \1: \2/p
    /^not run: /p' "$log" | sort -u
echo "took $((SECONDS - started)) s; complete output: $log"
# A test program that does not build or crashes counts nowhere; it must not look like a success.
if [ "$status" -ne 0 ] && [ "$failed" -eq 0 ]; then
    failed=1
fi
echo "$passed passed, $failed failed"
exit "$status"

#!/bin/bash
# Licences, sources, bans; advisories where their database can be reached. Builds cargo-deny when there is none.
set -euo pipefail
cd "$(dirname "$0")/../.."

tools=$(realpath -m "${CARGO_TARGET_DIR:-target}/tools")
export PATH="$tools/bin:$PATH"
if ! cargo deny --version >/dev/null 2>&1; then
    # Unoptimised: built in a minute, and it runs for seconds.
    cargo install --quiet --locked --debug --no-default-features --root "$tools" cargo-deny --version '^0.20'
fi

cargo deny --log-level error check --hide-inclusion-graph bans licenses sources
if timeout 120 cargo deny --log-level off fetch db >/dev/null 2>&1; then
    cargo deny --log-level error check --disable-fetch advisories
    echo "advisories: checked"
else
    echo "advisories: not checked, the database cannot be reached from here"
fi

#!/bin/bash
# PostgreSQL and HAProxy for demo, tests and bench, and what tests of root's need: installs what is missing, or says which one command does it.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

missing=()
# Servers are looked for as pgherd itself does: Debian's place, then PATH.
# TEST_PG_BIN names another directory of PostgreSQL's programs to test with.
if [ -n "${TEST_PG_BIN:-}" ]; then
    for program in postgres initdb pg_controldata pg_basebackup pg_rewind psql; do
        [ -x "$TEST_PG_BIN/$program" ] && continue
        echo "TEST_PG_BIN is $TEST_PG_BIN, where there is no $program" >&2
        exit 1
    done
elif ! compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null && ! command -v postgres >/dev/null; then
    missing+=(postgresql)
fi
if ! command -v haproxy >/dev/null && [ ! -x /usr/sbin/haproxy ]; then
    missing+=(haproxy)
fi
# Partitions are made in network namespaces, which only root may have.
if [ "$(id -u)" -eq 0 ] && ! command -v ip >/dev/null; then
    missing+=(iproute2)
fi
[ ${#missing[@]} -eq 0 ] && exit 0

if ! command -v apt-get >/dev/null; then
    echo "missing: ${missing[*]}; this is no Debian, install them your way and run make again" >&2
    exit 1
fi
echo "missing: ${missing[*]}; installing"
if [ "$(id -u)" -eq 0 ]; then
    exec bash "$here/install.sh" "${missing[@]}"
fi
if command -v sudo >/dev/null; then
    # Without a terminal sudo cannot ask for a password.
    if sudo -n true 2>/dev/null || [ -t 0 ]; then
        exec sudo bash "$here/install.sh" "${missing[@]}"
    fi
fi
cat >&2 <<END
Installing needs root. Run this one command, then make again:

    su -c "bash $here/install.sh ${missing[*]}"

END
exit 1

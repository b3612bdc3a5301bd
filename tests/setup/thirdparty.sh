#!/bin/bash
# What the tests with programs of others need beside tools.sh: keepalived and curl from Debian, check_patroni,
# Prometheus' client and Patroni from PyPI, in an environment of their own below cargo's target directory.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=tests/setup

missing=()
command -v curl >/dev/null || missing+=(curl)
# Its test needs network namespaces, which only root may have.
if [ "$(id -u)" -eq 0 ] && ! command -v keepalived >/dev/null && [ ! -x /usr/sbin/keepalived ]; then
    missing+=(keepalived)
fi
if ! python3 -c 'import venv, ensurepip' 2>/dev/null; then
    missing+=(python3-venv)
fi
if [ ${#missing[@]} -gt 0 ]; then
    if ! command -v apt-get >/dev/null; then
        echo "missing: ${missing[*]}; this is no Debian, install them your way and run make again" >&2
        exit 1
    fi
    echo "missing: ${missing[*]}; installing"
    if [ "$(id -u)" -eq 0 ]; then
        bash "$here/install.sh" "${missing[@]}"
    elif command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
        sudo bash "$here/install.sh" "${missing[@]}"
    else
        echo "Installing needs root. Run this one command, then make again:" >&2
        echo "    su -c \"bash $(pwd)/$here/install.sh ${missing[*]}\"" >&2
        exit 1
    fi
fi

packages=('check_patroni==2.2.0' 'prometheus_client==0.26.0' 'patroni==4.1.5' 'pysyncobj==0.3.17' 'psycopg[binary]==3.3.9')
place=$(realpath -m "${CARGO_TARGET_DIR:-target}/tools/thirdparty-python")
if [ "$(cat "$place/packages" 2>/dev/null)" != "${packages[*]}" ]; then
    rm -rf "$place"
    python3 -m venv "$place"
    "$place/bin/pip" install --quiet --disable-pip-version-check "${packages[@]}"
    echo "${packages[*]}" >"$place/packages"
fi

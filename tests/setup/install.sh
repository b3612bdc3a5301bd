#!/bin/bash
# Installs the named Debian packages as root and leaves the machine's services as they were found: no database
# cluster `main` on port 5432, no HAProxy running, neither now nor after a reboot.
set -euo pipefail

[ "$(id -u)" -eq 0 ] || { echo "install.sh must run as root" >&2; exit 1; }
export DEBIAN_FRONTEND=noninteractive

undo=()
clean_up() {
    local path
    for path in "${undo[@]}"; do rm -f "$path"; done
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# Services of new packages are not started. Somebody's own policy stays what it is.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    undo+=("$policy")
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi

apt-get update -q
for package in "$@"; do
    case $package in
        postgresql)
            # First the part which makes no cluster; with its drop-in in place the server makes none either.
            apt-get install -q -y --no-install-recommends postgresql-common
            dropin=/etc/postgresql-common/createcluster.d/pgherd-install.conf
            mkdir -p "${dropin%/*}"
            undo+=("$dropin")
            echo 'create_main_cluster = false' >"$dropin"
            apt-get install -q -y --no-install-recommends postgresql
            ;;
        haproxy | keepalived)
            apt-get install -q -y --no-install-recommends "$package"
            update-rc.d "$package" disable
            ;;
        *)
            apt-get install -q -y --no-install-recommends "$package"
            ;;
    esac
done

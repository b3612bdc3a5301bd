#!/bin/bash
# Is there a Rust toolchain that can build this? cargo's own message for an old one is hard to read.
set -euo pipefail
cd "$(dirname "$0")/../.."

least=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
cure="install one with rustup (https://rustup.rs); Debian 12's own package is too old"

if ! found=$("${CARGO:-cargo}" --version 2>/dev/null); then
    echo "pgherd needs a Rust toolchain, version $least or later, and there is no cargo in PATH: $cure" >&2
    exit 1
fi
version=$(awk '{print $2}' <<<"$found")
if [ "$(printf '%s\n%s\n' "$least" "${version%%-*}" | sort -V | head -n 1)" != "$least" ]; then
    echo "pgherd needs Rust $least or later, and this is $found: $cure" >&2
    exit 1
fi
if ! command -v cc >/dev/null; then
    echo "pgherd needs a C compiler and there is no cc in PATH: apt-get install gcc libc6-dev" >&2
    exit 1
fi

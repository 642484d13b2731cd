#!/usr/bin/env bash
# Installs what some tests use beside the Rust toolchain, from Debian's packages. Optional: a test
# whose tool is missing says SKIPPED with its name. Needs root; may be run again and again.
set -u
want() { command -v "$1" >/dev/null 2>&1 || missing+=("$2"); }
missing=()
want promtool prometheus
want strace strace
want python3 python3
want setpriv util-linux
want openssl openssl
if [ ${#missing[@]} -eq 0 ]; then
    echo 'all tools of the tests are here'
elif [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "SKIPPED installing ${missing[*]}: needs root and apt-get"
else
    # policy-rc.d keeps packages from starting their services.
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d && chmod +x /usr/sbin/policy-rc.d
    apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
        echo "SKIPPED ${missing[*]}: the packages could not be installed"
    rm -f /usr/sbin/policy-rc.d
fi
command -v cargo-deny >/dev/null 2>&1 ||
    echo 'cargo deny is not installed; for the check of licences: cargo install cargo-deny --locked'
exit 0

#!/usr/bin/env bash
# Installs what some tests and benches use beside the Rust toolchain, from Debian's packages. Optional: a test
# whose tool is missing says SKIPPED with its name. Needs root; may be run again and again.
set -u
want() { command -v "$1" >/dev/null 2>&1 || missing+=("$2"); }
missing=()
want promtool prometheus
want strace strace
want python3 python3
want setpriv util-linux
want openssl openssl
want ip iproute2
want mkfs.ext4 e2fsprogs
want faketime faketime
want mkfs.xfs xfsprogs
want mkfs.btrfs btrfs-progs
# What benches/compare.rs compares with.
want rsync rsync
want lsyncd lsyncd
want syncthing syncthing
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
# Before 1.23.7 Syncthing's fsWatcherDelayS takes whole seconds only; Debian 13's takes 0.01 and runs on
# Debian 12. The comparison says which it used.
newer_syncthing() {
    local dir
    dir=$(mktemp -d) && mkdir -p "$dir/lists/partial" "$dir/cache/archives/partial" || return
    echo 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian trixie main' >"$dir/list"
    local apt=(apt-get -qq -o "Dir::Etc::sourcelist=$dir/list" -o Dir::Etc::sourceparts=-
        -o "Dir::State::lists=$dir/lists" -o "Dir::Cache=$dir/cache" -o APT::Sandbox::User=root)
    (cd "$dir" && "${apt[@]}" update && "${apt[@]}" download syncthing && dpkg -i syncthing_*.deb) >/dev/null 2>&1 ||
        echo 'SKIPPED a newer Syncthing: it could not be installed; the comparison uses a delay of 1 s'
    rm -rf "$dir"
}
if [ "$(id -u)" -eq 0 ] && command -v dpkg >/dev/null 2>&1 &&
    dpkg --compare-versions "$(dpkg-query -W -f '${Version}' syncthing 2>/dev/null || echo 9)" lt 1.23.7; then
    newer_syncthing
fi
command -v cargo-deny >/dev/null 2>&1 ||
    echo 'cargo deny is not installed; for the check of licences: cargo install cargo-deny --locked'
exit 0

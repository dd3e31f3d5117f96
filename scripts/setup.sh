#!/usr/bin/env bash
# setup.sh [build|package|test-package|test]: installs what the build needs, or packages of it, or their test, or all other tests,
# and this machine lacks. Says nothing, and changes nothing, when all is there.
set -euo pipefail
need=${1:-test}

cd "$(dirname "$0")/.."

say() { printf 'setup: %s\n' "$*" >&2; }

if ! command -v swift >/dev/null; then
    say "there is no 'swift' on the PATH."
    say "Install a Swift toolchain (6.2 or later, https://www.swift.org/install) and put its usr/bin on the PATH."
    exit 1
fi

# Each need is tested by what it is for, not by package name, so that a hand-installed one counts too.
compiles() { printf '%s\n' "$2" | clang -x "$1" -fsyntax-only - 2>/dev/null; }
missing=()
command -v git >/dev/null || missing+=(git)
command -v pkg-config >/dev/null || missing+=(pkg-config)
if command -v clang >/dev/null; then
    compiles c '#include <zstd.h>' || missing+=(libzstd-dev)
    compiles c '#include <sqlite3.h>' || missing+=(libsqlite3-dev)
    compiles c '#include <openssl/evp.h>' || missing+=(libssl-dev)
    compiles c '#include <zlib.h>' || missing+=(zlib1g-dev)
    compiles c++ '#include <string>' || missing+=(g++)
else
    [[ -e /usr/include/zstd.h ]] || missing+=(libzstd-dev)
    [[ -e /usr/include/sqlite3.h ]] || missing+=(libsqlite3-dev)
    [[ -e /usr/include/openssl/evp.h ]] || missing+=(libssl-dev)
    [[ -e /usr/include/zlib.h ]] || missing+=(zlib1g-dev)
    compgen -G '/usr/include/c++/*/string' >/dev/null || missing+=(g++)
fi
if [[ $need != build ]]; then
    command -v dpkg-shlibdeps >/dev/null || missing+=(dpkg-dev)
    command -v objcopy >/dev/null || missing+=(binutils)
    command -v xz >/dev/null || missing+=(xz-utils)
fi
if [[ $need == test-package ]]; then
    command -v lintian >/dev/null || missing+=(lintian)
    command -v debootstrap >/dev/null || [[ -x /usr/sbin/debootstrap ]] || missing+=(debootstrap)
fi
if [[ $need == test ]]; then
    command -v zstd >/dev/null || missing+=(zstd)
    # Clients, password files and certificates that are not ours.
    command -v openssl >/dev/null || missing+=(openssl)
    [[ -x /usr/bin/mosquitto_pub ]] || missing+=(mosquitto-clients)
    [[ -x /usr/bin/mosquitto_passwd ]] || missing+=(mosquitto)
    # paho-mqtt and gmqtt need it, see below.
    python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3-venv)
fi

# paho-mqtt and gmqtt in an environment of their own. Without them their tests are skipped, and say so.
clients() {
    [[ $need == test ]] || return 0
    local -r wanted='paho-mqtt==2.2.0 gmqtt==0.8.0'
    [[ $(cat .build-python/wanted 2>/dev/null) == "$wanted" ]] && return
    say "installing $wanted into .build-python"
    # shellcheck disable=SC2086
    if python3 -m venv .build-python && timeout 300 .build-python/bin/pip install --quiet --disable-pip-version-check \
        --retries 2 $wanted; then
        printf '%s\n' "$wanted" >.build-python/wanted
    else
        say "no Python clients: the tests that need them will be skipped"
    fi
}

if ((${#missing[@]} == 0)); then
    clients
    exit 0
fi

if ! command -v apt-get >/dev/null; then
    say "missing: ${missing[*]} (Debian's package names); install them with this system's package manager."
    exit 1
fi
root=()
if ((EUID != 0)); then
    if ! command -v sudo >/dev/null; then
        say "missing: ${missing[*]}. As root: apt-get update && apt-get install ${missing[*]}"
        exit 1
    fi
    root=(sudo)
fi
say "installing ${missing[*]}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! { "${root[@]}" apt-get update && "${root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install --yes --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    say "apt-get failed; its last lines are above"
    exit 1
fi
clients

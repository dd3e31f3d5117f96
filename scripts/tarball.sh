#!/usr/bin/env bash
# tarball.sh [--bin DIR] [--out DIR]: makes of the programs in DIR (.build-package/bin/static, see build-package.sh), in out/:
#
#   arena-broker-VERSION-linux-ARCHITECTURE.tar.xz           everything, to be unpacked into /usr/local
#   arena-analyze-VERSION-linux-ARCHITECTURE                 the analyzer alone, one file that runs where it lies
#   arena-broker-symbols-VERSION-linux-ARCHITECTURE.tar.xz   for /usr/lib/debug
#
# Fails if a program needs more than a glibc of Debian 12. The same programs and source make the same bytes.
set -euo pipefail
cd "$(dirname "$0")/.."

bin=.build-package/bin/static out=out newest=2.36
while (($#)); do
    case $1 in
    --bin | --out)
        printf -v "${1#--}" '%s' "${2:?}"
        shift 2
        ;;
    *)
        sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
        exit 64
        ;;
    esac
done
fail() { printf 'tarball: %s\n' "$*" >&2; exit 1; }

# ---- what the programs need of the machine that they will run on

for program in arena-broker arena-analyze arena-bench; do
    [[ -x $bin/$program ]] || fail "there is no $bin/$program: scripts/build-package.sh"
    needed=$(readelf -d "$bin/$program" | sed -nE 's/.*\(NEEDED\).*\[(.*)\]/\1/p' |
        grep -vE '^(lib(c|m|dl|pthread|rt)\.so\.[0-9]+|ld-linux-.*)$' || true)
    [[ -z $needed ]] || fail "$program needs ${needed//$'\n'/, }"
    glibc=$(objdump -T "$bin/$program" | grep -oE 'GLIBC_[0-9.]+' | sed 's/GLIBC_//' | sort -uV | tail -n 1)
    [[ $(printf '%s\n' "$glibc" "$newest" | sort -V | tail -n 1) == "$newest" ]] ||
        fail "$program needs glibc $glibc, which Debian 12 does not have: build it there"
done

# ---- files

version=$(scripts/version.sh --package)
date=$(scripts/version.sh --date)
suffix=$version-linux-$(uname -m)
name=arena-broker-$suffix
umask 022
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out"
# Those of earlier sources would be taken for these.
rm -f "$out"/arena-{broker-[0-9],broker-symbols-,analyze-}*-linux-*

scripts/package-files.sh "$bin" "$work"
mv "$work/usr" "$work/$name"
share=$work/$name/share
find "$share/man" -name '*.1' -exec gzip -9n {} +
mv "$share/zsh/vendor-completions" "$share/zsh/site-functions"
install -m 644 deploy/broker.toml "$share/doc/arena-broker/examples/"
install -m 644 LICENSE CHANGELOG.md "$share/doc/arena-broker/"
install -d "$work/$name/lib/systemd/system"
sed 's|/usr/bin/arena-broker|/usr/local/bin/arena-broker|; s|/usr/share/doc|/usr/local/share/doc|' deploy/arena-broker.service \
    >"$work/$name/lib/systemd/system/arena-broker.service"
mkdir "$work/symbols"
for program in "$work/$name"/bin/*; do
    scripts/symbols.sh "$program" "$work/symbols" --compress-debug-sections >/dev/null
done

# pack DIRECTORY WHAT FILE LEVEL
pack() {
    tar --create --directory "$1" --sort=name --mtime="@$date" --owner=0 --group=0 --numeric-owner --format=gnu "$2" |
        xz --threads=1 "-$4" >"$3"
    printf '%s\n' "$3"
}
pack "$work" "$name" "$out/$name.tar.xz" 6
# Its sections are compressed already.
pack "$work/symbols" .build-id "$out/arena-broker-symbols-$suffix.tar.xz" 1
install -m 755 "$work/$name/bin/arena-analyze" "$out/arena-analyze-$suffix"
printf '%s\n' "$out/arena-analyze-$suffix"

#!/usr/bin/env bash
# deb.sh [--bin DIR] [--out DIR] [--development]: makes the Debian packages arena-broker and arena-broker-dbgsym of the programs
# in DIR (.build-package/bin/shared, see build-package.sh), in out/. The same programs and source make the same bytes.
#
#   --development   of a debug build, for tests: with the toolchain's libraries, where they are, and not compressed
set -euo pipefail
cd "$(dirname "$0")/.."

bin=.build-package/bin/shared out=out development='' compression=(-Zxz)
while (($#)); do
    case $1 in
    --bin | --out)
        printf -v "${1#--}" '%s' "${2:?}"
        shift 2
        ;;
    --development)
        development=1 compression=(-Znone)
        shift
        ;;
    *)
        sed -n '2,5s/^# \{0,1\}//p' "$0" >&2
        exit 64
        ;;
    esac
done
fail() { printf 'deb: %s\n' "$*" >&2; exit 1; }
for tool in dpkg-deb dpkg-shlibdeps objcopy strip; do
    command -v "$tool" >/dev/null || fail "there is no $tool: scripts/setup.sh package"
done
for program in arena-broker arena-analyze arena-bench; do
    [[ -x $bin/$program ]] || fail "there is no $bin/$program: scripts/build-package.sh"
done

SOURCE_DATE_EPOCH=$(scripts/version.sh --date)
version=$(scripts/version.sh --package)
architecture=$(dpkg --print-architecture)
export SOURCE_DATE_EPOCH
umask 022
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root symbols=$work/symbols
doc=$root/usr/share/doc/arena-broker

# ---- files

scripts/package-files.sh "$bin" "$root"
find "$root/usr/share/man" -name '*.1' -exec gzip -9n {} +
scripts/changelog.sh --debian | gzip -9n >"$doc/changelog.gz"
gzip -9n "$doc/third-party.txt"
install -m 644 deploy/debian/copyright "$doc/copyright"
install -D -m 644 deploy/broker.toml "$root/etc/arena-broker/broker.toml"
install -D -m 644 deploy/arena-broker.service "$root/usr/lib/systemd/system/arena-broker.service"
# Their owner is the user that postinst makes.
install -d "$root/var/lib/arena-broker/data" "$root/var/lib/arena-broker/dumps"

# ---- symbols

compressed=(--compress-debug-sections)
[[ -z $development ]] || compressed=()
buildids=()
for program in "$root"/usr/bin/*; do
    id=$(scripts/symbols.sh "$program" "$symbols/usr/lib/debug" "${compressed[@]}")
    buildids+=("$id")
done
install -d "$symbols/usr/share/doc"
ln -s arena-broker "$symbols/usr/share/doc/arena-broker-dbgsym"

# ---- what must be installed with it

mkdir "$work/debian"
printf 'Source: arena-broker\n\nPackage: arena-broker\nArchitecture: any\n' >"$work/debian/control"
options=(-O --warnings=0)
if [[ -n $development ]]; then
    options+=(--ignore-missing-info "-l$(dirname "$(command -v swift)")/../lib/swift/linux")
elif readelf -d "$root"/usr/bin/* | grep -q 'NEEDED.*libswift'; then
    fail "the programs in $bin need the Swift toolchain's libraries: scripts/build-package.sh links them statically"
fi
depends=$(cd "$work" && dpkg-shlibdeps "${options[@]}" -e "$root"/usr/bin/arena-broker \
    -e "$root"/usr/bin/arena-analyze -e "$root"/usr/bin/arena-bench 2>"$work/log" | sed -n 's/^shlibs:Depends=//p')
[[ -n $depends ]] || { cat "$work/log" >&2; fail 'dpkg-shlibdeps found nothing'; }

# ---- packages

# pack DIRECTORY CONTROL NAME [OPTION...]
pack() {
    local size text file=$out/$3_${version}_$architecture.deb options=("${compression[@]}" "${@:4}")
    size=$(du -k --apparent-size -s "$1" | cut -f 1)
    install -d "$1/DEBIAN"
    text=$(<"deploy/debian/$2")
    text=${text//@version@/$version} text=${text//@architecture@/$architecture} text=${text//@size@/$size}
    text=${text//@depends@/$depends} text=${text//@buildids@/${buildids[*]}}
    printf '%s\n' "$text" >"$1/DEBIAN/control"
    (cd "$1" && find . -path ./DEBIAN -prune -o -type f -printf '%P\0' | LC_ALL=C sort -z | xargs -0 md5sum) >"$1/DEBIAN/md5sums"
    find "$1" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
    # Those of earlier sources would be taken for it.
    rm -f "$out/$3"_*.deb
    dpkg-deb --root-owner-group "${options[@]}" --build "$1" "$file" >/dev/null
    printf '%s\n' "$file"
}

install -d "$root/DEBIAN" "$out"
install -m 755 deploy/debian/{postinst,prerm,postrm} "$root/DEBIAN/"
printf '/etc/arena-broker/broker.toml\n' >"$root/DEBIAN/conffiles"
pack "$root" control arena-broker
# Its sections are compressed already.
pack "$symbols" control.dbgsym arena-broker-dbgsym -z1

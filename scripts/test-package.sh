#!/usr/bin/env bash
# test-package.sh [--quick] [--bin DIR] [--static DIR]: makes the packages, and holds them to what they promise.
#
#   --quick       of a debug build (.build/debug): what is in the package, what it asks for, its scripts, and its life from
#                 installation to purge on top of this system's files, which stay as they are
#   --bin DIR     programs of the Debian package (.build-package/bin/shared)
#   --static DIR  programs of the tarball (.build-package/bin/static)
#
# Without --quick the package is installed into a new Debian, from the mirror that this machine's apt uses, and the incident is
# rehearsed there, as root. Where there is no mirror, this system's files take its place.
set -euo pipefail
cd "$(dirname "$0")/.."
source_root=$PWD

usage() { sed -n '2,10s/^# \{0,1\}//p' "$0"; }
quick='' bin='' static=.build-package/bin/static inside=''
while (($#)); do
    case $1 in
    --quick) quick=1 && shift ;;
    --bin | --static | --inside)
        printf -v "${1#--}" '%s' "${2:?}"
        shift 2
        ;;
    --help | -h) usage && exit 0 ;;
    *) usage >&2 && exit 64 ;;
    esac
done
if [[ -z $bin ]]; then
    if [[ -n $quick ]]; then bin=.build/debug; else bin=.build-package/bin/shared; fi
fi

step() { printf 'test-package: %s\n' "$*"; }
fail() { printf 'test-package: %s\n' "$*" >&2; exit 1; }
# expect TEXT COMMAND...: fails with TEXT unless COMMAND succeeds.
expect() {
    local text=$1
    shift
    "$@" || fail "$text"
}

# ---- what can be seen without installing

check_contents() {
    local deb=$1 symbols=$2 listing field path
    listing=$(dpkg-deb --contents "$deb" | awk '{ print $1, $2, $6 }')
    has() { grep -qxF -- "$1 root/root ./$2" <<<"$listing" || fail "the package has no $2 with $1 of root's"; }
    for path in arena-broker arena-analyze arena-bench; do
        has -rwxr-xr-x "usr/bin/$path"
        has -rw-r--r-- "usr/share/man/man1/$path.1.gz"
        has -rw-r--r-- "usr/share/bash-completion/completions/$path"
        has -rw-r--r-- "usr/share/zsh/vendor-completions/_$path"
        has -rw-r--r-- "usr/share/fish/vendor_completions.d/$path.fish"
    done
    for path in etc/arena-broker/broker.toml usr/lib/systemd/system/arena-broker.service \
        usr/share/doc/arena-broker/{copyright,changelog.gz,third-party.txt.gz,README.md,docs/operating.md} \
        usr/share/doc/arena-broker/examples/3-at-the-limit.dump.zst; do
        has -rw-r--r-- "$path"
    done
    [[ -z $(awk '$3 !~ /^\.\/(etc|usr|var)?(\/|$)/ || $3 ~ /^\.\/usr\/local/' <<<"$listing") ]] ||
        fail 'the package has files where packages have none'
    [[ -z $(awk '$2 != "root/root" || ($1 !~ /^l/ && $1 ~ /w.$/)' <<<"$listing") ]] || fail 'files are not all of root, or anybody may write to them'

    for field in Package Version Architecture Maintainer Installed-Size Depends Section Priority Description; do
        [[ -n $(dpkg-deb --field "$deb" "$field") ]] || fail "the package has no $field"
    done
    [[ $(dpkg-deb --field "$deb" Version) == "$(scripts/version.sh --package)" ]] || fail 'the package is of another version'
    for field in libc6 libzstd1 libsqlite3-0 libssl3 zlib1g adduser; do
        grep -qE "(^|, )$field( |,|$)" < <(dpkg-deb --field "$deb" Depends) || fail "the package does not depend on $field"
    done
    [[ $(dpkg-deb --info "$deb" conffiles) == /etc/arena-broker/broker.toml ]] || fail 'its configuration is no conffile'
    [[ $(dpkg-deb --field "$symbols" Depends) == "arena-broker (= $(dpkg-deb --field "$deb" Version))" ]] ||
        fail 'the symbols are not of this package'
}

check_files() {
    local root=$1 symbols=$2 program id file
    (cd "$root" && dpkg-deb --info "$deb" md5sums | md5sum --quiet --check -) || fail 'checksums do not agree'
    for program in "$root"/usr/bin/*; do
        ! readelf -d "$program" | grep -qE 'NEEDED.*lib(Foundation|FoundationInternationalization|_FoundationICU)\.so' ||
            fail "${program##*/} needs whole Foundation, 40 MB where it is linked statically: import FoundationEssentials"
        ! readelf -SW "$program" | grep -qE ' \.(symtab|debug_info) ' || fail "${program##*/} is not stripped"
        id=$(readelf -n "$program" | sed -n 's/^ *Build ID: //p')
        file=$symbols/usr/lib/debug/.build-id/${id:0:2}/${id:2}.debug
        expect "${program##*/} has no symbols" test -s "$file"
        [[ $(addr2line -e "$file" "$(address "$file" "${program##*/}")") =~ \.swift:[1-9] ]] ||
            fail "symbols of ${program##*/} name no line"
        expect "${program##*/} has no --version" test "$("$program" --version)" = "$(scripts/version.sh)"
    done
    if command -v systemd-analyze >/dev/null; then
        # With the program where it is now.
        sed "s|/usr/bin/arena-broker|$root&|" "$root/usr/lib/systemd/system/arena-broker.service" >"$work/arena-broker.service"
        expect 'the unit is not right' systemd-analyze verify --man=no "$work/arena-broker.service"
    fi
    file=$root/usr/share/doc/arena-broker/changelog.gz
    if command -v dpkg-parsechangelog >/dev/null; then
        [[ $(zcat "$file" | dpkg-parsechangelog -l - -S Version) == "$(scripts/version.sh --package)" ]] || fail 'the changelog is of another version'
        [[ -z $(zcat "$file" | dpkg-parsechangelog -l - --all 2>&1 >/dev/null) ]] || fail 'the changelog is none of Debian'
    fi
    for file in "$root"/usr/share/bash-completion/completions/*; do bash -n "$file"; done
    # A debug build's programs do.
    ! grep -rlF ${quick:+--exclude-dir=bin} -- "$source_root" "$root" || fail 'files name the directory that they were made in'
}

# address SYMBOLS PROGRAM: where the first of the program's commands is.
address() {
    local module=${2//-/_}
    nm "$1" | awk -v name="^[$]s${#module}${module}[0-9]+[A-Za-z]+V3run" '$3 ~ name && !found++ { print "0x" $1 }'
}

check_scripts() {
    local script
    for script in postinst prerm postrm; do
        expect "$script is no shell script" sh -n "deploy/debian/$script"
        expect "$script does not end at an error" grep -qx 'set -e' "deploy/debian/$script"
    done
    if command -v shellcheck >/dev/null; then shellcheck deploy/debian/{postinst,prerm,postrm}; fi
}

check_lintian() {
    command -v lintian >/dev/null || { step 'lintian is not installed, and is not asked'; return 0; }
    expect 'lintian has something to say' lintian --no-cfg --allow-root --fail-on error,warning "$@"
}

# ---- in a root of its own

in_root() { chroot "$root" "$@"; }

# Whatever is there once it is installed, and how it is owned.
check_installed() {
    local path
    expect 'there is no user arena-broker' in_root getent passwd arena-broker >/dev/null
    for path in '' /data /dumps; do
        [[ $(in_root stat -c '%U:%G %a' "/var/lib/arena-broker$path") == 'arena-broker:arena-broker 700' ]] ||
            fail "/var/lib/arena-broker$path is not the user's alone"
    done
    [[ $(in_root arena-broker --version) == "$(scripts/version.sh)" ]] || fail 'the program is of another version'
    expect 'the user cannot read the configuration' \
        chroot --userspec=arena-broker:arena-broker "$root" arena-broker check /etc/arena-broker/broker.toml >/dev/null
    expect 'the analyzer does not read the examples' \
        in_root arena-analyze summary /usr/share/doc/arena-broker/examples/3-at-the-limit.dump.zst >/dev/null
}

# The stripped programs and the symbols find each other, as gdb and addr2line look for them.
check_symbols() {
    local program id place
    if ! in_root sh -c 'command -v addr2line' >/dev/null; then
        in_root apt-get install --yes --no-install-recommends binutils >/dev/null 2>&1 || fail 'no binutils'
    fi
    for program in arena-broker arena-analyze arena-bench; do
        id=$(readelf -n "$root/usr/bin/$program" | sed -n 's/^ *Build ID: //p')
        place=$(in_root addr2line -e "/usr/bin/$program" "$(address "$root/usr/lib/debug/.build-id/${id:0:2}/${id:2}.debug" "$program")")
        [[ $place =~ \.swift:[1-9] ]] || fail "an address of $program is at $place"
    done
}

# check_life COMMAND...: installs the packages by COMMAND, and again over what somebody has changed.
check_life() {
    local changed='# changed by the administrator'
    step 'installation'
    "$@" || fail 'it cannot be installed'
    check_installed
    step 'its scripts once more, and once more the installation'
    in_root env DPKG_MAINTSCRIPT_PACKAGE=arena-broker /var/lib/dpkg/info/arena-broker.postinst configure "$(scripts/version.sh --package)"
    printf '%s\n' "$changed" >>"$root/etc/arena-broker/broker.toml"
    in_root install -m 600 /dev/null /var/lib/arena-broker/data/kept
    "$@" || fail 'it cannot be installed over itself'
    check_installed
    expect 'a changed configuration is lost' grep -qxF "$changed" "$root/etc/arena-broker/broker.toml"
}

check_end() {
    local path
    step 'removal and purge'
    in_root dpkg --no-triggers --remove arena-broker-dbgsym arena-broker >/dev/null
    [[ ! -e $root/usr/bin/arena-broker ]] || fail 'a removed package leaves its programs'
    expect 'a removal takes the configuration' test -s "$root/etc/arena-broker/broker.toml"
    expect 'a removal takes data' test -e "$root/var/lib/arena-broker/data/kept"
    in_root dpkg --no-triggers --purge arena-broker >/dev/null
    { dpkg-deb --contents "$deb" && dpkg-deb --contents "$symbols"; } | awk '$6 !~ /\/$/ { print substr($6, 2) }' >"$work/files"
    while IFS= read -r path; do
        [[ ! -e $root$path ]] || fail "a purged package leaves $path"
    done < <(cat "$work/files" && printf '/%s\n' etc/arena-broker var/lib/arena-broker usr/share/doc/arena-broker)
    in_root dpkg --no-triggers --purge arena-broker >/dev/null 2>&1 || fail 'a second purge fails'
}

# The broker as its service runs it: by its user, with its configuration.
check_service() {
    step 'the service, by hand'
    local log=$root/tmp/broker.log pid
    : >"$log"
    chroot --userspec=arena-broker:arena-broker "$root" arena-broker --config /etc/arena-broker/broker.toml \
        --set listeners.0.port=0 >"$log" 2>&1 &
    pid=$!
    await() {
        local deadline=$((SECONDS + 20))
        until grep -q "$1" "$log"; do
            if ((SECONDS >= deadline)) || ! kill -0 "$pid" 2>/dev/null; then
                cat "$log" >&2
                fail "the broker does not say '$1'"
            fi
            sleep 0.1
        done
    }
    await 'listening on 127'
    kill -USR1 "$pid"
    await 'dump written'
    kill -TERM "$pid"
    wait "$pid" || fail "the broker ended with $?"
    in_root sh -c 'arena-analyze verify /var/lib/arena-broker/dumps/*.dump.zst' >/dev/null || fail 'its dump is not whole'
}

# This system's files, below a directory whose changes are in memory.
make_overlay() {
    root=$work/merged
    mkdir "$work/memory" "$root"
    mount -t tmpfs -o mode=755 tmpfs "$work/memory" && mkdir "$work/memory/upper" "$work/memory/work" &&
        mount -t overlay overlay -o "lowerdir=/,upperdir=$work/memory/upper,workdir=$work/memory/work" "$root" &&
        mount --rbind /proc "$root/proc" && mount --rbind /dev "$root/dev"
}

make_debian() {
    local codename mirror
    # shellcheck source=/dev/null
    codename=$(. /etc/os-release && printf '%s' "$VERSION_CODENAME")
    # shellcheck disable=SC2016 # for apt to fill in
    mirror=$(apt-get indextargets --format '$(REPO_URI) $(CODENAME)' 'Created-By: Packages' 2>/dev/null |
        awk -v codename="$codename" '$2 == codename { print $1; exit }')
    [[ -n $mirror ]] && command -v debootstrap >/dev/null || return 1
    root=$work/debian
    step "a new Debian ($codename)"
    debootstrap --variant=minbase "$codename" "$root" "$mirror" >"$work/debootstrap.log" 2>&1 || {
        tail -n 5 "$work/debootstrap.log" >&2
        return 1
    }
    mount --rbind /proc "$root/proc"
    mount --rbind /dev "$root/dev"
}

install_by_dpkg() { in_root dpkg --force-confold --force-depends --force-unsafe-io --no-triggers --install "/tmp/${deb##*/}" "/tmp/${symbols##*/}" >"$work/log" 2>&1 || { cat "$work/log" >&2; return 1; }; }
install_by_apt() {
    in_root env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends --reinstall \
        -o Dpkg::Options::=--force-confold "/tmp/${deb##*/}" "/tmp/${symbols##*/}" >"$work/log" 2>&1 || { tail -n 20 "$work/log" >&2; return 1; }
}

# Called in a mount namespace of our own: nothing that is mounted here is left.
inside() {
    work=$inside
    local install=install_by_dpkg
    deb=$(echo "$work"/out/arena-broker_*.deb) symbols=$(echo "$work"/out/arena-broker-dbgsym_*.deb)
    if [[ -z $quick ]] && make_debian; then
        install=install_by_apt
    elif [[ -n $quick ]] || step "no Debian mirror: this system's files in its place"; then
        make_overlay || { step 'no overlay can be mounted here: not installed'; return 0; }
    fi
    cp "$work"/out/*.deb "$root/tmp/"
    if [[ $install == install_by_apt ]]; then in_root apt-get update >/dev/null 2>&1; fi
    check_life "$install"
    check_symbols
    check_service
    if [[ -z $quick ]]; then
        step 'the incident, with the programs of the package'
        mkdir "$root/tmp/demo"
        cp -a --parents samples/incident/run.sh scripts/broker.sh "$root/tmp/demo/"
        in_root /tmp/demo/samples/incident/run.sh --limit 134217728 --bin /usr/bin >"$work/incident.log" 2>&1 ||
            { tail -n 30 "$work/incident.log" >&2; fail 'the incident is not diagnosed'; }
        tail -n 1 "$work/incident.log"
    fi
    check_end
}

if [[ -n $inside ]]; then
    inside
    exit
fi

# ---- the whole

if [[ -n $quick ]] && ! command -v dpkg-deb >/dev/null; then
    step 'this is no Debian: no packages'
    exit
fi
work=$(mktemp -d)
trap 'rm -rf --one-file-system "$work"' EXIT
mode=()
[[ -z $quick ]] || mode=(--development)
step "packages of $bin"
mapfile -t made < <(scripts/deb.sh --bin "$bin" --out "$work/out" "${mode[@]}")
((${#made[@]} == 2)) || fail 'no packages were made'
deb=${made[0]} symbols=${made[1]}
step 'contents'
check_contents "$deb" "$symbols"
mkdir "$work/root" "$work/symbols"
dpkg-deb --extract "$deb" "$work/root"
dpkg-deb --extract "$symbols" "$work/symbols"
check_files "$work/root" "$work/symbols"
check_scripts
if [[ -z $quick ]]; then
    check_lintian "$deb" "$symbols"
    step 'the same again'
    scripts/deb.sh --bin "$bin" --out "$work/again" >/dev/null
    for file in "$work"/out/*; do expect "${file##*/} differs each time it is made" cmp "$file" "$work/again/${file##*/}"; done
    step "tarball of $static"
    scripts/tarball.sh --bin "$static" --out "$work/tarballs" >/dev/null
    mkdir "$work/local"
    tar -xJf "$(find "$work/tarballs" -name 'arena-broker-*.tar.xz' ! -name '*symbols*')" -C "$work/local" --strip-components=1
    "$(find "$work/tarballs" -name 'arena-analyze-*')" summary samples/incident/3-at-the-limit.dump.zst >/dev/null
    samples/incident/run.sh --limit 134217728 --bin "$work/local/bin" | tail -n 1
    du -h --apparent-size "$work"/out/* "$work"/tarballs/* "$work"/local/bin/* | sed "s|$work/||"
fi
rm -rf "$work/root" "$work/symbols"
if ((EUID != 0)); then
    step 'not installed: that takes root'
elif ! unshare --mount --propagation private true 2>/dev/null; then
    step 'not installed: that takes a mount namespace of its own'
else
    arguments=(--inside "$work")
    [[ -z $quick ]] || arguments+=(--quick)
    unshare --mount --propagation private "$0" "${arguments[@]}"
fi
step 'all is as promised'

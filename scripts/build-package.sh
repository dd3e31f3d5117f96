#!/usr/bin/env bash
# build-package.sh [shared] [static]: builds the programs of the packages in .build-package, optimized, with Swift's libraries in
# them, linked in one of two ways, or in both:
#
#   .build-package/bin/shared   with the system's libraries beside them, which a Debian package depends on
#   .build-package/bin/static   with those in them too: nothing but glibc has to be there
#
# No path of the machine that they are built on is in them.
set -euo pipefail
cd "$(dirname "$0")/.."

scratch=$PWD/.build-package
source=/usr/src/arena-broker
options=(
    --configuration release --scratch-path "$scratch" --static-swift-stdlib --disable-local-rpath
    -Xlinker -z -Xlinker now
    -Xswiftc -file-prefix-map -Xswiftc "$PWD=$source" -Xcc "-ffile-prefix-map=$PWD=$source"
    -Xcxx "-ffile-prefix-map=$PWD=$source"
)

# link KIND: the programs as they are linked now.
link() {
    mkdir -p "$scratch/bin/$1"
    for product in arena-broker arena-analyze arena-bench; do
        swift build "${options[@]}" --product "$product"
        cp "$(swift build "${options[@]}" --show-bin-path)/$product" "$scratch/bin/$1/"
    done
}
[[ " ${*:-shared static} " != *' shared '* ]] || link shared
[[ " ${*:-shared static} " == *' static '* ]] || exit 0

# The linker takes an archive where it finds no shared library beside it: a directory with archives only, searched first.
archives=$scratch/archives
rm -rf "$archives"
mkdir -p "$archives/pkgconfig"
for library in zstd sqlite3 z crypto stdc++; do
    file=$(clang -print-file-name="lib$library.a")
    [[ $file == /* ]] || { printf 'build-package: there is no lib%s.a\n' "$library" >&2; exit 1; }
    ln -s "$file" "$archives/"
done
ln -s "$(clang -print-file-name=libgcc_eh.a)" "$archives/libgcc_s.a"
for library in libzstd sqlite3 zlib libcrypto; do
    directory=$(pkg-config --variable=pcfiledir "$library")
    sed "s|^Libs:|Libs: -L$archives|" "$directory/$library.pc" >"$archives/pkgconfig/$library.pc"
done
export PKG_CONFIG_PATH=$archives/pkgconfig
# Programs with none of these libraries have Swift's need for that of C++ all the same.
options+=(-Xlinker "-L$archives")
link static

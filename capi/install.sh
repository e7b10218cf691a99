#!/bin/sh
# Installs the C interface: header, shared and static library, pkg-config file. Builds nothing:
# run `cargo build --release -p portcullis-capi` before.
#
#   [DESTDIR=/tmp/root] [PREFIX=/usr/local] [LIBDIR=$PREFIX/lib] [TARGET=target/release] \
#     capi/install.sh
set -eu
# Relative paths are relative to the folder of the caller.
absolute() {
  case $1 in
    /* | "") printf '%s\n' "$1" ;;
    *) printf '%s/%s\n' "$PWD" "$1" ;;
  esac
}
target=$(absolute "${TARGET:-}")
root=$(absolute "${DESTDIR:-}")
cd "$(dirname "$0")"
prefix=${PREFIX:-/usr/local}
libdir=${LIBDIR:-$prefix/lib}
target=${target:-../target/release}
# The number of the interface is in the name by which programs find the shared library.
abi=$(sed -n 's/^#define PORTCULLIS_ABI_VERSION \([0-9]*\)$/\1/p' include/portcullis.h)
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"$/\1/p' ../Cargo.toml)
[ -n "$abi" ] && [ -n "$version" ] || { echo "capi/install.sh: no version found" >&2; exit 1; }
for file in libportcullis_c.so libportcullis_c.a; do
  [ -f "$target/$file" ] || { echo "capi/install.sh: $target/$file is missing" >&2; exit 1; }
done
# What the static library needs from the system.
private="-lgcc_s -lutil -lrt -lpthread -lm -ldl -lc"

install -d "$root$prefix/include" "$root$libdir/pkgconfig"
install -m 0644 include/portcullis.h "$root$prefix/include/"
install -m 0755 "$target/libportcullis_c.so" "$root$libdir/libportcullis.so.$abi.$version"
ln -sf "libportcullis.so.$abi.$version" "$root$libdir/libportcullis.so.$abi"
ln -sf "libportcullis.so.$abi" "$root$libdir/libportcullis.so"
install -m 0644 "$target/libportcullis_c.a" "$root$libdir/libportcullis.a"
sed "s|@PREFIX@|$prefix|; s|@LIBDIR@|$libdir|; s|@VERSION@|$version|; s|@PRIVATE@|$private|" \
  portcullis.pc.in >"$root$libdir/pkgconfig/portcullis.pc"
chmod 0644 "$root$libdir/pkgconfig/portcullis.pc"

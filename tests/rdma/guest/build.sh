#!/bin/bash
# build.sh FOLDER [check]: build the guest of the RDMA tests into FOLDER: vmlinux and initrd.gz (busybox and the modules
# that RoCE in software needs). The kernel is Debian's generic one, as its cloud kernel has no rdma_rxe; it is fetched,
# taken apart and not kept. Costs nothing when its inputs have not changed. With `check` nothing is built; the exit
# code tells whether there is nothing to build.
set -euo pipefail
out=${1:?use: build.sh FOLDER [check]}
here=$(dirname "$(readlink -f "$0")")
fail() { echo "rdma guest: $*" >&2; exit 1; }

[ -x /bin/busybox ] || fail "/bin/busybox is missing: install the package busybox-static"
for tool in cpio modinfo strip; do
  command -v $tool >/dev/null || PATH=$PATH:/usr/sbin:/sbin command -v $tool >/dev/null ||
    fail "$tool is missing: install the packages cpio, kmod and binutils"
done
PATH=$PATH:/usr/sbin:/sbin
stamp=$(sha256sum /bin/busybox "$here"/{build.sh,init,vmlinux.py} | cut -d' ' -f1 | sha256sum | cut -d' ' -f1)
if [ "$(cat "$out/stamp" 2>/dev/null)" = "$stamp" ] && [ -s "$out/vmlinux" ] && [ -s "$out/initrd.gz" ]; then exit; fi
if [ "${2:-}" = check ]; then exit 1; fi

mkdir -p "$out"
work=$(mktemp -d "$out/build.XXXXXX")
trap 'rm -rf "$work"' EXIT
apt-cache show linux-image-amd64 >/dev/null 2>&1 || apt-get update -q >/dev/null
package=$(apt-cache depends linux-image-amd64 | sed -n 's/.*Depends: \(linux-image-.*\)/\1/p' | head -1)
[ -n "$package" ] || fail "no package linux-image-amd64: is Debian's main archive in /etc/apt/sources.list.d?"
echo "rdma guest: building in $out from $package"
# a private folder: apt's own user cannot write there, and says so
(cd "$work" && { apt-get download -q "$package" >log 2>&1 || { cat log >&2; fail "cannot fetch $package"; }; })
dpkg-deb -x "$work"/linux-image-*.deb "$work/tree"
python3 "$here/vmlinux.py" "$work"/tree/boot/vmlinuz-* "$work/vmlinux"

# crc32_generic: rdma_rxe asks the kernel for "crc32" by name, so its dependencies do not list it. The last line is for tc,
# to drop RDMA's packets alone.
wanted=(
  virtio_pci virtio_net 9pnet_virtio 9p overlay crc32_generic rdma_rxe
  sch_ingress cls_u32 act_gact
)
root=$work/root
mkdir -p "$root"/{bin,dev,proc,sys,modules}
cp /bin/busybox "$root/bin/"
install -m 755 "$here/init" "$root/init"
declare -A seen=()
add() { # a module after all that it depends on
  local name=${1//-/_} file dependency
  [ -z "${seen[$name]:-}" ] || return 0
  seen[$name]=1
  file=$(find "$work/tree/lib/modules" -name "$name.ko" -o -name "${name//_/-}.ko" | head -1)
  [ -n "$file" ] || fail "$package has no module $name"
  for dependency in $(modinfo -F depends "$file" | tr ',' ' '); do add "$dependency"; done
  strip -g -o "$root/modules/$name.ko" "$file"
  echo "$name" >>"$root/modules/order"
}
for module in "${wanted[@]}"; do add "$module"; done
(cd "$root" && find . | LC_ALL=C sort | cpio -o -H newc --quiet | gzip -1) >"$work/initrd.gz"
chmod 644 "$work/vmlinux" "$work/initrd.gz"
mv "$work/vmlinux" "$work/initrd.gz" "$out/"
echo "$stamp" >"$out/stamp"
echo "rdma guest: built ($(wc -l <"$root/modules/order") modules)"

#!/bin/bash
# build.sh FOLDER [ROOT [check]]: build the lab guest into FOLDER: vmlinuz, initrd.gz (busybox and the workload) and content.img
# (real bytes of /usr/lib for the guest's memory). Costs nothing when its inputs have not changed. The kernel is the
# newest of Debian's cloud kernels under ROOT (default /): it has virtio and boots fast. With `check` nothing is built;
# the exit code tells whether there is nothing to build.
set -euo pipefail
out=${1:?use: build.sh FOLDER [ROOT]}
from=${2:-/}
from=${from%/}
here=$(dirname "$(readlink -f "$0")")
fail() { echo "guest: $*" >&2; exit 1; }

kernel=$(find "$from/boot" -name 'vmlinuz-*-cloud-amd64' 2>/dev/null | sort -V | tail -1)
[ -n "$kernel" ] || fail "no $from/boot/vmlinuz-*-cloud-amd64: run \`make setup\`, which fetches one"
version=${kernel#"$from/boot/vmlinuz-"}
modules=$from/lib/modules/$version/kernel/drivers
[ -d "$modules" ] || fail "$modules is missing: reinstall the package linux-image-$version"
[ -x /bin/busybox ] || fail "/bin/busybox is missing: install the package busybox-static"
for tool in gcc cpio; do command -v $tool >/dev/null || fail "$tool is missing: install the package $tool"; done

stamp=$(sha256sum "$kernel" /bin/busybox "$here"/{build.sh,init,workload.c} | cut -d' ' -f1 | sha256sum | cut -d' ' -f1)
if [ "$(cat "$out/stamp" 2>/dev/null)" = "$stamp" ] && [ -s "$out/content.img" ]; then exit; fi
if [ "${3:-}" = check ]; then exit 1; fi
echo "guest: building in $out"

mkdir -p "$out"
work=$(mktemp -d "$out/build.XXXXXX")
trap 'rm -rf "$work"' EXIT
root=$work/root
mkdir -p "$root"/{bin,proc,dev,modules}
cp /bin/busybox "$root/bin/"
install -m 755 "$here/init" "$root/init"
gcc -O2 -Wall -Wextra -Werror -static -o "$root/bin/workload" "$here/workload.c"
cp "$modules"/virtio/{virtio,virtio_ring,virtio_pci,virtio_pci_legacy_dev,virtio_pci_modern_dev}.ko \
  "$modules/block/virtio_blk.ko" "$root/modules/"
(cd "$root" && find . | LC_ALL=C sort | cpio -o -H newc --quiet | gzip -1) >"$work/initrd.gz"
cp "$kernel" "$work/vmlinuz"

if [ ! -s "$out/content.img" ]; then
  # 640 MiB of files of /usr/lib in a fixed random order, over again if there are too few; page aligned by tar
  find /usr/lib -xdev -type f -size +16k -size -4000k -print0 | LC_ALL=C sort -z |
    shuf -z --random-source="$kernel" >"$work/files"
  # head closes the pipe when it has enough: that ends tar and the loop, and is no failure
  (set +e; while tar -c -b8 --null -T "$work/files" 2>/dev/null; do :; done) | head -c 640M >"$work/content.img" || true
  [ "$(stat -c %s "$work/content.img")" = $((640 << 20)) ] || fail "content.img came out short: is $out full?"
  mv "$work/content.img" "$out/content.img"
fi
chmod 644 "$work/vmlinuz" "$work/initrd.gz" "$out/content.img"
mv "$work/vmlinuz" "$work/initrd.gz" "$out/"
echo "$stamp" >"$out/stamp"
echo "guest: built (kernel $version)"

#!/bin/bash
# debian.sh FOLDER [check]: build FOLDER/debian.raw, a small Debian that is deliberately NOT ready to live anywhere but on
# virtio-blk: for the tests of guest preparation (docs/preparing.md). Its initramfs has virtio_blk and nothing else, its
# fstab and boot menu say /dev/vda2, its network is ens3, nothing goes to the serial console, and its boot loader for UEFI
# is not where a firmware that does not know it looks. It boots by BIOS as it is. Costs nothing when there is nothing to
# build; with `check` the exit code tells. Needs root: the files in it belong to several users.
set -euo pipefail
out=${1:?use: debian.sh FOLDER [check]}
me=$(readlink -f "$0")
fail() { echo "debian: $*" >&2; exit 1; }

suite=bookworm
stamp="$(sha256sum "$me" | cut -d' ' -f1)"
if [ "$(cat "$out/stamp" 2>/dev/null)" = "$stamp" ] && [ -s "$out/debian.raw" ]; then exit; fi
if [ "${2:-}" = check ]; then exit 1; fi
[ "$(id -u)" = 0 ] || fail "not root"
for tool in mmdebstrap mke2fs sfdisk mkfs.vfat mcopy; do
  command -v $tool >/dev/null || fail "$tool is missing: run \`make setup-boot\`, which installs it"
done
echo "debian: building in $out (minutes)"
mkdir -p "$out"
work=$(mktemp -d "$out/build.XXXXXX")
trap 'rm -rf "$work"' EXIT
root=$work/root

include=linux-image-amd64,initramfs-tools,zstd,grub2-common,grub-pc-bin,grub-efi-amd64-bin
include+=,systemd-sysv,udev,kmod,ifupdown,isc-dhcp-client,iproute2
mmdebstrap --quiet --variant=minbase --include="$include" \
  --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
  --dpkgopt='path-exclude=/usr/share/locale/*' \
  "$suite" "$root" >"$work/log" 2>&1 || { tail -25 "$work/log" >&2; fail "mmdebstrap failed"; }

uuid=$(cat /proc/sys/kernel/random/uuid)
kernel=$(basename "$root"/boot/vmlinuz-*)
version=${kernel#vmlinuz-}

# Bound to its home: drivers, disks by their names there, the network card's name there.
sed -i 's/^MODULES=.*/MODULES=list/; s/^COMPRESS=.*/COMPRESS=gzip/' "$root/etc/initramfs-tools/initramfs.conf"
printf 'virtio_pci\nvirtio_blk\next4\n' >>"$root/etc/initramfs-tools/modules"
printf '/dev/vda2 / ext4 errors=remount-ro 0 1\n/dev/vda1 /boot/efi vfat umask=0077,nofail 0 2\n' >"$root/etc/fstab"
printf 'auto lo\niface lo inet loopback\n\nauto ens3\niface ens3 inet dhcp\n' >"$root/etc/network/interfaces"
cat >"$root/etc/default/grub" <<END
GRUB_DEFAULT=0
GRUB_TIMEOUT=1
GRUB_DISTRIBUTOR=Debian
GRUB_CMDLINE_LINUX_DEFAULT="quiet"
GRUB_CMDLINE_LINUX=""
GRUB_DISABLE_LINUX_UUID=true
GRUB_DISABLE_OS_PROBER=true
END
mkdir -p "$root/boot/efi" "$root/boot/grub"
cat >"$root/boot/grub/grub.cfg" <<END
set timeout=1
menuentry 'Debian' {
  linux /boot/$kernel root=/dev/vda2 ro quiet
  initrd /boot/initrd.img-$version
}
END
cp -r "$root"/usr/lib/grub/{i386-pc,x86_64-efi} "$root/boot/grub/"

# What the tests listen for, written past the console that preparation has to set.
mkdir -p "$root/etc/initramfs-tools/scripts/panic"
cat >"$root/etc/initramfs-tools/scripts/panic/tell" <<'END'
#!/bin/sh
[ "$1" = prereqs ] && exit 0
echo "TEST-NO-ROOT $ROOT" >/dev/ttyS0
END
chmod 755 "$root/etc/initramfs-tools/scripts/panic/tell"
cat >"$root/etc/systemd/system/tell.service" <<'END'
[Unit]
After=networking.service local-fs.target
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'echo "TEST-UP root=$$(findmnt -no SOURCE /) net=$$(ip -4 -o address show dev eth0 | tr -s " " | cut -d" " -f4)." >/dev/ttyS0'
[Install]
WantedBy=multi-user.target
END
chroot "$root" systemctl enable -q tell.service
chroot "$root" systemctl mask -q apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer fstrim.timer dpkg-db-backup.timer
echo prepared-here >"$root/etc/hostname"
chroot "$root" update-initramfs -u -k all >>"$work/log" 2>&1 || { tail "$work/log" >&2; fail "update-initramfs failed"; }
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/*

# One disk for both firmwares: 32 MiB for UEFI, the rest the root; BIOS finds GRUB between the table and the first partition.
disk=$work/debian.raw
truncate -s 1536M "$disk"
printf 'label: dos\nstart=2048, size=65536, type=ef\nstart=67584, type=83, bootable\n' | sfdisk -q "$disk"
mke2fs -q -t ext4 -U "$uuid" -d "$root" -E offset=$((67584 * 512)) "$disk" $((1536 * 1024 - 67584 / 2))k
grub=$root/usr/lib/grub
chroot "$root" grub-mkimage -O i386-pc -p '(hd0,msdos2)/boot/grub' -o /core.img biosdisk part_msdos ext2
dd if="$grub/i386-pc/boot.img" of="$disk" bs=440 count=1 conv=notrunc status=none
dd if="$root/core.img" of="$disk" bs=512 seek=1 conv=notrunc status=none
printf 'search.fs_uuid %s root\nset prefix=($root)/boot/grub\n' "$uuid" >"$root/early.cfg"
chroot "$root" grub-mkimage -O x86_64-efi -p /boot/grub -c /early.cfg -o /grubx64.efi part_msdos ext2 search_fs_uuid
truncate -s 32M "$work/esp"
mkfs.vfat -i 4E6F7661 "$work/esp" >/dev/null
MTOOLS_SKIP_CHECK=1 mmd -i "$work/esp" ::EFI ::EFI/debian
MTOOLS_SKIP_CHECK=1 mcopy -i "$work/esp" "$root/grubx64.efi" ::EFI/debian/grubx64.efi
dd if="$work/esp" of="$disk" bs=512 seek=2048 conv=notrunc,sparse status=none
chmod 644 "$disk"
mv "$disk" "$out/debian.raw"
echo "$stamp" >"$out/stamp"
echo "debian: built (kernel $version)"

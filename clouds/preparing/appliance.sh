#!/bin/busybox sh
# First process of the machine that looks into a guest's disk, or works on it (clouds/preparing/appliance.py starts it).
# The guest's disk is /dev/vda; what is found is written to /dev/vdb as a tar. Orders lie in /orders. Everything of the
# guest, its file system and its programs, meets this machine only: no network, no other disk, gone in minutes.
/bin/busybox --install -s /bin
mkdir -p /proc /sys /dev /out/root /out/facts /try
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mode=$(cat /orders/mode)
guest=/out/root
say() { echo "NOVACRON $*" >/dev/ttyS0; }
end() {
  say "$@"
  sync
  poweroff -f
}
while read -r module; do
  insmod "/modules/$module" || end "failed: module $module of this kernel"
done </orders/modules
tries=0
while [ ! -b /dev/vda ] && [ $tries -lt 100 ]; do
  usleep 100000
  tries=$((tries + 1))
done

# Links by UUID, as udev has them: the guest's programs look there to name a disk by what stays.
mkdir -p /dev/disk/by-uuid
while read -r device kind uuid label partuuid; do
  [ "$uuid" = - ] || ln -s "/dev/$device" "/dev/disk/by-uuid/$uuid"
done </orders/partitions

# Fields of a partition may be `-`. Read-only in name: what is shown is an overlay that is thrown away.
mounted() { # device kind folder
  how=$([ "$mode" = look ] && echo ro || echo rw)
  [ "$2" = xfs ] && how=$how,nouuid
  mount -t "$2" -o "$how,nosuid,nodev" "/dev/$1" "$3" 2>>/out/trouble
}

roots=
while read -r device kind rest; do
  case $kind in ext4 | xfs) ;; *) continue ;; esac
  if mount -t "$kind" -o "ro$([ "$kind" = xfs ] && echo ,nouuid)" "/dev/$device" /try 2>>/out/trouble; then
    for file in /try/etc/fstab /try/etc/os-release; do
      if [ -e $file ] || [ -L $file ]; then # links too, wherever they lead
        roots="$roots $device:$kind"
        break
      fi
    done
    umount /try
  else
    echo "$device" >>/out/facts/damaged
  fi
done </orders/partitions
echo $roots >/out/facts/roots
set -- $roots
if [ $# = 1 ]; then
  mounted "${1%:*}" "${1#*:}" $guest || end "failed: the root, $(tail -n 1 /out/trouble)"
fi

# What the guest mounts below its root and this needs: by any of the names that fstab may use.
lookup() { # spec: the partition's line
  spec=$(echo "$1" | tr -d '"')
  while read -r device kind uuid label partuuid; do
    case $spec in
      "UUID=$uuid" | "LABEL=$label" | "PARTUUID=$partuuid" | "/dev/disk/by-uuid/$uuid" | "/dev/disk/by-label/$label") ;;
      /dev/[svh]d[a-z]* | /dev/xvd[a-z]* | /dev/nvme*n1p*)
        case $spec in
          /dev/[svh]da"${device#vda}" | /dev/xvda"${device#vda}" | /dev/nvme0n1p"${device#vda}") ;;
          *) continue ;;
        esac ;;
      *) continue ;;
    esac
    echo "$device $kind"
    return
  done </orders/partitions
}
if [ -f $guest/etc/fstab ]; then
  while read -r spec where rest; do
    case $where in /usr | /var | /boot | /boot/efi | /efi) ;; *) continue ;; esac
    case $spec in "#"*) continue ;; esac
    set -- $(lookup "$spec")
    if [ $# != 2 ] || [ ! -d "$guest$where" ] || ! mounted "$1" "$2" "$guest$where"; then
      echo "$spec $where" >>/out/facts/unmounted
    fi
  done <$guest/etc/fstab
fi

in_guest() { # seconds program...: in the guest's root, nothing of this machine's environment
  within=$1
  shift
  timeout "$within" chroot $guest /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TMPDIR=/tmp LC_ALL=C "$@"
}
house() {
  mount -t proc proc $guest/proc
  mount --bind /sys $guest/sys
  mount --bind /dev $guest/dev
  mount -t tmpfs -o size=75% tmp $guest/tmp
  mount -t tmpfs run $guest/run
}

if [ "$mode" = look ]; then
  if [ -s /out/facts/roots ] && [ -d $guest/etc ]; then
    house
    mkdir -p /out/facts/packed
    for image in $guest/boot/initrd.img-* $guest/boot/initramfs-*.img; do
      [ -f "$image" ] || continue
      name=${image#"$guest"/boot/}
      if [ -x $guest/usr/bin/lsinitramfs ]; then
        in_guest 300 lsinitramfs "/boot/$name"
      else
        in_guest 300 lsinitrd "/boot/$name"
      fi 2>/dev/null | sed -n 's|.*/\([^/ ]*\)\.ko[.a-z0-9]*$|\1|p' | head -n 20000 >"/out/facts/packed/$name"
    done
    umount $guest/run $guest/tmp $guest/dev $guest/sys $guest/proc
    cd $guest
    find boot -xdev 2>/dev/null | head -n 20000 >/out/facts/boot
    find boot/efi -xdev -type f 2>/dev/null | head -n 20000 >>/out/facts/boot
    while read -r path; do
      if [ -e "$path" ] || [ -L "$path" ]; then echo "$path"; fi
    done </orders/programs >/out/facts/programs
  fi
  cd /out
  list=$(ls -d facts/* facts/packed/* $(cat /orders/wanted) 2>/dev/null)
  IFS="
"
  set -f # the names are names now, whatever is in them
  tar -c -f /dev/vdb --no-recursion $list 2>>/out/trouble || end "failed: reading, $(tail -n 1 /out/trouble)"
  end "done"
fi

[ -d $guest/etc ] || end "failed: the root is not there any more"
house
for step in /orders/steps/*; do
  path=$(cat "$step/path" 2>/dev/null)
  case $(cat "$step/kind") in
    write)
      mkdir -p "$guest/$(dirname "$path")" &&
        if [ ! -e "$guest/$path" ]; then cat </dev/null >"$guest/$path" && chmod "$(cat "$step/mode")" "$guest/$path"; fi &&
        cat "$step/text" >"$guest/$path"
      ;;
    remove) rm -f "$guest/$path" ;;
    copy) mkdir -p "$guest/$(dirname "$path")" && cp "$guest/$(cat "$step/source")" "$guest/$path" ;;
    run) in_guest 1800 $(cat "$step/words") >/out/said 2>&1 </dev/null ;;
  esac || {
    tail -n 5 /out/said >/dev/ttyS0 2>/dev/null
    end "failed: $(cat "$step/kind") $path$(cat "$step/words" 2>/dev/null)"
  }
done
umount $guest/run $guest/tmp $guest/dev $guest/sys $guest/proc
sync
for place in /boot/efi /efi /boot /var /usr ""; do umount "$guest$place" 2>/dev/null; done
grep -q " $guest" /proc/mounts && end "failed: the guest's file systems stay in use"
end "done"

"""Guests as plain trees of files, and what the steps of a plan make of them."""

from __future__ import annotations

import re
from dataclasses import replace

from clouds.preparing.drivers import DRACUT, MODULES
from clouds.preparing.guest import Guest
from clouds.preparing.layout import Layout, Partition
from clouds.preparing.rules import Plan
from clouds.preparing.steps import Copy, Remove, Run, Write
from clouds.preparing.targets import TARGETS

KERNEL = "6.1.0-18-amd64"
ROOT, ESP = "35831d4a-4197-497c-a8ab-5f3693f6a059", "4E6F-7661"
DRIVERS = sorted({name for target in TARGETS.values() for name in (*target.drivers, *target.if_there)})
DISK = Layout((Partition(1, "vfat", ESP, esp=True), Partition(2, "ext4", ROOT), Partition(5, "swap", ROOT[::-1])), ())
MENU = f"menuentry 'x' {{\n  linux /boot/vmlinuz-{KERNEL} root=/dev/vda2 ro quiet\n}}\n"
DEBIAN = {
    "etc/fstab": "# <file system>\n/dev/vda2 / ext4 errors=remount-ro 0 1\n/dev/sr0 /media iso9660 noauto 0 0\n",
    "etc/default/grub": 'GRUB_CMDLINE_LINUX_DEFAULT="quiet"\nGRUB_CMDLINE_LINUX=""\nGRUB_DISABLE_LINUX_UUID=true\n',
    "boot/grub/grub.cfg": MENU,
    "etc/initramfs-tools/modules": "# List of modules\nvirtio_blk",
    "etc/network/interfaces": "auto lo\niface lo inet loopback\nauto ens3\niface ens3 inet dhcp\n",
}
PROGRAMS = frozenset({"usr/sbin/update-initramfs", "usr/sbin/update-grub", "usr/bin/cloud-init"})

DHCP: dict[str, tuple[str, str]] = {
    "ifupdown": ("etc/network/interfaces.d/card", "allow-hotplug ens3\niface ens3 inet dhcp\niface ens3 inet6 auto\n"),
    "netplan": (
        "etc/netplan/01.yaml",
        "network:\n  version: 2\n  ethernets:\n    ens3:\n      match: {macaddress: '52:54:00:00:00:01'}\n"
        "      set-name: ens3\n      dhcp4: true\n      nameservers:\n        addresses: [1.1.1.1]\n",
    ),
    "systemd-networkd": (
        "etc/systemd/network/80.network",
        "[Match]\nMACAddress=52:54:00:00:00:01\n[Network]\nDHCP=yes\n",
    ),
    "NetworkManager": (
        "etc/NetworkManager/system-connections/wired.nmconnection",
        "[connection]\ntype=ethernet\ninterface-name=ens3\n[ethernet]\nmac-address=52:54:00:00:00:01\n[ipv4]\nmethod=auto\n",
    ),
    "network scripts": (
        "etc/sysconfig/network-scripts/ifcfg-ens3",
        'DEVICE="ens3"\nHWADDR=52:54:00:00:00:01\nBOOTPROTO=dhcp\n',
    ),
}
"""By the name of the way: a file of it, and what it says."""


def guest(files: dict[str, str] | None = None, without: str = "", packed: str = "virtio_blk", **more: object) -> Guest:
    """A Debian with one kernel. `without`: a driver that the kernel does not have."""
    dep = "".join(f"kernel/drivers/{name}.ko.xz: kernel/lib/x.ko\n" for name in DRIVERS if name != without)
    made = Guest(
        files={**DEBIAN, f"usr/lib/modules/{KERNEL}/modules.dep": dep, **(files or {})},
        layout=DISK,
        root="vda2:ext4",
        links={"lib": "usr/lib"},
        present=PROGRAMS | {f"boot/vmlinuz-{KERNEL}"},
        packed={KERNEL: frozenset(packed.split())},
    )
    return replace(made, **more)  # type: ignore[arg-type]


def done(before: Guest, plan: Plan) -> Guest:
    """The guest after the plan: programs as they are known to behave."""
    files, present, packed = dict(before.files), set(before.present), dict(before.packed)
    for step in plan.steps:
        match step:
            case Write():
                files[before.resolve(step.path)] = step.text
            case Remove():
                files.pop(step.path)
            case Copy():
                present.add(step.path)
            case Run(words=("update-initramfs" | "dracut", *_)):
                said = files.get(MODULES, "") + " " + files.get(DRACUT, "")
                have = frozenset(re.findall(r"\w+", said))
                packed = {kernel: modules | have for kernel, modules in packed.items()}
            case Run():
                found = re.search(r'^GRUB_CMDLINE_LINUX="(.*)"', files["etc/default/grub"], re.MULTILINE)
                for menu in ("boot/grub/grub.cfg", "boot/grub2/grub.cfg"):
                    if menu in files:
                        files[menu] = (
                            f"  linux /boot/vmlinuz-{KERNEL} root=UUID={ROOT} ro {found[1] if found else ''}\n"
                        )
    return replace(before, files=files, present=frozenset(present), packed=packed)

"""What each place expects of a guest, as data. docs/preparing.md shows this table, and a test holds it to it."""

from __future__ import annotations

from dataclasses import dataclass

from models.clouds import Cloud


@dataclass(frozen=True)
class Target:
    drivers: tuple[str, ...]
    """Without these it finds no disk or no network: each kernel must have them, built in or in its initramfs."""
    if_there: tuple[str, ...]
    """Into the initramfs where the kernel has them: only some sizes need them, and older kernels have none."""
    consoles: tuple[str, ...]
    """The last one is where /dev/console goes: the provider shows it."""
    arguments: tuple[str, ...]
    """More words for the kernel."""
    data_sources: tuple[str, ...]
    """Where cloud-init asks who it is, if the guest has it."""


_SERIAL = ("tty0", "ttyS0,115200n8")
_ETH0 = ("net.ifnames=0", "biosdevname=0")
"""The first card is eth0, in whatever slot it sits: what Azure's and Google's own documents ask for."""
_VIRTIO = ("virtio_pci", "virtio_blk", "virtio_scsi", "sd_mod", "virtio_net")
TARGETS: dict[Cloud, Target] = {
    "aws": Target(("nvme", "ena"), (), _SERIAL, _ETH0, ("Ec2", "None")),
    "azure": Target(
        ("hv_vmbus", "hv_storvsc", "sd_mod", "hv_netvsc"),
        ("nvme", "udf", "vfat"),
        ("tty1", "ttyS0"),
        (*_ETH0, "earlyprintk=ttyS0", "rootdelay=300"),
        ("Azure", "None"),
    ),
    "gcp": Target(
        ("virtio_pci", "virtio_scsi", "sd_mod", "virtio_net"),
        ("nvme", "gve"),
        ("ttyS0,38400n8",),
        _ETH0,
        ("GCE", "None"),
    ),
    "oci": Target(_VIRTIO, (), _SERIAL, _ETH0, ("Oracle", "None")),
    "kvm": Target(_VIRTIO, ("nvme",), _SERIAL, _ETH0, ("NoCloud", "ConfigDrive", "None")),
}

"""The definition of an instance, and the mark in it that says what it was made of.

q35, virtio disks and network, a serial console; nothing that would tie it to its host.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from datetime import datetime

from models.base import Model
from models.clouds import CloudId, Digest, KvmSize

NAMESPACE = "urn:novacron:instance:1"
KEY = "novacron-instance"


class Mark(Model):
    order: Digest
    """SHA-256 of the order: a token stands for one."""
    image: CloudId
    size: CloudId
    tags: dict[str, str]
    launched: datetime | None = None
    """Set after its first start: until then an attempt goes on with it."""
    reboot: str = ""
    """Token of the last reboot."""


def mark_xml(mark: Mark) -> str:
    root = ET.Element("instance")
    root.text = mark.model_dump_json()
    return ET.tostring(root, encoding="unicode")


def compose(
    name: str,
    uuid: str,
    size: KvmSize,
    volumes: Sequence[str],
    firmware: str,
    network: str | None,
    accelerator: str,
    mark: Mark,
) -> str:
    domain = ET.Element("domain", type=accelerator)
    _text(domain, "name", name)
    _text(domain, "uuid", uuid)
    metadata = ET.SubElement(domain, "metadata")
    told = ET.SubElement(metadata, f"{{{NAMESPACE}}}instance")
    told.text = mark.model_dump_json()
    _text(domain, "memory", str(size.memory_mib), unit="MiB")
    _text(domain, "vcpu", str(size.vcpus))
    system = ET.SubElement(domain, "os", {"firmware": "efi"} if firmware == "uefi" else {})
    _text(system, "type", "hvm", arch="x86_64", machine="q35")
    ET.SubElement(system, "boot", dev="hd")
    features = ET.SubElement(domain, "features")
    ET.SubElement(features, "acpi")
    ET.SubElement(domain, "cpu", mode="host-model" if accelerator == "kvm" else "maximum")
    ET.SubElement(domain, "clock", offset="utc")
    devices = ET.SubElement(domain, "devices")
    for number, volume in enumerate(volumes):
        disk = ET.SubElement(devices, "disk", type="file", device="disk")
        ET.SubElement(disk, "driver", name="qemu", type="qcow2", cache="none", discard="unmap")
        ET.SubElement(disk, "source", file=volume)
        ET.SubElement(disk, "target", dev=f"vd{chr(ord('a') + number)}", bus="virtio")
    if network:
        interface = ET.SubElement(devices, "interface", type="network")
        ET.SubElement(interface, "source", network=network)
        ET.SubElement(interface, "model", type="virtio")
    ET.SubElement(ET.SubElement(devices, "serial", type="pty"), "target", port="0")
    ET.SubElement(ET.SubElement(devices, "rng", model="virtio"), "backend", model="random").text = "/dev/urandom"
    return ET.tostring(domain, encoding="unicode")


def _text(parent: ET.Element, tag: str, text: str, **attributes: str) -> None:
    ET.SubElement(parent, tag, attributes).text = text

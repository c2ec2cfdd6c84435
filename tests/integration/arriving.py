"""Run on a host of the lab (in its namespaces): a VM comes from a cloud, as far as libvirt and QEMU are concerned.

    python -m tests.integration.arriving FOLDER

Makes images in the folder, which QEMU has to be able to read, and ends by removing everything. Prints one JSON object
of what it saw; whoever runs it judges. The guest is emulated and has nothing to boot from: what it "writes" is written
for it.
"""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

from clouds.disks import safepoint
from clouds.disks.content import BLOCK
from clouds.disks.images import hash_image, make_empty, open_image
from clouds.kvm import arrived, disks, leaving
from clouds.kvm.connection import Session, libvirt
from clouds.kvm.inventory import qemu_owner
from models.cloud_bring import Hardware
from models.disks import DiskImage
from models.migration import VmRef

SOCKET = "/run/libvirt/libvirt-sock"
VM = VmRef(vm="comer", uuid="0a3c9d52-7a41-4c6e-8b1b-1f2a3b4c5d6e")
MOVE = "m1"


def main(folder: str) -> dict[str, Any]:
    old, new = Path(folder) / "old.qcow2", Path(folder) / f"comer,vda-{MOVE}.qcow2"
    image = DiskImage(target="vda", path=str(new), format="qcow2", capacity=64 << 20)
    hardware = Hardware(memory_mib=64, vcpus=1)
    seen: dict[str, Any] = {}
    libvirt()
    with Session(SOCKET) as session:
        make_empty(old, "qcow2", 64 << 20)
        known = DiskImage(target="vda", path=str(old), format="qcow2")
        before = arrived.fresh(VM, (known,), hardware, kvm=False)
        session.call("define", lambda connection: connection.defineXML(before))
        before = arrived.definition(session, VM) or ""
        disks.make((image,), MOVE, qemu_owner(session))
        with open_image(new, "qcow2", writable=True) as disk:
            disk.write(3 * BLOCK, b"from the cloud".ljust(BLOCK, b"\0"))
        came = hash_image(new, "qcow2")
        try:
            for _ in range(2):
                arrived.define(session, VM, (image,), lambda: "")
            seen["its new image"] = sorted(_files(session)) == [str(new)]
            for _ in range(2):
                arrived.start(session, VM, (image,))
            seen["runs"] = arrived.alive(session, VM)
            arrived.end(session, VM)
            seen["ended"] = arrived.is_off(session, VM)
            with open_image(new, "qcow2", writable=True) as disk:
                disk.write(5 * BLOCK, b"written here".ljust(BLOCK, b"\0"))
            safepoint.take_back(new)
            seen["taken back"] = hash_image(new, "qcow2") == came
            arrived.undo(session, VM, (image,))
            seen["as it was before"] = arrived.definition(session, VM) == before
            arrived.define(session, VM, (image,), lambda: "")
            arrived.start(session, VM, (image,))
            for _ in range(2):
                arrived.accept(session, VM, (image,), autostart=True)
            seen["autostart"] = session.get(VM).autostart()
            arrived.end(session, VM)
            seen["no way back is left"] = not safepoint.there(new)
            seen["kept its content"] = hash_image(new, "qcow2") == came
            leaving.remove(session, VM, ())
            arrived.define(session, VM, (image,), lambda: arrived.fresh(VM, (image,), hardware, kvm=False))
            arrived.start(session, VM, (image,))
            seen["made anew it runs"] = arrived.alive(session, VM)
            arrived.end(session, VM)
            arrived.undo(session, VM, (image,))
            seen["undefined"] = session.find(VM) is None
            disks.remove((image,), MOVE)
            seen["left"] = sorted(each.name for each in Path(folder).iterdir() if each != old)
        finally:
            arrived.end(session, VM)
            leaving.remove(session, VM, (str(old), str(new)))
    return seen


def _files(session: Session) -> list[str]:
    root = ET.fromstring(arrived.definition(session, VM) or "<none/>")
    return [each.get("file", "") for each in root.iter("source") if each.get("file")]


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))

"""Run on a host of the lab (in its namespaces): rounds of a guest that writes all the time, on the real libvirt.

    python -m tests.integration.rounds GUEST

Makes the running guest persistent, and ends by removing it. Prints one JSON object of what it saw; whoever runs it
judges.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

from clouds.disks.content import BLOCK, Reader, content_hash
from clouds.disks.images import open_image
from clouds.disks.ledger import Ledger
from clouds.kvm import backup, leaving
from clouds.kvm.connection import Session, libvirt
from clouds.kvm.errors import NotFound
from models.disks import DiskImage
from models.migration import VmRef

SOCKET = "/run/libvirt/libvirt-sock"
TARGET = "vdb"
WITHIN = 90.0


def main(guest: str) -> dict[str, Any]:
    connection = libvirt().open(f"qemu+unix:///system?socket={SOCKET}")
    domain = connection.lookupByName(guest)
    connection.defineXML(domain.XMLDesc(0))
    domain.setAutostart(1)
    path = ET.fromstring(domain.XMLDesc(0)).find(f"devices/disk/target[@dev='{TARGET}']/../source").get("file")  # type: ignore[union-attr]
    capacity = domain.blockInfo(TARGET)[0]
    disk = DiskImage(target=TARGET, path=str(path), format="qcow2", capacity=capacity, allocated=0)
    vm, ledger, seen = VmRef(vm=guest, uuid=domain.UUIDString()), Ledger(capacity), list[dict[str, Any]]()
    with tempfile.TemporaryDirectory(dir="/run") as folder, Session(SOCKET) as session:
        (Path(folder) / "m1").mkdir()

        def look(number: int, base: int | None) -> None:
            wanted = backup.Round("m1", number, (disk,), Path(folder), base)
            telling = backup.begin(session, vm, wanted)
            again = backup.begin(session, vm, wanted) == telling
            with backup.snapshot(wanted, TARGET) as shown:
                ranges = shown.changed() if telling else None
                differs = list(ledger.differences(shown, ranges))
                everywhere = list(ledger.differences(shown))
                take(ledger, shown, differs)
                before = content_hash(shown)
                writes(domain)
                seen.append(
                    {
                        "telling": bool(telling),
                        "found again": again,
                        "blocks": len(differs),
                        "the bitmap misses nothing": differs == everywhere,
                        "the moment stands still": content_hash(shown) == before == ledger.content(),
                    }
                )
            backup.end(session, vm, wanted)

        look(0, None)
        look(1, 0)
        look(2, 1)
        leaving.hold(session, vm)
        leaving.cut_power(session, vm)
        off = leaving.is_off(session, vm)
        with open_image(disk.path, "qcow2") as image:
            differs, content = ledger.compare(image)
            take(ledger, image, differs)
        equal = content == ledger.content()
        leaving.start_again(session, vm, autostart=True)
        writes(domain)
        look(3, 2)
        autostart = domain.autostart()
        backup.forget(session, vm, backup.Round("m1", 0, (disk,), Path(folder)))
        checkpoints = [each.getName() for each in domain.listAllCheckpoints(0)]
        leaving.cut_power(session, vm)
        leaving.remove(session, vm, (disk.path,))
        left = [each.name for each in Path(disk.path).parent.iterdir() if each.name.startswith(guest)]
        try:
            session.get(vm)
            left.append("its definition")
        except NotFound:
            pass
    return {
        "rounds": seen,
        "off": off,
        "equal when off": equal,
        "autostart": autostart,
        "checkpoints": checkpoints,
        "left": left,
    }


def take(ledger: Ledger, source: Reader, differs: Any) -> None:
    for offset, length in differs:
        ledger.take(offset // BLOCK, source.read(offset, length))


def writes(domain: Any) -> None:
    """Until the guest has written some more."""
    start, until = domain.blockStats(TARGET)[3], time.monotonic() + WITHIN
    while domain.blockStats(TARGET)[3] < start + (256 << 10):
        if time.monotonic() > until:
            raise TimeoutError("the guest does not write")
        time.sleep(0.1)


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))

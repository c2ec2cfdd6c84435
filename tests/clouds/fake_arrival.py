"""A host that a VM comes to, with real image files: libvirt's part of it is a few lines."""

from __future__ import annotations

import json
import os
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from activities.accounts import Accounts
from activities.cloud_arrivals import CloudArrivalActivities
from activities.fence import Fence
from clouds.disks import safepoint
from clouds.disks.content import BLOCK
from clouds.disks.images import hash_image, open_image
from models.clouds import CloudSettings
from models.host import HostSettings
from tests.clouds.fake_source import OFF, RUNNING, UUID

CAPABILITIES = (
    "<capabilities><host><uuid>u</uuid><secmodel><model>dac</model><baselabel type='kvm'>"
    f"+{os.getuid()}:+{os.getgid()}</baselabel></secmodel></host></capabilities>"
)


class libvirtError(Exception):
    """By this name ours know it."""

    def get_error_code(self) -> int:
        return 42

    def get_error_domain(self) -> int:
        return 10

    def get_error_message(self) -> str:
        return str(self)


@dataclass
class Domain:
    host: FakeLibvirt
    xml: str
    number: int = OFF
    auto: int = 0

    def name(self) -> str:
        return ET.fromstring(self.xml).findtext("name", "")

    def UUIDString(self) -> str:
        return ET.fromstring(self.xml).findtext("uuid", "")

    def state(self) -> list[int]:
        return [self.number, 1]

    def info(self) -> list[int]:
        return [self.number, 256 << 10, 256 << 10, 1, 0]

    def isPersistent(self) -> int:
        return 1

    def jobStats(self, flags: int = 0) -> dict[str, int]:
        return {"type": 0}

    def metadata(self, type: int, uri: str | None, flags: int = 0) -> str:
        return "<labels/>"

    def XMLDesc(self, flags: int = 0) -> str:
        return self.xml

    def autostart(self) -> int:
        return self.auto

    def setAutostart(self, autostart: int) -> int:
        self.auto = autostart
        return 0

    def images(self) -> list[str]:
        return [source.get("file", "") for source in ET.fromstring(self.xml).iter("source")]

    def create(self) -> int:
        self._become(RUNNING)
        self.host.on_start(self.images())
        return 0

    def shutdown(self) -> int:
        if self.host.follows:
            self._become(OFF)
        return 0

    def destroyFlags(self, flags: int = 0) -> int:
        self._become(OFF)
        return 0

    def undefineFlags(self, flags: int = 0) -> int:
        self.host.domain = None
        return 0

    def _become(self, number: int) -> None:
        self.number = number
        self.host.on_change(number)


@dataclass
class FakeLibvirt:
    """With one VM at most."""

    domain: Domain | None = None
    follows: bool = True
    on_change: Callable[[int], None] = lambda number: None
    on_start: Callable[[list[str]], None] = lambda images: None

    def isAlive(self) -> int:
        return 1

    def close(self) -> int:
        return 0

    def lookupByName(self, name: str) -> Domain:
        return self._found()

    def lookupByUUIDString(self, uuid: str) -> Domain:
        return self._found()

    def defineXML(self, xml: str) -> Domain:
        ET.fromstring(xml)
        if self.domain is None:
            self.domain = Domain(self, xml)
        self.domain.xml = xml
        return self.domain

    def getVersion(self) -> int:
        return 7_002_000

    def getCapabilities(self) -> str:
        return CAPABILITIES

    def _found(self) -> Domain:
        if self.domain is None:
            raise libvirtError("no domain")
        return self.domain


@dataclass
class Arrival:
    """host-b."""

    folder: Path
    cloud: CloudSettings
    libvirt: FakeLibvirt = field(default_factory=FakeLibvirt)
    activities: CloudArrivalActivities = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        self.restart()

    def restart(self) -> None:
        """The worker is another process."""
        settings = HostSettings.model_validate(
            {
                "site": "lab",
                "host": "host-b",
                "migration_address": "10.0.0.2",
                "tls": {"certificate": "/c", "key": "/k", "authority": "/a"},
                "clouds": [self.cloud.model_dump()],
            }
        ).model_copy(update={"state_dir": str(self.folder / "state")})
        fence = Fence(settings)
        fence.welcome(0)
        self.activities = CloudArrivalActivities(
            settings,
            fence,
            opener=lambda _: self.libvirt,  # type: ignore[arg-type,return-value]
            accounts=Accounts(settings.clouds, "the test"),
        )

    def left(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir() if path.is_file())

    def write(self, path: str, index: int, what: bytes) -> None:
        with open_image(path, "qcow2", writable=True) as image:
            image.write(index * BLOCK, what.ljust(BLOCK, b"\0"))

    def somebodys(self, path: str) -> None:
        Path(path).write_text("somebody's")

    def is_somebodys(self, path: str) -> bool:
        return Path(path).read_text() == "somebody's"

    def mode(self, path: str) -> int:
        return Path(path).stat().st_mode & 0o777

    def content(self, path: str) -> str:
        return hash_image(path, "qcow2")


def definition(disk: str) -> str:
    return (
        f"<domain type='kvm'><name>counter</name><uuid>{UUID}</uuid><memory unit='MiB'>256</memory><os><type "
        f"arch='x86_64' machine='q35'>hvm</type></os><devices><disk type='file' device='cdrom'><target dev='sda'/>"
        f"<readonly/></disk><disk type='file' device='disk'><driver name='qemu' type='raw' cache='none'/>"
        f"<source file='{disk}'/><target dev='vda' bus='virtio'/><boot order='1'/></disk></devices></domain>"
    )


def qemu(domain: Any, command: str) -> str:
    """QEMU's monitor, as far as it is asked: it has the domain's images open."""
    asked = json.loads(command)
    if asked["execute"] == "query-block":
        told = [
            {"inserted": {"node-name": path, "file": path, "image": {"snapshots": [{"name": safepoint.NAME}]}}}
            for path in domain.images()
            if safepoint.there(path)
        ]
        return json.dumps({"return": [{"device": "", "inserted": None}, *told]})
    safepoint.drop(asked["arguments"]["device"])
    return json.dumps({"return": {}})

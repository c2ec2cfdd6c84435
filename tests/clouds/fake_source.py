"""A host with one VM and real image files, for the activities that send disks: libvirt's part of it is a few lines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from activities.accounts import Accounts
from activities.cloud_disks import CloudDiskActivities
from clouds.adapters import connect
from clouds.capabilities import Adapter
from clouds.disks.content import BLOCK, RawFile
from clouds.kvm.connection import Connection
from models.clouds import CloudAccounts, CloudSettings
from models.disks import DiskImage
from models.host import HostSettings
from models.migration import VmRef

UUID = "5b1c6b0e-6f5e-4c53-9f0e-5d0a7b6f9a01"
RUNNING, OFF = 1, 5


@dataclass
class FakeDomain:
    vm: str
    image: Path
    number: int = RUNNING
    on_change: Callable[[int], None] = lambda number: None
    auto: int = 1
    shut_down_writes: Callable[[], None] = lambda: None

    def name(self) -> str:
        return self.vm

    def UUIDString(self) -> str:
        return UUID

    def state(self) -> list[int]:
        return [self.number, 1]

    def info(self) -> list[int]:
        return [self.number, 256 << 10, 256 << 10, 1, 0]

    def isPersistent(self) -> int:
        return 1

    def jobStats(self, flags: int = 0) -> dict[str, int]:
        return {"type": 0}

    def snapshotNum(self, flags: int = 0) -> int:
        return 0

    def metadata(self, type: int, uri: str | None, flags: int = 0) -> str:
        return "<labels/>"

    def XMLDesc(self, flags: int = 0) -> str:
        return (
            "<domain type='kvm'><os><type arch='x86_64' machine='q35'>hvm</type></os><devices><disk type='file' "
            f"device='disk'><driver name='qemu' type='raw'/><source file='{self.image}'/><target dev='vda'/></disk>"
            "</devices></domain>"
        )

    def blockInfo(self, path: str, flags: int = 0) -> list[int]:
        found = self.image.stat()
        return [found.st_size, found.st_blocks * 512, found.st_size]

    def autostart(self) -> int:
        return self.auto

    def setAutostart(self, autostart: int) -> int:
        self.auto = autostart
        return 0

    def listAllCheckpoints(self, flags: int = 0) -> list[object]:
        return []

    def backupGetXMLDesc(self, flags: int = 0) -> str:
        raise libvirtError("no domain backup job present")

    def shutdown(self) -> int:
        self.shut_down_writes()
        return self._become(OFF)

    def create(self) -> int:
        return self._become(RUNNING)

    def _become(self, number: int) -> int:
        self.number = number
        self.on_change(number)
        return 0


class libvirtError(Exception):
    """By this name ours know it."""

    def get_error_code(self) -> int:
        return 38

    def get_error_domain(self) -> int:
        return 10

    def get_error_message(self) -> str:
        return str(self)


@dataclass
class FakeConnection:
    domain: FakeDomain

    def isAlive(self) -> int:
        return 1

    def close(self) -> int:
        return 0

    def lookupByName(self, name: str) -> FakeDomain:
        return self.domain

    def lookupByUUIDString(self, uuid: str) -> FakeDomain:
        return self.domain

    def getVersion(self) -> int:
        return 7_002_000

    def getCapabilities(self) -> str:
        return "<capabilities><host><uuid>u</uuid></host></capabilities>"


_CONNECTED: dict[str, Adapter] = {}


def accounts(settings: CloudAccounts) -> Accounts:
    """Adapters are shared between tests, since an SDK takes a second to build its clients. They remember nothing."""

    def connected(each: CloudSettings) -> Adapter:
        key = each.model_dump_json()
        if key not in _CONNECTED:
            _CONNECTED[key] = connect(each)
        return _CONNECTED[key]

    return Accounts(settings, "the test", connected)


@dataclass
class Source:
    folder: Path
    cloud: CloudSettings
    vm: str = "counter"
    blocks: int = 12
    domain: FakeDomain = field(init=False)
    settings: HostSettings = field(init=False)
    activities: CloudDiskActivities = field(init=False)

    def __post_init__(self) -> None:
        image = self.folder / f"{self.vm}.raw"
        image.write_bytes(bytes(self.blocks * BLOCK))
        self.domain = FakeDomain(self.vm, image)
        self.restart()

    def restart(self) -> None:
        """The worker is another process."""
        self.settings = HostSettings.model_validate(
            {
                "site": "lab",
                "host": "host-a",
                "migration_address": "10.0.0.1",
                "tls": {"certificate": "/c", "key": "/k", "authority": "/a"},
                "clouds": [self.cloud.model_dump()],
            }
        ).model_copy(update={"state_dir": str(self.folder / "state")})
        self.activities = CloudDiskActivities(
            self.settings, opener=self.opener, accounts=accounts(self.settings.clouds)
        )

    def opener(self, _: str) -> Connection:
        return FakeConnection(self.domain)  # type: ignore[return-value]

    @property
    def image(self) -> DiskImage:
        path = self.domain.image
        return DiskImage(target="vda", path=str(path), format="raw", capacity=path.stat().st_size, allocated=0)

    @property
    def ref(self) -> VmRef:
        return VmRef(vm=self.vm, uuid=UUID, token=1)

    def write(self, *blocks: int, what: bytes = b"data") -> None:
        with RawFile(self.domain.image, writable=True) as raw:
            for index in blocks:
                raw.write(index * BLOCK, what * 100)

    def content(self) -> dict[int, bytes]:
        """Blocks that are not zeros, as a cloud tells them."""
        raw = self.domain.image.read_bytes()
        cut = {at // BLOCK: raw[at : at + BLOCK] for at in range(0, len(raw), BLOCK)}
        return {index: data for index, data in cut.items() if data.strip(b"\0")}

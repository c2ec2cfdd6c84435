"""A KVM host under the contract: its real libvirt behind a connection that can fail, and its folder looked into."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from typing import Any

from clouds.disks.content import BLOCK, RawFile
from clouds.kvm.adapter import assemble
from clouds.kvm.connection import Connection, ask_qemu, libvirt
from clouds.kvm.place.instances import _mark
from clouds.kvm.place.store import Store
from models.clouds import CallSettings, KvmSettings, KvmSize
from tests.clouds.faults import FaultPlan, Kind
from tests.clouds.scene import Calls
from workers.lab.lab import Lab

REMOTE, ACCESS = 7, 10
"""libvirt's error domains: its RPC, its access control."""
RPC_FAILED, ACCESS_DENIED = 38, 88
OF_LIBVIRT: tuple[Kind, ...] = ("unavailable", "lose", "permission")
"""Faults that a libvirtd on this host has; it throttles nobody, has no quotas and no credentials that expire, and a
dropped connection is one that is unavailable."""
FILES = ("make", "write_block", "finish", "read_block", "create_image")


class KvmFaults(FaultPlan):
    """Faults of the connection are made here, before or behind the real call; damage is done to the files."""

    def __init__(self, store: Store) -> None:
        super().__init__()
        self._store = store

    def on(self, operation: str, kind: Kind, times: int = 1, after: int = 0) -> None:
        if operation == "read_block" and kind == "damage":
            for record in self._store.disks():
                with self._store.raw(record.snapshot.id).open("r+b") as file:
                    file.seek(100)
                    byte = file.read(1)[0]
                    file.seek(100)
                    file.write(bytes([byte ^ 1]))
        elif operation == "create_image" and kind == "lose":
            pass  # a record that is written has no answer to lose; that it is made twice is tested all the same
        elif operation in FILES or kind not in OF_LIBVIRT:
            raise ValueError(
                f"{kind} of {operation} cannot be made to happen to a file or libvirtd: leave the test out"
            )
        else:
            super().on(operation, kind, times, after)


class Watched(Store):
    """Counts blocks, of this process."""

    faults: FaultPlan
    sent = 0

    def write_block(self, file: RawFile, index: int, data: bytes) -> None:
        self.sent += len(data)
        super().write_block(file, index, data)

    def read_block(self, file: RawFile, index: int) -> bytes:
        self.faults.next("read_block")
        return super().read_block(file, index)


class Shaky:
    """A libvirt object whose calls fail as planned."""

    def __init__(self, inner: Any, faults: FaultPlan) -> None:
        self._inner, self._faults = inner, faults

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._inner, name)
        return self._call(name, call) if callable(call) else call

    def _call(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def made(*arguments: Any) -> Any:
            kind = self._faults.next(name)
            if kind == "permission":
                raise refusal(ACCESS_DENIED, ACCESS, "access denied")
            if kind == "unavailable":
                raise refusal(RPC_FAILED, REMOTE, "Cannot recv data: Connection reset by peer")
            told = call(*arguments)
            if kind == "lose":
                raise refusal(RPC_FAILED, REMOTE, "End of file while reading data: Input/output error")
            return self._shaky(told)

        return made

    def _shaky(self, told: Any) -> Any:
        if isinstance(told, list):
            return [self._shaky(each) for each in told]
        return Shaky(told, self._faults) if type(told).__name__ == "virDomain" else told


def refusal(code: int, domain: int, said: str) -> Exception:
    error: Exception = libvirt().libvirtError(said)
    error.err = (code, domain, said, 2, None, None, None, -1, -1)  # type: ignore[attr-defined]
    return error


class KvmCloud:
    calls = Calls(
        start="make",
        write="write_block",
        finish="finish",
        read="read_block",
        create_image="create_image",
        create_instance="defineXML",
        reboot="reset",
        get="lookupByUUIDString",
        list="listAllDomains",
        priced=False,
        asked_again=False,
        addressed=False,
    )
    size = "small"

    def __init__(self, lab: Lab, host: str) -> None:
        folder = lab.settings.host(host) / "cloud"
        shutil.rmtree(folder, ignore_errors=True)
        self.settings = KvmSettings(
            region=host,
            libvirt_socket=str(lab.settings.libvirt_socket(host)),
            folder=str(folder),
            accelerator="kvm" if lab.accelerator() == "kvm" else "qemu",
            sizes=tuple(KvmSize(name=name, vcpus=1, memory_mib=64) for name in (*"abcdef", self.size)),
            stop_within=0.5,
            memory_reserve_mib=0,
            calls=CallSettings(attempts=3, parallel=4, poll=0.01, finish_within=30),
        )
        self.store = Watched(self.settings.folder)
        self.faults = self.store.faults = KvmFaults(self.store)
        self.adapter = assemble(self.settings, self.store, self._open)

    def _open(self, socket: str) -> Connection:
        opened: Any = Shaky(self._plain(), self.faults)
        shaky: Connection = opened
        return shaky

    def _plain(self) -> Any:
        return libvirt().open(f"qemu+unix:///system?socket={self.settings.libvirt_socket}")

    def sent(self) -> int:
        """Of this process: a worker that was killed is not counted."""
        return self.store.sent

    def content(self, disk: str) -> dict[int, bytes]:
        data = self.store.raw(disk).read_bytes()
        cut = {at // BLOCK: data[at : at + BLOCK].ljust(BLOCK, b"\0") for at in range(0, len(data), BLOCK)}
        return {index: block for index, block in cut.items() if block.strip(b"\0")}

    def things(self) -> list[str]:
        connection = self._plain()
        mine = [domain.UUIDString() for domain in connection.listAllDomains() if _mark(domain) is not None]
        connection.close()
        return [
            *(each.snapshot.id for each in self.store.disks()),
            *(each.image.id for each in self.store.images()),
            *mine,
        ]

    def small_pages(self) -> None:
        raise NotImplementedError("only fakes have pages of a size that is told")

    def guest_writes(self, volume: str, index: int, data: bytes) -> None:
        """By QEMU itself, through the very device that the guest has: its bitmap sees it."""
        id, _, target = volume.partition("/")
        pattern = self.store.folder / "pattern"
        pattern.write_bytes(data)
        connection = self._plain()
        domain = connection.lookupByUUIDString(id)
        device = f"/machine/peripheral/virtio-disk{ord(target[-1]) - ord('a')}/virtio-backend"
        line = f'qemu-io -d {device} "write -s {pattern} {index * BLOCK} {len(data)}"'
        command = {"execute": "human-monitor-command", "arguments": {"command-line": line}}
        told = json.loads(ask_qemu(domain, json.dumps(command)))["return"]
        connection.close()
        assert "wrote" in told or told == "", told

    def clean(self) -> None:
        self.faults.clear()
        adapter = self.adapter
        assert adapter.instances is not None
        assert adapter.image_import is not None
        for thing in reversed(self.things()):
            if thing.startswith("image-"):
                adapter.image_import.delete_image(thing)
            elif not thing.startswith("disk-"):
                adapter.instances.terminate_instance(thing)
        for thing in self.things():
            adapter.image_import.delete_disk(thing)
        left = [str(path) for path in self.store.folder.rglob("*") if path.is_file() and path.name != "pattern"]
        shutil.rmtree(self.store.folder, ignore_errors=True)
        assert self.things() == left == []

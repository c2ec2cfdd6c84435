"""What the contract suite needs of a cloud under test: the adapter, and a look behind the provider's API."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Protocol

from clouds import tokens
from clouds.capabilities import Adapter
from clouds.disks.content import BLOCK
from models.clouds import CloudSettings, Cursor, DiskOrder, ImageOrder, InstanceOrder
from tests.clouds.faults import FaultPlan


@dataclass(frozen=True)
class Calls:
    """The provider's names of the operations that matter to the suite, and what is its own way."""

    start: str
    """Begins an upload."""
    write: str
    finish: str
    read: str
    create_image: str
    create_instance: str
    reboot: str
    get: str
    list: str
    """Of instances, like `get`."""
    disks_of_an_image: int = 2
    """That the suite makes one of; some clouds have no more than one."""
    gives_disks_up: bool = True
    """A disk that came whole can still end badly. Elsewhere only an image of it can."""
    snapshots_of_stopped: bool = False
    """A snapshot is made of the disk of an instance that is stopped. Elsewhere of any."""
    priced: bool = True
    """The repository has prices."""
    limited: tuple[str, int] | None = None
    """A call of an upload that a quota can refuse, and how many of them go well first; None: the fourth write."""
    images_hold_disks: bool = True
    """An image needs the disks that it was made of. Elsewhere it is a copy."""
    asked_again: bool = True
    """A creation whose answer was lost is asked for again. Elsewhere it is looked for first, and found."""
    addressed: bool = True
    """An instance that runs has an address without its guest's help."""
    put_object: str = ""
    """Into the index of the cache, and..."""
    list_objects: str = ""
    deltas_are_of_one_line: bool = True
    """The cloud knows what an imported delta and its base have in common. Elsewhere only snapshots of one disk have."""


class Cloud(Protocol):
    """One adapter, connected by its real SDK to a fake of its cloud that answers over HTTP."""

    adapter: Adapter
    calls: Calls
    size: str
    """Of an instance: one that exists."""

    @property
    def settings(self) -> CloudSettings: ...
    @property
    def faults(self) -> FaultPlan: ...

    def sent(self) -> int:
        """Bytes of disk content that the cloud took so far, repeated ones too, with what their format adds."""

    def content(self, disk: str) -> dict[int, bytes]:
        """A disk's blocks as the cloud keeps them, zero ones left out."""

    def things(self) -> list[str]:
        """Everything that exists and costs money."""

    def guest_writes(self, volume: str, index: int, data: bytes) -> None:
        """As the instance's guest does."""

    def small_pages(self) -> None:
        """Lists of objects come two at a time."""


@dataclass
class MemoryDisk:
    """A small disk of zeros, to read and to write."""

    size: int
    held: bytearray = field(init=False)

    def __post_init__(self) -> None:
        self.held = bytearray(self.size)

    def read(self, offset: int, length: int) -> bytes:
        assert 0 <= offset <= offset + length <= self.size
        return bytes(self.held[offset : offset + length])

    def data(self) -> Sequence[tuple[int, int]]:
        return [(0, self.size)]

    def write(self, offset: int, data: bytes) -> None:
        assert 0 <= offset <= offset + len(data) <= self.size
        self.held[offset : offset + len(data)] = data

    def zero(self, offset: int, length: int) -> None:
        self.write(offset, bytes(length))

    def flush(self) -> None:
        pass

    def copy(self) -> MemoryDisk:
        other = MemoryDisk(self.size)
        other.held[:] = self.held
        return other

    def blocks(self) -> dict[int, bytes]:
        """As Cloud.content tells it."""
        cut = {i // BLOCK: bytes(self.held[i : i + BLOCK]).ljust(BLOCK, b"\0") for i in range(0, self.size, BLOCK)}
        return {index: data for index, data in cut.items() if data.strip(b"\0")}


RUN, SALT = "NOVACRON_TEST_RUN", "NOVACRON_TEST_SALT"
"""On a real account (tests/live): what all that is made is tagged with, and what keeps one test's tokens from those of
another. In the environment, for processes that tests start."""
RUN_TAG = "novacron-run"


def token(workflow: str, step: str) -> str:
    return tokens.token(f"{os.environ.get(SALT, '')}{workflow}", step)


def tags(**more: str) -> dict[str, str]:
    run = os.environ.get(RUN, "")
    return {RUN_TAG: run, **more} if run else more


@dataclass
class Pace:
    looks: int = 20
    pause: float = 0.0
    """Seconds. Fakes need a few looks, no time."""


PACE = Pace()


def looks() -> Iterator[int]:
    """Ends when what is waited for should long be there."""
    for number in range(PACE.looks):
        yield number
        time.sleep(PACE.pause)


def small_disk(*blocks: int, size: int = 12 * BLOCK + 1000) -> MemoryDisk:
    """Different data in each of these blocks, which no format makes smaller."""
    disk = MemoryDisk(size)
    for index in blocks or (0, 2, 3, 4, 7, 12):
        disk.write(index * BLOCK + 10, Random(index).randbytes(min(BLOCK, size - index * BLOCK) - 10))
    return disk


def order(step: str = "disk", name: str = "vm-1-vda") -> DiskOrder:
    return DiskOrder(name=name, token=token("move/lab/vm-1", step), tags=tags())


def ignore(_: Cursor) -> None:
    """A note that nobody keeps."""


class Killed(Exception):
    """The worker dies here."""


@dataclass
class Journal:
    """Keeps cursors, and dies with `deadly` of them kept."""

    deadly: int = 10**9
    kept: list[Cursor] = field(default_factory=list)
    moved_only: bool = False
    """Cursors at the very beginning, by which a slow step only says that it lives, are not kept."""

    def __call__(self, cursor: Cursor) -> None:
        if self.moved_only and not cursor.next_block:
            return
        if len(self.kept) == self.deadly:
            raise Killed
        self.kept.append(cursor)


def boot_image(cloud: Cloud) -> str:
    """A bootable image, as an instance needs it."""
    images = cloud.adapter.image_import
    assert images is not None
    disk = images.import_disk(order("boot"), small_disk(0, 1), ignore).disk
    image = images.create_image(
        ImageOrder(name="contract-boot", token=token("move/lab/vm-1", "image"), disks=(disk,), tags=tags())
    ).id
    for _ in looks():
        if images.get_image(image).state == "ready":
            return image
    raise AssertionError(f"{image} is not ready")


def stop(cloud: Cloud, instance: str) -> None:
    """By the cloud's word."""
    instances = cloud.adapter.instances
    assert instances is not None
    for wanted in ("running", "stopped"):
        for _ in looks():
            if instances.get_instance(instance).state == wanted:
                break
        else:
            raise AssertionError(f"{instance} is not {wanted}")
        if wanted == "running":
            instances.stop_instance(instance)


def instance_order(cloud: Cloud, image: str, name: str = "vm-1") -> InstanceOrder:
    return InstanceOrder(name=name, image=image, size=cloud.size, tags=tags(purpose="contract"))

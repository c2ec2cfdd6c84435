"""Memory and disks through both ends, with page memory and stores: exact whatever is known, cheaper when more is."""

from __future__ import annotations

import random
import shutil
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from dwcp import control
from dwcp.encoding.store import Store
from models.datapath import DataPathStatus
from models.store import StoreSettings, StoreUse

from .harness import Pair, Server, read_all, until
from .streams import PAGE, Guest, RamStream, nbd_copy, whole_move

Ends = Callable[..., Pair]
VM = "6d5e8c3a-0000-4000-8000-000000000001"
PAGES = 3000


class Hosts:
    """Two hosts with a store each; `move` carries a stream from one to the other over a session of its own."""

    def __init__(self, ends: Ends, folder: Path) -> None:
        self._ends = ends
        self._folder = folder

    def settings(self, host: str, **changes: Any) -> StoreSettings:
        return StoreSettings(folder=str(self._folder / host), **{"limit_mib": 400, **changes})

    def move(
        self, source: str, destination: str, raw: bytes, service: str = "ram", **options: Any
    ) -> tuple[DataPathStatus, DataPathStatus]:
        """The last status of both ends. Asserts that what arrived is what was sent."""
        pair = self._ends()
        got: dict[int, bytes] = {}
        server = Server(pair.path(service), lambda number, sock: got.update({number: read_all(sock)}))
        images = options.pop("images", ())
        middle, limit = options.pop("middle", None), options.pop("limit_mib", 400)
        both = {"page_memory_mib": 32, **options}
        used = {
            host: StoreUse(
                settings=self.settings(host, limit_mib=limit, images=images if host == destination else ()), vm=VM
            )
            for host in (source, destination)
        }
        port = pair.start_destination(store=used[destination], **both).port
        pair.start_source(port, store=used[source], **both)
        pair.wait_state(pair.source, "connected")
        until("the stores have talked", lambda: all(status.stores != "talking" for status in pair.status()))
        with pair.connect(service) as sock:
            half = len(raw) // 2
            sock.sendall(raw[:half])
            if middle:
                middle()
            sock.sendall(raw[half:])
        until("the stream is over", lambda: got and all(not s.flows[0].open for s in pair.status()))
        ends = pair.status()
        for folder in (pair.source, pair.destination):
            control.stop(folder)
        server.close()
        assert got[0] == raw
        assert ends[0].flows[0].digest_out == ends[1].flows[0].digest_in
        return ends


@pytest.fixture
def hosts(ends: Ends, tmp_path: Path) -> Hosts:
    return Hosts(ends, tmp_path)


def memory(guest: Guest) -> bytes:
    """The guest's whole memory as QEMU writes it, once."""
    stream = RamStream(guest.blocks)
    stream.start()
    stream.part(guest.all())
    stream.part([], last=True)
    stream.device(0, "timer", b"t" * 40)
    stream.end()
    return stream.raw


def test_a_whole_move_arrives_and_both_ends_count_the_same(hosts: Hosts) -> None:
    stream = whole_move(1, {"pc.ram": PAGES, "pc.bios": 64})
    near, far = hosts.move("a", "b", stream.raw)
    assert near.pages == far.pages
    assert near.pages.records == stream.made.pages + stream.made.zeros
    assert near.pages.same + near.pages.delta + near.pages.copied > PAGES // 5
    assert not near.pages.lost_sync


def test_a_vm_that_comes_back_sends_what_has_changed(hosts: Hosts) -> None:
    guest = Guest(2, {"pc.ram": PAGES})
    first, _ = hosts.move("a", "b", memory(guest))
    guest.touch(0.3)
    back, _ = hosts.move("b", "a", memory(guest))
    assert back.pages.base > PAGES * 0.3
    assert back.pages.delta > PAGES * 0.05
    assert back.wire_out < first.wire_out * 0.3
    guest.touch(0.1)
    again, _ = hosts.move("a", "b", memory(guest))
    assert again.wire_out < back.wire_out


def test_pages_that_rotted_in_the_destinations_store_are_sent_again(hosts: Hosts, tmp_path: Path) -> None:
    guest = Guest(3, {"pc.ram": PAGES})
    hosts.move("a", "b", memory(guest))
    guest.touch(0.1)
    rot(tmp_path / "a", every=37)
    back, far = hosts.move("b", "a", memory(guest))
    assert far.pages.resent > 5
    assert back.pages.base > PAGES * 0.4


def test_pages_that_rotted_in_the_sources_store_are_not_built_upon(hosts: Hosts, tmp_path: Path) -> None:
    guest = Guest(4, {"pc.ram": PAGES})
    hosts.move("a", "b", memory(guest))
    rot(tmp_path / "b", every=37)
    back, far = hosts.move("b", "a", memory(guest))
    assert back.pages.base > PAGES * 0.4
    assert far.pages.resent == 0


def rot(store: Path, every: int) -> None:
    """Change one byte in each of some pages of every visit."""
    for slab in store.rglob("slab"):
        with slab.open("r+b") as file:
            size = file.seek(0, 2)
            for at in range(5 * PAGE + 100, size, every * PAGE):
                file.seek(at)
                byte = file.read(1)
                file.seek(at)
                file.write(bytes([byte[0] ^ 0x40]))


@pytest.mark.parametrize("lost", ["a", "b"])
def test_a_store_lost_between_two_moves_costs_bytes_and_nothing_else(hosts: Hosts, tmp_path: Path, lost: str) -> None:
    guest = Guest(5, {"pc.ram": PAGES})
    hosts.move("a", "b", memory(guest))
    shutil.rmtree(tmp_path / lost)
    back, _ = hosts.move("b", "a", memory(guest))
    assert back.pages.base == 0


def test_a_store_that_loses_its_pages_while_the_move_runs_costs_bytes_and_nothing_else(
    hosts: Hosts, tmp_path: Path
) -> None:
    guest = Guest(6, {"pc.ram": PAGES})
    hosts.move("a", "b", memory(guest))
    back, far = hosts.move("b", "a", memory(guest), middle=lambda: rot(tmp_path / "a", every=1))
    assert far.pages.resent > 0
    assert back.pages.base > 0


def test_a_store_without_room_keeps_nothing_and_the_move_goes_on(hosts: Hosts, tmp_path: Path) -> None:
    guest = Guest(7, {"pc.ram": PAGES})
    near, _ = hosts.move("a", "b", memory(guest), limit_mib=5)
    assert near.pages.fresh > 0
    assert not list(tmp_path.rglob("slab"))


def test_pages_of_the_destinations_disk_image_are_not_sent(hosts: Hosts, tmp_path: Path) -> None:
    dice = random.Random(8)
    blocks = [dice.randbytes(PAGE) for _ in range(PAGES)]
    image = tmp_path / "disk.img"
    image.write_bytes(b"".join(blocks))
    Store(hosts.settings("b", images=(str(image),))).index_images()
    guest = Guest(8, {"pc.ram": PAGES})
    for number in range(0, PAGES, 2):
        guest.pages["pc.ram", number] = blocks[number]
    near, _ = hosts.move("a", "b", memory(guest), images=(str(image),))
    assert near.pages.known >= PAGES // 2 - 10


def test_a_disk_copy_is_carried_block_by_block(hosts: Hosts) -> None:
    raw, blocks = nbd_copy(9)
    near, far = hosts.move("a", "b", raw, service="nbd")
    assert near.pages == far.pages
    assert near.pages.records == blocks


def test_without_page_memory_the_stream_is_carried_all_the_same(hosts: Hosts) -> None:
    near, _ = hosts.move("a", "b", whole_move(10, {"pc.ram": 500}).raw, page_memory_mib=0)
    assert near.pages.records == 0


@pytest.mark.parametrize("codec", ["raw", "none", "lz4", "zstd"])
def test_every_codec_carries_pages(hosts: Hosts, codec: str) -> None:
    near, _ = hosts.move("a", "b", whole_move(11, {"pc.ram": 800}).raw, codec=codec)
    assert (near.pages.records > 0) == (codec != "raw")


def test_pages_survive_lanes_that_are_killed_again_and_again(ends: Ends) -> None:
    stream = whole_move(12, {"pc.ram": 4000}, rounds=6)
    pair = ends()
    got: dict[int, bytes] = {}
    Server(pair.path("ram"), lambda number, sock: got.update({number: read_all(sock)}))
    pair.start(wire=True, both={"page_memory_mib": 16})
    over = threading.Event()

    def kill() -> None:
        dice = random.Random(12)
        while not over.wait(0.15):
            assert pair.wire
            pair.wire.cut(dice.randrange(max(1, pair.wire.connections())))

    with ExitStack() as stack:
        killer = threading.Thread(target=kill)
        killer.start()
        stack.callback(killer.join)
        stack.callback(over.set)
        with pair.connect("ram") as sock:
            for at in range(0, len(stream.raw), 1 << 20):
                sock.sendall(stream.raw[at : at + (1 << 20)])
        until("the stream is over", lambda: got, 60)
    assert got[0] == stream.raw

"""What comes from disks and about files: chunks, recipes, transfers, the content store's own files."""

from __future__ import annotations

import os
import random
import struct
import tempfile
from collections.abc import Hashable
from pathlib import Path

from blake3 import blake3

from dwcp.encoding import chunks_py
from dwcp.encoding import recipe as recipes
from dwcp.encoding.chunks import GEAR, HOLE, Chunker, chunk_id
from dwcp.encoding.recipe import Builder, Recipe
from dwcp.encoding.transfer import Receiver, Sender
from dwcp.errors import DigestMismatch, ProtocolError, StoreFailed, TransferFailed
from dwcp.transport.frames import Buffer
from models.store import StoreSettings, StoreUse
from tests.fuzz.engine import Case, Wrong

_SMALL = (64, 128, 512, 96, 1 << 57, 1 << 60)
_NOISE = random.Random(1).randbytes(30_000)
_FILE = _NOISE + bytes(HOLE) + b"text, and more of it. " * 900 + _NOISE[:20_000]


def chunks() -> Case:
    """The C twin cuts as the definition does, and the pieces are the file."""
    from dwcp.encoding._chunks import split

    def run(data: bytes) -> Hashable:
        inside, final = bool(data[:1] and data[0] & 1), bool(data[:1] and data[0] & 2)
        lengths = split(data, GEAR, _SMALL, inside, final)
        if lengths != chunks_py.split(data, GEAR, _SMALL, inside, final):
            raise Wrong("the C twin cuts differently")
        if final and sum(map(abs, lengths)) != len(data):
            raise Wrong("the pieces are not the file")
        return len(lengths).bit_length(), sum(length < 0 for length in lengths).bit_length()

    return Case([_NOISE[:3000], bytes(500) + b"x" + bytes(300), _NOISE[:200] * 5], run, refusals=())


def _recipe_of(data: bytes) -> Recipe:
    chunker, builder = Chunker(), Builder()
    builder.add(chunker.feed(data) + chunker.end())
    return builder.done()


def recipe() -> Case:
    def run(data: bytes) -> Hashable:
        found = recipes.decode(data, limit=1 << 40)
        if found.encode() != data:
            raise Wrong("a recipe that is taken does not come back as it was")
        return len(found.lengths)

    def seal(data: bytes, dice: random.Random) -> bytes:
        """Counts, sum and checksum hold."""
        room = len(data) - recipes.size_of(0)
        if room < 0:
            return data
        pieces = room // 40
        lengths = struct.unpack_from(f"!{pieces}q", data, 52)
        fixed = struct.pack("!4sHHIQ", b"NCRP", 1, 0, pieces, min(sum(map(abs, lengths)), (1 << 64) - 1))
        body = fixed + data[20 : 52 + 40 * pieces]
        return body + blake3(body).digest()

    seeds = [_recipe_of(data).encode() for data in (_FILE, b"", b"x", bytes(1 << 20), b"x" + bytes(HOLE) + b"y")]
    return Case(seeds, run, repair=seal)


class _Shelf:
    """A sink in memory."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.got: dict[int, bytes] = {}

    def missing(self) -> list[int]:
        return recipes.missing(self.recipe, ())

    def put(self, piece: int, data: Buffer) -> None:
        if chunk_id(data) != self.recipe.id(piece) or len(data) != self.recipe.lengths[piece]:
            raise Wrong(f"piece {piece} was given on though it is another chunk")
        self.got[piece] = bytes(data)

    def finish(self) -> None:
        if set(self.got) != set(self.missing()):
            raise Wrong("a file is finished that is not whole")


def _sender(data: bytes) -> Sender:
    found = _recipe_of(data)
    places = found.offsets()
    return Sender(found, lambda piece: data[places[piece] :][: found.lengths[piece]])


def _talk() -> tuple[bytes, bytes]:
    """What both halves say in a transfer of _FILE."""
    sender, receiver = _sender(_FILE), Receiver(_Shelf)
    there = back = b""
    while not sender.done:
        out, answer = sender.pull(), b""
        receiver.feed(out) if out else None
        answer = receiver.pull()
        sender.feed(answer) if answer else None
        there, back = there + out, back + answer
    return there, back


def _mend_messages(data: bytes, dice: random.Random) -> bytes:
    """The lengths of the messages hold, up to a place."""
    good = dice.randint(0, 6)
    out, place = b"", 0
    while good and place + 5 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        payload = data[place + 5 : place + 5 + length]
        out += len(payload).to_bytes(4, "big") + data[place + 4 : place + 5] + payload
        place += 5 + len(payload)
        good -= 1
    return out + data[place:]


def receiver() -> Case:
    """A file's receiver hears anything."""

    def run(data: bytes) -> Hashable:
        half = Receiver(_Shelf, limit=1 << 24)
        middle = len(data) // 3
        for part in (data[:middle], data[middle:], b""):
            half.feed(part) if part or not half.done else None
            half.pull()
        return half.done

    return Case([_talk()[0]], run, (ProtocolError, DigestMismatch, TransferFailed), _mend_messages)


def sender() -> Case:
    """A file's sender hears anything."""

    def run(data: bytes) -> Hashable:
        half = _sender(_FILE)
        while half.pull():
            pass
        half.feed(data or b"\0")
        sent = sum(map(len, iter(half.pull, b"")))
        if sent > 2 * len(_FILE):
            raise Wrong(f"{sent} bytes are sent for a file of {len(_FILE)}")
        return half.done, sent.bit_length()

    return Case([_talk()[1]], run, (ProtocolError, TransferFailed), _mend_messages)


class _Keep:
    """A content store with one visit and one image, whose files can be put back as they were."""

    def __init__(self) -> None:
        from dwcp.encoding.pages import Contents
        from dwcp.encoding.store import Store
        from dwcp.known import pack_contents

        self._folder = tempfile.TemporaryDirectory(prefix="fz")
        self.root = Path(self._folder.name)
        (self.root / "images").mkdir()
        image = self.root / "images" / "disk.raw"
        image.write_bytes(_NOISE[:4096] * 2 + _NOISE[4096 : 3 * 4096] + bytes(8192))
        folder = self.root / "store"
        self.settings = StoreSettings(folder=str(folder), limit_mib=64, images=(str(image),))
        self.use = StoreUse(settings=self.settings, vm="6f2c8a1e-0000-4000-8000-000000000001")
        self.pages = [_NOISE[at : at + 4096] for at in range(0, 5 * 4096, 4096)]
        places = b"".join(struct.pack("<III", 0, slot, slot) for slot in range(5))
        self.contents = pack_contents(Contents((b"pc.ram",), places, 5))
        with Store(self.settings) as store:
            draft = store.begin(self.use, 8)
            assert draft
            os.pwrite(draft.fd, b"".join(self.pages), 0)
            keys = b"".join(blake3(page).digest(16) for page in self.pages)
            root = draft.commit(self.contents, keys, 5)
            assert root
            self.visit = root
            store.index_images()
            (info,) = store.images()
            self.image = info.root
            self.blocks = [store.read_image(self.image, n) for n in range(info.blocks)]
        entries = [path for kind in ("visits", "images") for path in sorted((folder / kind).iterdir())]
        self.files = [path for entry in entries for path in sorted(entry.iterdir())]
        self.files += [entry / "damaged" for entry in entries]
        self.were = [path.read_bytes() if path.exists() else None for path in self.files]

    def restore(self) -> None:
        for path, was in zip(self.files, self.were, strict=True):
            if was is None:
                path.unlink(missing_ok=True)
            elif not path.exists() or path.read_bytes() != was:
                path.write_bytes(was)


def store() -> Case:
    """One file of a store is damaged: what is read from it is what was stored, or nothing."""
    from dwcp.encoding.pages import Base
    from dwcp.encoding.store import Store
    from dwcp.known import unpack_contents

    keep = _Keep()

    def seal(data: bytes, dice: random.Random) -> bytes:
        """Headers whose digest holds."""
        found = data[1:]
        if found[:8] == b"NCVISIT\n" and len(found) >= 512:
            found = found[:496] + blake3(found[:496]).digest(16) + found[512:]
        elif found[:8] == b"NCIMAGE\n" and len(found) >= 128:
            found = found[:112] + blake3(found[:112] + found[128:]).digest(16) + found[128:]
        return data[:1] + found

    def run(data: bytes) -> Hashable:
        which = data[0] % len(keep.files) if data else 0
        keep.files[which].write_bytes(data[1:])
        seen: list[Hashable] = [keep.files[which].name]
        try:
            with Store(keep.settings) as opened:
                seen += [len(opened.visits(keep.use)), len(opened.images())]
                visit = opened.open(keep.visit, keep.use)
                if visit:
                    with visit:
                        seen.append(_same("page", [visit.read(slot) for slot in range(visit.slots)], keep.pages))
                        Base(visit.pages, unpack_contents(visit.contents), visit.keys)
                blocks = len(opened.image_keys(keep.image)) // 16
                seen.append(_same("block", [opened.read_image(keep.image, n) for n in range(blocks)], keep.blocks))
                seen.append(len(opened.verify().damage))
                opened.stats()
        finally:
            keep.restore()
        return tuple(seen)

    seeds = [bytes([n]) + (was or b"\0\0\0\1") for n, was in enumerate(keep.were)]
    return Case(seeds, run, refusals=(StoreFailed,), repair=seal)


def _same(what: str, found: list[bytes | None], stored: list[bytes | None] | list[bytes]) -> int:
    """How many are gone. The rest must be as stored."""
    for number, (now, was) in enumerate(zip(found, stored, strict=False)):
        if now is not None and now != was:
            raise Wrong(f"{what} {number} of the store is not what was stored")
    return sum(now is None for now in found)


def contents() -> Case:
    """The map of a visit, as the store gives it back."""
    from dwcp.encoding.pages import Contents
    from dwcp.known import pack_contents, unpack_contents

    good = Contents((b"pc.ram", b"vga.vram"), struct.pack("<III", 1, 2, 0), 1)

    def run(data: bytes) -> Hashable:
        found = unpack_contents(data)
        if pack_contents(found) != data:
            raise Wrong("contents that are taken do not come back as they were")
        return len(found.blocks)

    return Case([pack_contents(good), pack_contents(Contents((), b"", 0))], run, refusals=(ValueError,))

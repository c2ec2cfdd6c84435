"""What a bulk flow's bytes go through, in order."""

from __future__ import annotations

import os
from dataclasses import dataclass

from dwcp.buffers import BufferPool
from dwcp.encoding.bulk import Packer
from dwcp.encoding.codec import Rung
from dwcp.encoding.pages import PAGE, Base, Encoder, Have, Memory, bound, page_keys
from dwcp.transport.frames import Buffer

from .streams import RamStream


@dataclass
class Far:
    """What the destination is known to have."""

    base: Base | None
    have: Have | None


class NoCodec:
    def rung(self, body: Buffer, *, urgent: bool) -> Rung:
        return "none"

    def observe(self, rung: Rung, raw: int, wire: int, cpu: float, wall: float) -> None:
        pass


def test_while_the_guest_stands_still_nothing_refers_to_the_far_store() -> None:
    library = os.urandom(4 * PAGE)
    pages = [library[at : at + PAGE] for at in range(0, len(library), PAGE)]
    encoder = Encoder(Memory(64), "ram")
    far = Far(None, Have(page_keys(library)))
    packer = Packer(encoder, NoCodec(), BufferPool(bound(1 << 20), 2), far)
    stream = RamStream({"pc.ram": 1 << 20})
    stream.start()
    stream.part([("pc.ram", 0, pages[0]), ("pc.ram", 1, pages[1])])
    stream.begin_part(last=True)  # QEMU has stopped the guest
    assert packer.pack(memoryview(stream.raw), flush=True).wanted
    assert encoder.counts.known == 2
    stream.made.raw.clear()
    stream.page("pc.ram", 2, pages[2], always_named=True)
    stream.page("pc.ram", 3, pages[3])
    stream.end_part()
    assert packer.pack(memoryview(stream.raw), flush=True).wanted is None
    assert (encoder.counts.known, encoder.counts.fresh) == (2, 2)

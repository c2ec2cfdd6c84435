"""A batch between its flow's reader and the lanes."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

from dwcp.encoding.codec import Rung
from dwcp.encoding.pages import NONE, PAGE, Base
from dwcp.transport.frames import Buffer, Codec


@dataclass(frozen=True, slots=True)
class Wanted:
    """Pages that the tokens of a batch refer to, in order: the far store may fail to supply them."""

    refs: array[int]
    """Where in the raw bytes they lie."""
    bases: array[int]
    """The slot of the base that is needed in place of that, or NONE."""
    base: Base | None

    def page(self, raw: Buffer, ordinal: int) -> bytes | None:
        """One of them, from the batch's raw bytes; None: there is no such, or our own store has lost it as well."""
        if ordinal >= len(self.refs):
            return None
        if self.bases[ordinal] == NONE:
            at = self.refs[ordinal]
            return bytes(memoryview(raw)[at : at + PAGE])
        page = bytearray(PAGE)
        if self.base is None or self.base.supply(self.bases[ordinal : ordinal + 1], page):
            return None
        return bytes(page)


@dataclass(frozen=True, slots=True)
class Kept:
    """Raw bytes of a batch, in a pooled buffer, that stay until it is acknowledged."""

    raw: bytearray
    wanted: Wanted


@dataclass(slots=True)
class Packed:
    """One batch as it is handed to the lanes."""

    consumed: int
    """Raw bytes it stands for; what follows them belongs to the next batch."""
    body: Buffer
    tokens: int = 0
    """Bytes of page tokens in it, before a chain packed them; 0: it is raw bytes."""
    codec: Codec | None = None
    """None: a lane is still to compress it, by `rung`."""
    rung: Rung | None = None
    """The codec chosen; None: the lane asks."""
    buffer: bytearray | None = field(default=None, repr=False)
    """The pooled buffer that `body` lies in; None: in the raw buffer, or in memory of its own."""
    wanted: Wanted | None = None

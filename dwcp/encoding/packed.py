"""A batch between its flow's reader and the lanes."""

from __future__ import annotations

from dataclasses import dataclass

from dwcp.encoding.codec import Rung
from dwcp.transport.frames import Buffer, Codec


@dataclass(slots=True)
class Packed:
    """One batch as it is handed to the lanes."""

    consumed: int
    """Raw bytes it stands for; what follows them belongs to the next batch."""
    body: Buffer
    tokens: int
    """Bytes of page tokens in it, before a chain packed them; 0: it is raw bytes."""
    codec: Codec | None
    """None: a lane is still to compress it, by `rung`."""
    rung: Rung | None
    """The codec chosen; None: the lane asks."""
    buffer: bytearray | None
    """The pooled buffer that `body` lies in; None: in the raw buffer, or in memory of its own."""
    refs: tuple[int, ...]
    """Where in the raw bytes the pages lie that the far store is to supply."""

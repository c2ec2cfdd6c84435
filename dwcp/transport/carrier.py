"""What the session and the outbox need of a lane, whatever carries it: TCP with or without TLS (lane.py), RDMA.

A new kind of lane derives from `Carrier`, calls `super().__init__`, and fills in what is abstract; `read` is built on
`read_raw`. A lane has one owner thread, the writer's or the reader's. Other threads may call `cut`, which wakes the
owner with an error, `observe`, `queued` and `keep_unsent`. Every blocking call has a deadline.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Final

from dwcp.buffers import BufferPool
from dwcp.transport import frames
from dwcp.transport.frames import HEADER_BYTES, Buffer, Data, Header, Message, Type
from dwcp.transport.liveness import WriterLiveness

UNSENT_BYTES: Final = 256 << 10
"""Kernel's unsent backlog: lanes pull work as they drain, and small frames do not wait behind megabytes."""


class LaneClosed(OSError):
    """The peer closed the connection."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What the carrier itself knows of a lane that is written here. Counters run from the lane's start."""

    acked_bytes: int
    round_trip: float
    """Smoothed, in seconds, with whatever queues on the way."""
    least_round_trip: float
    window_bytes: int
    """What it may have on the way (TCP: its congestion window)."""
    segments: int
    """Sent, counting those sent again."""
    sent_again: int


class Carrier(ABC):
    def __init__(self, pool: BufferPool, number: int = 0) -> None:
        self.kind = ""
        """Shown in the status: tls, tcp, rdma."""
        self.number = number
        """0.. forward, RETURN_LANE the way back; the destination learns it from HELLO."""
        self.opened = time.monotonic()
        self.life = WriterLiveness(self.opened)
        self.next_ping = 0.0
        self.doomed: str | None = None
        """Why the lane is to be given up; set by `cut`."""
        self.farewell_said = False
        self.leaving = False
        """It gets no more work: it says LEAVE, and goes once the peer has read everything up to that."""
        self.left = threading.Event()
        """The peer's answer to LEAVE is here: nothing that went over this lane is lost."""
        self.unsent = 0
        """What `keep_unsent` was told last; 0: nothing yet."""
        self.progress: Progress | None = None
        """As `observe` last found it; None when the carrier cannot tell."""
        self._pool = pool

    @abstractmethod
    def send(self, start: bytes, body: Buffer = b"") -> None:
        """One frame: header and first part, then body. Raises OSError."""

    @abstractmethod
    def read_raw(self) -> tuple[Header, bytearray, memoryview]:
        """Header, the pooled buffer, and the verified payload in it. Raises OSError, ProtocolError."""

    @abstractmethod
    def read_hello(self, wanted: frozenset[Type]) -> tuple[Header, bytes]:
        """One frame of the opening exchange. Raises OSError, ProtocolError for any other type."""

    @abstractmethod
    def settimeout(self, seconds: float) -> None: ...

    @abstractmethod
    def queued(self) -> int:
        """Bytes held here for the peer, sent or not, that its end of the carrier has not confirmed."""

    @abstractmethod
    def cut(self, reason: str) -> None:
        """From any thread: wake the owner with an error. The owner closes."""

    @abstractmethod
    def finish(self) -> None:
        """Owner: the last frame is sent; let the peer read it before the connection goes."""

    @abstractmethod
    def close(self) -> None: ...

    def observe(self, now: float) -> None:
        """Note the carrier's own progress: for the liveness verdict (`life`), and as `progress`."""
        del now

    def keep_unsent(self, size: int) -> None:
        """Keep no more than about `size` bytes that wait here unsent, so that urgent frames do not wait behind them."""
        self.unsent = size

    def read(self) -> tuple[Message, bytearray | None, int]:
        """The next message, the pooled buffer its body lies in (DATA only), and its size on the wire."""
        header, buffer, payload = self.read_raw()
        message = frames.decode_payload(header, payload)
        if not isinstance(message, Data):
            payload.release()
            self._pool.give(buffer)
            return message, None, HEADER_BYTES + header.length
        return message, buffer, HEADER_BYTES + header.length

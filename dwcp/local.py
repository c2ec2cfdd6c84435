"""A flow's end at this host: one connected UNIX socket, a thread that reads it and a thread that writes it.

Reading: a batch is handed on when it is full (about a quarter of the window's time at the flow's own rate, so that the
final drain is short) or as soon as the program pauses and a lane is free. Writing: only what the gate has admitted, in
order. An end of file on one side becomes a half-close on the other, after all data; a program that is gone becomes a
close. When the local program no longer reads, the peer is told to stop (RESET) while the other direction goes on: QEMU
may close its end while the last of its data is still on the way.
"""

from __future__ import annotations

import logging
import select
import socket
import threading
import time
from typing import TYPE_CHECKING, Final, Protocol

from dwcp.buffers import BufferPool
from dwcp.encoding.packed import Kept, Packed
from dwcp.errors import DigestMismatch, DwcpError, ProtocolError
from dwcp.flow import Gate, Reassembly
from dwcp.outbox import Outbound, Outbox
from dwcp.transport.frames import CHAINED, MAX_FLOWS, Buffer, Data, Ending, Fin, ResetReason
from models.datapath import FlowStatus

if TYPE_CHECKING:
    from dwcp.encoding.bulk import Packer, Unpacker

log = logging.getLogger(__name__)

MIN_BATCH: Final = 64 << 10
BATCHES_PER_WINDOW: Final = 4
IDLE_SECONDS: Final = 0.0003
"""A bulk program silent for this long has paused: what it wrote is sent. Other programs are never waited for."""
BUSY_SECONDS: Final = 0.002
"""While all lanes are busy a pause means nothing; look again after this."""
PROBE: Final = "probe"
"""A service whose bytes measure the link: the destination drops them."""
BULK_SERVICES: Final = frozenset({"ram", "nbd", PROBE})
TALK_FLOW: Final = MAX_FLOWS
"""Number of the flow over which the two content stores talk: it leads to no program."""


class Arrived:
    """One batch as a lane left it: waits for its turn to be unpacked, and then at the gate."""

    __slots__ = ("body", "buffer", "codec", "digest", "raw", "seq", "tokens")

    def __init__(self, data: Data, body: Buffer, buffer: bytearray | None) -> None:
        self.seq = data.seq
        self.raw = data.raw_length
        self.tokens = data.tokens
        self.codec = data.codec
        self.digest = data.digest
        self.body = body
        self.buffer = buffer
        """The pooled buffer `body` lies in, None if it does not."""


class Owner(Protocol):
    """What a flow needs of its session."""

    outbox: Outbox
    pool: BufferPool

    def packer(self, flow: Flow) -> Packer | None: ...
    def unpacker(self, flow: Flow) -> Unpacker | None: ...
    def fail(self, error: str) -> None: ...
    def flow_changed(self) -> None: ...


class Flow:
    """Exists from the first frame that names it; gets its socket when it is opened."""

    def __init__(self, number: int, owner: Owner, batch_bytes: int, window_seconds: float, service: str = "") -> None:
        self.number = number
        self.ordinal = number - 1
        self.service = service
        self.error = ""
        self.raw_out = 0
        self.raw_in = 0
        self.digest_out = ""
        self.digest_in = ""
        self.out: Outbound | None = None
        self._owner = owner
        self._batch_bytes = batch_bytes
        self._batch_seconds = window_seconds / BATCHES_PER_WINDOW
        self._sock: socket.socket | None = None
        self._arrivals: Reassembly[Arrived | Fin] = Reassembly()
        self._cond = threading.Condition()
        self._inbound_over = False
        self._cut = False
        self._threads_left = 0
        self._unpacker: Unpacker | None = None

    # --- called by the session and by lanes ---

    @property
    def internal(self) -> bool:
        return self.number == TALK_FLOW

    @property
    def rests(self) -> bool:
        """It has run, and no thread of it runs any more."""
        return self.out is not None and self._threads_left == 0

    @property
    def open(self) -> bool:
        return not (self._inbound_over and (self.out is None or self.out.over))

    def start(self, sock: socket.socket, out: Outbound) -> None:
        """Carry `sock` from now on."""
        sock.setblocking(True)
        with self._cond:
            self._sock, self.out = sock, out
            self._threads_left = 2
            cut = self._cut
        if cut:
            self.cut(self.error)
        for work in (self._read, self._write):
            threading.Thread(target=self._run, args=(work,), name=f"flow {self.number}", daemon=True).start()

    def arrive(self, seq: int, item: Arrived | Fin) -> bool:
        """A verified frame, from a lane's thread. False: a repeat, or nobody wants it. Raises ProtocolError."""
        size = item.raw if isinstance(item, Arrived) else 0
        with self._cond:
            if self._inbound_over:
                return False
            kept = self._arrivals.add(seq, item, size)
            if kept and self._arrivals.ready():
                self._cond.notify_all()
        return kept

    def stop_sending(self, text: str) -> None:
        """The peer cannot deliver what we send: let the local program see it, keep the other direction."""
        self.error = self.error or text
        if self.out:
            self._owner.outbox.drop(self.out)
        self._shutdown(socket.SHUT_RD)

    def cut(self, text: str) -> None:
        """Both directions end now, hard. Idempotent."""
        if self.open:
            self.error = self.error or text
        with self._cond:
            self._cut = self._inbound_over = True
            self._arrivals = Reassembly()
            self._cond.notify_all()
        if self.out:
            self._owner.outbox.drop(self.out)
        self._shutdown(socket.SHUT_RDWR)

    def status(self) -> FlowStatus:
        return FlowStatus(
            service=self.service or "unknown",
            ordinal=self.ordinal,
            raw_out=self.raw_out,
            raw_in=self.raw_in,
            digest_out=self.digest_out,
            digest_in=self.digest_in,
            open=self.open,
            error=self.error[:4000],
        )

    # --- the two threads ---

    def _run(self, work: object) -> None:
        assert callable(work)
        try:
            work()
        except Exception as error:  # a bug must end the session, not silently one thread
            log.exception("flow %d", self.number)
            self._owner.fail(f"flow {self.number} ({self.service}): {type(error).__name__}: {error}")
        finally:
            with self._cond:
                self._threads_left -= 1
                last = self._threads_left == 0
            if last and self._sock:
                self._sock.close()
            self._owner.flow_changed()

    def _read(self) -> None:
        assert self._sock
        assert self.out
        gate = Gate()
        ending = Ending.HALF
        rate = 0.0
        packer = self._owner.packer(self) if self.out.bulk else None
        flushed = time.monotonic()
        buffer = self._owner.pool.take(self._batch_bytes)
        held = 0
        while True:
            most = min(self._batch_bytes, self._owner.outbox.batch_bound(self.out))
            target = int(min(most, max(MIN_BATCH, rate * self._batch_seconds)))
            filled, more = self._fill(memoryview(buffer)[:target], held, self._sock, self.out)
            if filled:
                raw = memoryview(buffer)[:filled]
                if packer is None:
                    packed = Packed(filled, raw)
                else:
                    packed = packer.pack(raw, flush=more is not None or filled < target)
                    if packer.urgent and not self.out.urgent:
                        self._owner.outbox.hasten(self.out)
                digest = gate.add(raw[: packed.consumed])
                self.raw_out += packed.consumed
                self.digest_out = digest.hex()
                kept, buffer, held = self._part(packed, buffer, filled)
                if packed.consumed and not self._owner.outbox.put_packed(self.out, packed, digest, kept):
                    return
                now = time.monotonic()
                span, flushed = now - flushed, now
                # A time-weighted average over about 0.1 s: bursts out of a full socket buffer do not count as a rate.
                rate += (packed.consumed / max(span, 1e-6) - rate) * min(1.0, span / 0.1)
            if more is not None:
                ending = more
                break
        self.digest_out = gate.digest.hex()
        self._owner.outbox.finish(self.out, gate.digest, ending)

    def _part(self, packed: Packed, buffer: bytearray, filled: int) -> tuple[Kept | None, bytearray, int]:
        """Who keeps the raw buffer: the batch, if its body or wanted pages lie in it, else we read on into it.

        (what the far store may ask for, the buffer to read into, bytes of the next batch that are in it already)
        """
        rest = bytes(memoryview(buffer)[packed.consumed : filled])
        kept, lent = None, False
        if packed.wanted:
            kept, lent = Kept(buffer, packed.wanted), True
        elif isinstance(packed.body, memoryview) and packed.body.obj is buffer:
            if packed.consumed <= MIN_BATCH:  # a small batch must not pin a large buffer until it is acknowledged
                packed.body = memoryview(bytes(packed.body))
            else:
                packed.buffer, lent = buffer, True
        if lent:
            buffer = self._owner.pool.take(self._batch_bytes)
        buffer[: len(rest)] = rest
        return kept, buffer, len(rest)

    def _fill(self, view: memoryview, filled: int, sock: socket.socket, out: Outbound) -> tuple[int, Ending | None]:
        """Read until `view`, which has `filled` bytes, is full or the program pauses. (bytes, how it ended or None)."""
        while filled < len(view):
            try:
                got = sock.recv_into(view[filled:], 0, socket.MSG_DONTWAIT if filled else 0)
            except BlockingIOError:
                starving = self._owner.outbox.starving(out)
                if starving and not out.bulk:
                    break
                readable, _, _ = select.select([sock], [], [], IDLE_SECONDS if starving else BUSY_SECONDS)
                if not readable and starving:
                    break
                if out.reset:
                    return filled, Ending.WHOLE
                continue
            except OSError as error:
                log.info("flow %d (%s): reading ended: %s", self.number, self.service, error)
                return filled, Ending.WHOLE
            if not got:
                poll = select.poll()
                poll.register(sock, select.POLLHUP)
                gone = any(event & select.POLLHUP for _, event in poll.poll(0))
                return filled, Ending.WHOLE if gone else Ending.HALF
            filled += got
        return filled, None

    def _write(self) -> None:
        assert self._sock
        gate = Gate()
        self.digest_in = gate.digest.hex()
        while True:
            with self._cond:
                while not (self._arrivals.ready() or self._inbound_over):
                    self._cond.wait()
                if self._inbound_over:
                    return
                item = self._arrivals.take()
            try:
                raw = self._unpack(item) if isinstance(item, Arrived) else b""
                gate.admit(raw, item.digest)
            except DwcpError as error:
                advice = "; start the migration anew" if isinstance(error, DigestMismatch) else ""
                self._owner.fail(f"flow {self.number} ({self.service}): {error}{advice}")
                return
            if isinstance(item, Fin):
                self._shutdown(socket.SHUT_WR if item.ending is Ending.HALF else socket.SHUT_RDWR)
            else:
                try:
                    self._sock.sendall(raw)
                except OSError as error:
                    self._refuse_more(f"the local program no longer reads: {error}")
                    return
                self.raw_in += len(raw)
                self.digest_in = gate.digest.hex()
                if item.buffer is not None:
                    self._owner.pool.give(item.buffer)
            with self._cond:
                if self._inbound_over:
                    return  # cut meanwhile
                acked = self._arrivals.settle()
                if isinstance(item, Fin):
                    self._inbound_over = True
            self._owner.outbox.acknowledge(self.number, acked)
            if isinstance(item, Fin):
                return

    def _unpack(self, item: Arrived) -> Buffer:
        if not item.tokens and item.codec not in CHAINED:
            return item.body
        if self._unpacker is None:
            self._unpacker = self._owner.unpacker(self)
        if self._unpacker is None:
            raise ProtocolError("page tokens or a chain, which this end has not offered; start the migration anew")
        return self._unpacker.unpack(item.seq, item.codec, item.tokens, item.raw, item.body)

    def _refuse_more(self, text: str) -> None:
        with self._cond:
            if self._inbound_over:
                return
            self._inbound_over = True
            self._arrivals = Reassembly()
        self.error = self.error or text
        log.info("flow %d (%s): %s", self.number, self.service, text)
        self._owner.outbox.reset(self.number, ResetReason.STOP, text)

    def _shutdown(self, how: int) -> None:
        if self._sock:
            try:
                self._sock.shutdown(how)
            except OSError:
                return  # the program closed it first, or our threads did

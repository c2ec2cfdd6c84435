"""The few verbs that an RDMA lane needs, over pyverbs (rdma-core's own binding). RoCE v2 only.

Nothing here blocks: pyverbs never lets go of the interpreter, so a lane waits for the completion channel's descriptor
itself and asks for the event only when it is there. Whatever is missing or fails while an `Endpoint` is made is
NoRdma, with the reason: no pyverbs, no device, no address, no memory that may be locked.
"""

from __future__ import annotations

import contextlib
import ctypes
import ipaddress
import logging
import mmap
import os
import socket
import threading
from dataclasses import dataclass
from enum import Enum, auto
from functools import cache
from types import SimpleNamespace
from typing import Any, Final

from dwcp.errors import NoRdma, ProtocolError
from dwcp.transport.cards import Card
from dwcp.transport.ring import EARLY, Chunk, Shape

log = logging.getLogger(__name__)

CREDITS: Final = 4 * EARLY
"""Credits that may be on their way: twice as many as can be due at once."""
ACK_TIMEOUT: Final = 16
"""A packet is sent again after 4.096 us x 2**16 = 0.27 s without an acknowledgement..."""
RETRIES: Final = 6
"""...and the queue pair is in error after this many times. 7 may mean for ever."""
RNR_TIMER: Final = 12
"""0.64 ms; receives are always posted in time, so it should not come to this."""
_SCRAP: Final = 64
"""A receive needs memory, also one that only takes immediate data."""
_RECEIVE: Final = 1 << 63
_CREDIT: Final = 1 << 62
_POLL: Final = 64
_ONE_AT_A_TIME = threading.Lock()
"""While a channel is made its descriptor is found by what is new in /proc/self/fd."""


class What(Enum):
    WRITTEN = auto()
    """Our chunk `number` is in the peer's memory."""
    ARRIVED = auto()
    """The peer's chunk `number` (as it travels) of `length` bytes is in ours."""
    CREDIT = auto()
    """The peer has settled the chunks below `number` (as it travels)."""
    TOLD = auto()
    """Our credit has gone."""
    FAILED = auto()
    """`text` says why; this queue pair is in error."""


@dataclass(frozen=True, slots=True)
class Completion:
    what: What
    number: int = 0
    length: int = 0
    text: str = ""


@cache
def _library() -> Any:
    """What is used of pyverbs: imported late, as most hosts have none of it. Raises NoRdma."""
    try:
        from pyverbs import addr, cq, device, mr, pd, pyverbs_error, qp, wr
    except ImportError as error:
        raise NoRdma(f"pyverbs cannot be loaded ({error})") from error
    try:
        import pyverbs.enums as enums
    except ImportError:  # where newer versions have them
        import pyverbs.libibverbs_enums as enums
    modules = (pyverbs_error, addr, cq, device, mr, pd, qp, wr)
    names = {name: value for module in modules for name, value in vars(module).items() if name[0].isupper()}
    return SimpleNamespace(**names, enums=enums, get_device_list=device.get_device_list)


def _devices() -> list[str]:
    """Raises NoRdma when there are none."""
    lib = _library()
    try:
        names = [device.name.decode() for device in lib.get_device_list()]
    except lib.PyverbsError as error:
        raise NoRdma(f"the kernel has no RDMA ({error})") from error
    if not names:
        raise NoRdma("this host has no RDMA device")
    return names


def probe() -> str:
    """Why this process cannot do RDMA at all; empty if it can. Loads the library, which may take a while."""
    try:
        _devices()
    except NoRdma as error:
        return str(error)
    return ""


def gid_of(address: str) -> bytes:
    """The GID that RoCE v2 forms from an IP address."""
    ip = ipaddress.ip_address(address.split("%")[0])
    return ip.packed if ip.version == 6 else b"\0" * 10 + b"\xff\xff" + ip.packed


class Endpoint:
    """One end of a lane: a device opened for it alone, its ring, its queue pairs. Everything ends with `close`.

    Two threads may use it at once, if only one of them posts.
    """

    def __init__(self, address: str, shape: Shape, pairs: int, *, writes: bool) -> None:
        """On the device that has `address`, which the lane's TCP connection uses. Raises NoRdma."""
        names = _devices()

        self._lib = _library()
        self._enums = self._lib.enums
        self._shape = shape
        self._writes = writes
        self._far: Card | None = None
        self._opened: list[Any] = []
        """To be closed, newest first."""
        self._pins: list[Any] = []
        try:
            self._open(names, address)
            self._make(pairs)
        except (self._lib.PyverbsError, OSError) as error:
            self.close()
            raise NoRdma(f"RDMA device of {address}: {error}") from error
        except NoRdma:
            self.close()
            raise

    # --- making and connecting ---

    def _open(self, names: list[str], address: str) -> None:
        wanted = gid_of(address)
        enums = self._enums
        for name in names:
            context = self._lib.Context(name=name)
            for port in range(1, context.query_device().phys_port_cnt + 1):
                state = context.query_port(port)
                for index in range(state.gid_tbl_len):
                    try:
                        gid = ipaddress.IPv6Address(str(context.query_gid(port, index))).packed
                        if gid != wanted or context.query_gid_type(port, index) != enums.IBV_GID_TYPE_SYSFS_ROCE_V2:
                            continue
                    except self._lib.PyverbsError:
                        continue  # an empty place of the table
                    if state.state != enums.IBV_PORT_ACTIVE:
                        context.close()
                        raise NoRdma(f"port {port} of {name} is not active")
                    self._opened.append(context)
                    self.name, self._context, self._port, self._index = name, context, port, index
                    self._gid, self._mtu = gid, int(state.active_mtu)
                    return
            context.close()
        raise NoRdma(f"no RDMA device has the address {address} for RoCE v2 (there is {', '.join(names)})")

    def _make(self, count: int) -> None:
        enums, depth = self._enums, self._shape.depth
        self._domain = self._keep(self._lib.PD(self._context))
        ring = enums.IBV_ACCESS_LOCAL_WRITE | (0 if self._writes else enums.IBV_ACCESS_REMOTE_WRITE)
        self.memory, self._base, self._region = self._register(self._shape.size, ring)
        _, self._scrap, self._scrap_region = self._register(_SCRAP, enums.IBV_ACCESS_LOCAL_WRITE)
        self._channel, self.fd = self._make_channel()
        each = -(-depth // count)
        sends, receives = (each, CREDITS) if self._writes else (CREDITS, each)
        self._queue = self._keep(self._lib.CQ(self._context, (sends + receives) * count, None, self._channel, 0))
        self._queue.req_notify()
        self._pairs: list[Any] = []
        self._first = [int.from_bytes(os.urandom(3), "big") for _ in range(count)]
        for _ in range(count):
            cap = self._lib.QPCap(max_send_wr=sends, max_recv_wr=receives, max_send_sge=1, max_recv_sge=1)
            wanted = self._lib.QPInitAttr(
                qp_type=enums.IBV_QPT_RC, scq=self._queue, rcq=self._queue, cap=cap, sq_sig_all=1
            )
            pair = self._keep(self._lib.QP(self._domain, wanted))
            self._pairs.append(pair)
            attributes = self._lib.QPAttr(port_num=self._port)
            attributes.qp_access_flags = 0 if self._writes else enums.IBV_ACCESS_REMOTE_WRITE
            pair.to_init(attributes)
            # Credits come over the first pair only; chunks over each in turn.
            for _ in range(receives if not self._writes or len(self._pairs) == 1 else 0):
                self._post_receive(len(self._pairs) - 1)

    def _keep(self, opened: Any) -> Any:
        self._opened.append(opened)
        return opened

    def _register(self, size: int, access: int) -> tuple[memoryview, int, Any]:
        memory = mmap.mmap(-1, size)
        pin = (ctypes.c_char * size).from_buffer(memory)  # stops the memory from being closed while it is registered
        address = ctypes.addressof(pin)
        region = self._keep(self._lib.MR(self._domain, size, access, address=address))
        self._pins.append(pin)
        return memoryview(memory), address, region

    def _make_channel(self) -> tuple[Any, int]:
        with _ONE_AT_A_TIME:
            before = _event_descriptors()
            channel = self._keep(self._lib.CompChannel(self._context))
            return channel, channel.fd if hasattr(channel, "fd") else (_event_descriptors() - before).pop()

    @property
    def card(self) -> Card:
        key = 0 if self._writes else int(self._region.rkey)
        pairs = tuple((int(pair.qp_num), first) for pair, first in zip(self._pairs, self._first, strict=True))
        return Card(self._gid, self._mtu, self._base, key, self._shape, pairs)

    def connect(self, far: Card) -> None:
        """All queue pairs to the peer's, so that both may be written to and write. Raises NoRdma."""
        if far.shape != self._shape or len(far.pairs) != len(self._pairs):
            raise NoRdma(f"the ends differ: {far.shape} and {len(far.pairs)} queue pairs, here {self._shape}")
        try:
            for pair, first, (number, far_first) in zip(self._pairs, self._first, far.pairs, strict=True):
                gid = self._lib.GID(ipaddress.IPv6Address(far.gid).exploded)
                route = self._lib.GlobalRoute(dgid=gid, sgid_index=self._index)
                route.hop_limit = 64
                attributes = self._lib.QPAttr(port_num=self._port)
                attributes.path_mtu = min(self._mtu, far.mtu)
                attributes.dest_qp_num, attributes.rq_psn = number, far_first
                attributes.max_dest_rd_atomic, attributes.min_rnr_timer = 1, RNR_TIMER
                attributes.ah_attr = self._lib.AHAttr(gr=route, is_global=1, port_num=self._port)
                pair.to_rtr(attributes)
                attributes.sq_psn, attributes.max_rd_atomic = first, 1
                attributes.timeout, attributes.retry_cnt, attributes.rnr_retry = ACK_TIMEOUT, RETRIES, RETRIES
                pair.to_rts(attributes)
        except self._lib.PyverbsError as error:
            raise NoRdma(f"queue pairs cannot be connected: {error}") from error
        self._far = far

    # --- work ---

    def write(self, chunk: Chunk) -> None:
        """Our bytes at the chunk's place to the same place at the peer. Raises OSError."""
        far = self._far
        assert far is not None
        work = self._lib.SendWR(
            wr_id=chunk.number,
            opcode=self._enums.IBV_WR_RDMA_WRITE_WITH_IMM,
            num_sge=1,
            imm_data=socket.htonl(chunk.wire),
            sg=[self._lib.SGE(self._base + chunk.position, chunk.length, self._region.lkey)],
        )
        work.set_wr_rdma(far.key, far.address + chunk.position)
        self._post(chunk.number % len(self._pairs), work)

    def tell(self, credit: int) -> None:
        """Raises OSError."""
        work = self._lib.SendWR(
            wr_id=_CREDIT,
            opcode=self._enums.IBV_WR_SEND_WITH_IMM,
            num_sge=1,
            imm_data=socket.htonl(credit),
            sg=[self._lib.SGE(self._scrap, 4, self._scrap_region.lkey)],
        )
        self._post(0, work)

    def _post(self, index: int, work: Any) -> None:
        try:
            self._pairs[index].post_send(work)
        except self._lib.PyverbsError as error:
            raise OSError(f"queue pair {index} takes no more work: {error}") from error

    def _post_receive(self, index: int) -> None:
        part = self._lib.SGE(self._scrap, _SCRAP, self._scrap_region.lkey)
        self._pairs[index].post_recv(self._lib.RecvWR(wr_id=_RECEIVE | index, num_sge=1, sg=[part]))

    def completions(self) -> list[Completion]:
        """Everything that has completed. Each receive that was taken is posted again."""
        found: list[Completion] = []
        try:
            while True:
                count, works = self._queue.poll(_POLL)
                found += [self._read(work) for work in works]
                if count < _POLL:
                    return found
        except self._lib.PyverbsError as error:
            return [*found, Completion(What.FAILED, text=f"completions cannot be read: {error}")]

    def _read(self, work: Any) -> Completion:
        enums, number = self._enums, int(work.wr_id)
        if work.status != enums.IBV_WC_SUCCESS:
            return Completion(What.FAILED, text=self._status(int(work.status)))
        if number & _RECEIVE:
            self._post_receive(number & ~_RECEIVE)
            wanted = enums.IBV_WC_RECV if self._writes else enums.IBV_WC_RECV_RDMA_WITH_IMM
            if work.opcode != wanted or not work.wc_flags & enums.IBV_WC_WITH_IMM:
                raise ProtocolError(f"the peer did what no lane does (completion {work.opcode}); close the lane")
            value = socket.ntohl(int(work.imm_data))
            return (
                Completion(What.CREDIT, value) if self._writes else Completion(What.ARRIVED, value, int(work.byte_len))
            )
        return Completion(What.TOLD) if number & _CREDIT else Completion(What.WRITTEN, number)

    def _status(self, status: int) -> str:
        for name, value in vars(self._enums).items():
            if value == status and name.startswith("IBV_WC_") and name.endswith("_ERR"):
                return str(name)
        return f"completion status {status}"

    def rearm(self) -> None:
        """Only when `fd` is readable. Then look at the completions again: what came between is not announced."""
        self._channel.get_cq_event(self._queue)
        self._queue.ack_events(1)
        self._queue.req_notify()

    def close(self) -> None:
        """From here on the peer can write nothing here: the keys end with the memory's registration. Idempotent."""
        opened, self._opened = self._opened, []
        for part in reversed(opened):
            try:
                part.close()
            except self._lib.PyverbsError as error:
                log.warning("%s: %s", type(part).__name__, error)


def _event_descriptors() -> set[int]:
    """This process's completion channels. (pyverbs before version 59 does not show a channel's own.)"""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the one that lists
            if "infinibandevent" in os.readlink(f"/proc/self/fd/{name}"):
                found.add(int(name))
    return found

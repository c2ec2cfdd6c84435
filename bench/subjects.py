"""What carries a stream without any QEMU: the data path in several set-ups, and the peers it is compared with.

Each takes bytes from one socket and gives them to another; in between is TCP, on loopback or on the shaped link.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.carriers import End
from bench.cpu import process_seconds
from dwcp.control import status, stop
from dwcp.errors import ControlFailed, NotRunning
from dwcp.process import spawn, tail
from models.datapath import Codec, DataPathConfig, DataPathStatus, FlowStatus, Protection, Role, Service

ROOT = Path(__file__).parent.parent
DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL")
WITHIN = 60
"""Seconds for a subject to get ready, and to end."""

IDLE_FOR, IDLE_SHARE = 0.5, 0.05
"""A process that used less than this part of a CPU for so many seconds waits for bytes."""

LIFETIME = 900


class NotCarried(RuntimeError):
    """The subject could not be set up, or did not do what was asked: there is no measurement."""


@dataclass(frozen=True)
class Spot:
    """Where a stream is carried: the two ends, and a new folder for sockets and logs."""

    near: End
    far: End
    folder: Path


@dataclass(frozen=True)
class Carried:
    """A subject that is ready: from here on every CPU second is counted."""

    feeder: socket.socket
    accept: Callable[[], socket.socket]
    """Gives the sink's socket."""
    pids: tuple[int, int]
    """Of the process at the near end, and at the far end."""
    facts: Callable[[], DataPathStatus | None]
    """After the end: the near end's status, if it is a data path. Raises NotCarried when the ends disagree."""
    trouble: Callable[[], str] = str
    """What a data path says of itself when it takes no more bytes."""


@dataclass(frozen=True)
class Subject:
    title: str
    carry: Callable[[Spot], AbstractContextManager[Carried]]
    colour: str = "#6b7c93"


@contextlib.contextmanager
def _ended(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """A process that is over afterwards."""
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


def _listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(1)
    listener.settimeout(WITHIN)
    return listener


def _accept(listener: socket.socket) -> socket.socket:
    return listener.accept()[0]


def _dial(path: Path) -> socket.socket:
    """Connect, as soon as somebody listens there. Raises NotCarried."""
    deadline = time.monotonic() + WITHIN
    while True:
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.connect(str(path))
            return sock
        except (FileNotFoundError, ConnectionRefusedError) as error:
            sock.close()
            if time.monotonic() > deadline:
                raise NotCarried(f"nobody listens on {path} within {WITHIN} s") from error
            time.sleep(0.01)


@contextlib.contextmanager
def relay(spot: Spot) -> Iterator[Carried]:
    """Two processes of bench/relay.py."""

    def start(end: End, *words: str) -> subprocess.Popen[str]:
        command = [*end.prefix, *DIES_WITH_US, sys.executable, "-m", "bench.relay", *words]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, cwd=ROOT)

    def word(process: subprocess.Popen[str]) -> str:
        text = process.stdout.readline().strip() if process.stdout else ""
        if not text:
            raise NotCarried("the relay did not start: see what it said above")
        return text

    enter, leave = spot.folder / "near.sock", spot.folder / "far.sock"
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(_listen(leave))
        far = stack.enter_context(_ended(start(spot.far, "far", str(leave), spot.far.address)))
        port = word(far)
        near = stack.enter_context(_ended(start(spot.near, "near", str(enter), spot.far.address, port)))
        word(near)
        feeder = stack.enter_context(_dial(enter))
        yield Carried(feeder, lambda: _accept(listener), (near.pid, far.pid), lambda: None)


def _zstd(options: Sequence[str], source: socket.socket, target: socket.socket) -> subprocess.Popen[str]:
    command = [*DIES_WITH_US, "zstd", *options]
    return subprocess.Popen(command, stdin=source.fileno(), stdout=target.fileno(), text=True)


@contextlib.contextmanager
def zstd_pipe(spot: Spot) -> Iterator[Carried]:
    """`zstd -1 -T1` and `zstd -d`, their standard input and output on the same kinds of sockets. On loopback only."""
    with contextlib.ExitStack() as stack:
        feeder, enter = (stack.enter_context(sock) for sock in socket.socketpair())
        leave, sink = (stack.enter_context(sock) for sock in socket.socketpair())
        with socket.create_server((spot.far.address, 0)) as listener:
            out = stack.enter_context(socket.create_connection(listener.getsockname()))
            into = stack.enter_context(_accept(listener))
        packing, unpacking = [
            stack.enter_context(_ended(_zstd(options, source, target)))
            for options, source, target in ((("-1", "-T1", "-qc"), enter, out), (("-dqc",), into, leave))
        ]
        for ours in (enter, out, into, leave):
            ours.close()  # theirs alone now: each sees the end of its input
        yield Carried(feeder, lambda: sink, (packing.pid, unpacking.pid), lambda: None)


@contextlib.contextmanager
def data_path(
    spot: Spot, *, codec: Codec = "auto", protection: Protection = "tls", pure: bool = False
) -> Iterator[Carried]:
    """Two data path processes, connected. `pure`: without the C extension."""
    rooms = {end.name: spot.folder / end.name for end in (spot.near, spot.far)}
    twin = ("env", "NOVACRON_PURE=1") if pure else ()
    enter, leave = spot.folder / "near.sock", spot.folder / "far.sock"

    def start(role: Role, end: End, peer: End, port: int, path: Path) -> DataPathStatus:
        config = DataPathConfig(
            role=role,
            migration_id="bench",
            peer_name=peer.name,
            address=spot.far.address,
            port=port,
            services=(Service(name="ram", path=str(path)),),
            tls=end.tls,
            codec=codec,
            protection=protection,
            rdma="never",
            lifetime=LIFETIME,
        )
        return spawn(config, rooms[end.name], launcher=(*end.prefix, *twin))

    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(_listen(leave))
        stack.callback(_stop, rooms.values())
        far = start("destination", spot.far, spot.near, 0, leave)
        near = start("source", spot.near, spot.far, far.port, enter)
        found = _until(rooms, lambda each: each.state == "connected", "the two ends do not connect")
        if protection == "none" and not all(each.carrier.startswith("tcp") for each in found):
            raise NotCarried(f"asked to send in the clear, the data path says {[each.carrier for each in found]}")
        _settle((near.pid, far.pid))
        feeder = stack.enter_context(_dial(enter))
        yield Carried(
            feeder,
            lambda: _accept(listener),
            (near.pid, far.pid),
            lambda: _facts(rooms, codec == "raw"),
            lambda: _trouble(rooms),
        )


def _settle(pids: Sequence[int]) -> None:
    """Until the processes are idle: they have touched their page memory, as they have long before a real move."""
    deadline = time.monotonic() + WITHIN
    used = [process_seconds(pid) for pid in pids]
    while True:
        time.sleep(IDLE_FOR)
        before, used = used, [process_seconds(pid) for pid in pids]
        if max(now - then for now, then in zip(used, before, strict=True)) < IDLE_SHARE * IDLE_FOR:
            return
        if time.monotonic() > deadline:
            raise NotCarried(f"the data path is busy for {WITHIN} s without a byte to carry")


def _stop(rooms: Iterable[Path]) -> None:
    for room in rooms:
        with contextlib.suppress(NotRunning):
            stop(room, timeout=WITHIN)


def _until(
    rooms: dict[str, Path], ready: Callable[[DataPathStatus], bool], otherwise: str
) -> tuple[DataPathStatus, ...]:
    """Both ends' status, near first, as soon as both are ready. Bounded polling. Raises NotCarried."""
    deadline = time.monotonic() + WITHIN
    while True:
        found = tuple(status(room) for room in rooms.values())
        if all(ready(each) for each in found):
            return found
        if time.monotonic() > deadline or any(each.error for each in found):
            raise NotCarried(f"{otherwise}: {[(each.state, each.error) for each in found]}")
        time.sleep(0.05)


def _trouble(rooms: dict[str, Path]) -> str:
    """States and errors of both ends, and the ends of their logs."""
    said = []
    for name, room in rooms.items():
        try:
            answer = status(room)
            said.append(f"{name} {answer.state} {answer.error}".strip())
        except ControlFailed as error:
            said.append(f"{name}: {error}")
        said.append(tail(room)[-300:])
    return "; ".join(said)


def _facts(rooms: dict[str, Path], raw: bool) -> DataPathStatus:
    def stream(each: DataPathStatus) -> list[FlowStatus]:
        return [flow for flow in each.flows if flow.service == "ram"]

    def over(each: DataPathStatus) -> bool:
        return len(stream(each)) == 1 and not stream(each)[0].open

    near, far = _until(rooms, over, "the stream does not end")
    sent, got = stream(near)[0], stream(far)[0]
    if (sent.raw_out, sent.digest_out) != (got.raw_in, got.digest_in):
        raise NotCarried(f"the digests of the two ends differ: {sent} and {got}")
    if near.wire_out < sent.raw_out and raw:
        raise NotCarried(f"asked to send bytes as they are, the data path sent {near.wire_out} for {sent.raw_out}")
    return near


SUBJECTS = {
    "relay": Subject("plain relay", relay, "#9aa5b1"),
    "zstd-pipe": Subject("zstd -1 -T1 to zstd -d", zstd_pipe, "#3f6ea8"),
    "raw": Subject("NovaCron raw, in the clear", partial(data_path, codec="raw", protection="none"), "#d9b48f"),
    "raw-tls": Subject("NovaCron raw, TLS", partial(data_path, codec="raw"), "#d39b6a"),
    "lz4-tls": Subject("NovaCron lz4, TLS", partial(data_path, codec="lz4"), "#e4572e"),
    "zstd-tls": Subject("NovaCron zstd, TLS", partial(data_path, codec="zstd"), "#c8442a"),
    "auto-tls": Subject("NovaCron auto, TLS", data_path, "#f2a93b"),
    "lz4-tls-python": Subject("NovaCron lz4, TLS, pure Python", partial(data_path, codec="lz4", pure=True), "#b9a3d0"),
}

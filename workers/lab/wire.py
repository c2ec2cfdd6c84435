"""A wire with delay and loss, in user space, for kernels without netem: `python -m workers.lab.wire SOCKET
HOST...`.

Runs inside the lab's switch namespace. Each host's wire joins two TAP devices, `<host>-near` (towards the
host) and `<host>-far` (towards the bridge). What the host sends waits its delay, or is lost; what it
receives passes at once, so a packet between two hosts is delayed once. The rate is not this module's
business: the kernel's TBF shapes both ends.

Frames pass with the kernel's virtio-net header in front, so that a 64 KiB segment crosses in one piece;
only when loss is asked for, the kernel is told to cut to the MTU first, because a loss is a loss of one
packet. Order is kept even when the delay gets shorter. The control socket takes one line `{"delay":
seconds, "loss": probability}` and answers one line of counters, at any time.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import select
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

_TUNSETIFF, _TUNSETOFFLOAD = 0x400454CA, 0x400454D0
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
_OFFLOADS = 0x01 | 0x02 | 0x04  # checksum, TCP segmentation over IPv4 and IPv6
_LARGEST = 65536 + 64
_BURST = 32
"""Frames read from one device before the others get their turn."""
MOST_WAITING = 64 << 20
"""Bytes on their way in one direction: 5 s at 100 Mbit/s. Past it frames are dropped, as in any full queue."""


@dataclass
class Counters:
    passed: int = 0
    lost: int = 0
    overrun: int = 0


class Wire:
    """One direction of one host's wire, without I/O: frames in, the frames that are due out."""

    def __init__(self, chance: Callable[[], float], delay: float = 0.0, loss: float = 0.0) -> None:
        self.delay, self.loss = delay, loss
        self.counters = Counters()
        self._chance = chance
        self._frames: deque[tuple[float, bytes]] = deque()
        self._waiting = 0

    def put(self, now: float, frame: bytes) -> None:
        if self.loss and self._chance() < self.loss:
            self.counters.lost += 1
            return
        if self._waiting + len(frame) > MOST_WAITING:
            self.counters.overrun += 1
            return
        last = self._frames[-1][0] if self._frames else now
        self._frames.append((max(last, now + self.delay), frame))
        self._waiting += len(frame)

    def due(self, now: float) -> Iterator[bytes]:
        while self._frames and self._frames[0][0] <= now:
            frame = self._frames.popleft()[1]
            self._waiting -= len(frame)
            self.counters.passed += 1
            yield frame

    def next_due(self) -> float | None:
        return self._frames[0][0] if self._frames else None


def tap(name: str) -> int:
    """A TAP device of this name in the present network namespace; it goes when the descriptor is closed."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR))
    return descriptor


class Wires:
    """All wires of a lab, their TAP devices and the control socket, in one loop."""

    def __init__(self, hosts: list[str], control: Path) -> None:
        chance = random.Random(20).random  # the same losses each time: a run can be repeated
        self._routes: dict[int, tuple[Wire, int]] = {}
        self._out: dict[str, Wire] = {}
        for host in hosts:
            near, far = tap(f"{host}-near"), tap(f"{host}-far")
            self._out[host] = Wire(chance)
            self._routes[near] = (self._out[host], far)
            self._routes[far] = (Wire(chance), near)
        self._set(0.0, 0.0)
        control.unlink(missing_ok=True)
        self._control = socket.socket(socket.AF_UNIX)
        self._control.bind(str(control))
        self._control.listen()

    def run(self) -> None:
        wires = [wire for wire, _ in self._routes.values()]
        watched = [*self._routes, self._control.fileno()]
        while True:
            times = [due for wire in wires if (due := wire.next_due()) is not None]
            wait = max(0.0, min(times) - time.monotonic()) if times else None
            for descriptor in select.select(watched, [], [], wait)[0]:
                if descriptor == self._control.fileno():
                    self._answer()
                else:
                    self._read(descriptor)
            now = time.monotonic()
            for wire, to in self._routes.values():
                for frame in wire.due(now):
                    try:
                        os.write(to, frame)
                    except OSError:  # the device is down or its queue full: a wire loses frames, it never stops
                        wire.counters.lost += 1

    def _read(self, descriptor: int) -> None:
        wire, _ = self._routes[descriptor]
        now = time.monotonic()
        for _ in range(_BURST):
            try:
                frame = os.read(descriptor, _LARGEST)
            except BlockingIOError:
                return
            wire.put(now, frame)

    def _set(self, delay: float, loss: float) -> None:
        for wire in self._out.values():
            wire.delay, wire.loss = delay, loss
        for descriptor in self._routes:
            fcntl.ioctl(descriptor, _TUNSETOFFLOAD, 0 if loss else _OFFLOADS)

    def _answer(self) -> None:
        connection, _ = self._control.accept()
        with connection:
            connection.settimeout(1)
            try:
                order = json.loads(connection.makefile().readline())
                self._set(float(order["delay"]), float(order["loss"]))
                answer = {host: asdict(wire.counters) for host, wire in self._out.items()}
                connection.sendall(json.dumps(answer).encode() + b"\n")
            except (OSError, ValueError, KeyError, TypeError) as error:
                print(f"wire: order not understood: {error!r}", file=sys.stderr, flush=True)


def order(control: Path, delay: float, loss: float) -> dict[str, dict[str, int]]:
    """Tell a running wire its delay and loss; its counters by host. OSError when no wire listens."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        connection.connect(str(control))
        connection.sendall(json.dumps({"delay": delay, "loss": loss}).encode() + b"\n")
        answer: dict[str, dict[str, int]] = json.loads(connection.makefile().readline())
        return answer


if __name__ == "__main__":
    Wires(sys.argv[2:], Path(sys.argv[1])).run()

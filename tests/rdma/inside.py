"""What is tried between two guests with soft-RoCE, in the source's guest: `python -m tests.rdma.inside near REPORT`.

The destination's guest runs `python -m tests.rdma.inside far`. Every scenario is a function; REPORT
gets a line of JSON for each. tests/integration/test_rdma.py boots the guests and reads it.
"""

from __future__ import annotations

import json
import random
import re
import select
import socket
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from blake3 import blake3

from dwcp.transport import verbs
from tests.rdma.ends import DEVICE, PATIENCE, End, Far, serve, shell, until

FAR: Final = "10.77.0.2"
MIB: Final = 1 << 20
ADD_DEVICE: Final = f"rdma link add {DEVICE} type rxe netdev eth0"
NO_DEVICE: Final = f"rdma link del {DEVICE}"
BLOCK: Final = """tc qdisc add dev eth0 clsact &&
tc filter add dev eth0 ingress protocol ip u32 match ip protocol 17 0xff action drop"""
"""What comes by RDMA is lost, and nobody is told; TCP goes on. (On egress rdma_rxe would hear of it, and spin.)"""
UNBLOCK: Final = "tc qdisc del dev eth0 clsact"


class Stream:
    """Both ends of a data path, and a stream through it."""

    def __init__(self, near: End, far: Far) -> None:
        self.near, self.far = near, far
        self.data = b""
        self.program = socket.socket(socket.AF_UNIX)

    def start(self, size: int, near: dict[str, Any], far: dict[str, Any]) -> None:
        self.data = random.Random(size).randbytes(size)
        port = self.far("start", **far)
        self.near.start(port=port, **near)
        until("the ends are connected", lambda: self.near.status()["state"] == "connected")
        self.program.settimeout(120)
        self.program.connect(str(self.near.folder / "ram.sock"))

    def pump(self, start: int, end: int | None = None) -> None:
        self.program.sendall(self.data[start:end])

    def arrives_whole(self) -> None:
        """Tell the end of the stream, and compare."""
        self.program.shutdown(socket.SHUT_WR)
        assert self.far("digest") == blake3(self.data).hexdigest(), "other bytes came out than went in"
        flow = until("all is acknowledged", self._closed)
        assert flow["digest_out"] == self.far("status")["flows"][0]["digest_in"]

    def _closed(self) -> dict[str, Any] | None:
        flow: dict[str, Any] = self.near.status()["flows"][0]
        return None if flow["open"] else flow

    def took(self, size: int) -> None:
        until(f"{size} bytes have arrived", lambda: self.far("took") >= size)

    def carriers(self) -> tuple[str, str]:
        return str(self.near.status()["carrier"]), str(self.far("status")["carrier"])

    def carried_by(self, wanted: str) -> None:
        until(f"both ends say {wanted}, not {self.carriers()}", lambda: self.carriers() == (wanted, wanted))

    def fell_back(self) -> str:
        """Both ends are on TCP and say why; the source's reason."""

        def said() -> str | None:
            near, far = self.carriers()
            return near if near.startswith("tcp (") and far.startswith("tcp (") else None

        return str(until("both ends are on TCP", said))


@contextmanager
def path(near: End, far: Far, size: int, *, at_far: dict[str, Any] | None = None, **both: Any) -> Iterator[Stream]:
    ends = Stream(near, far)
    try:
        ends.start(size, both, {**both, **(at_far or {})})
        yield ends
    except BaseException:
        print(near.log(), far("log"), sep="\n", flush=True)
        raise
    finally:
        ends.program.close()
        near.stop()
        far("stop")


def counter(name: str) -> int:
    return int(Path(f"/sys/class/infiniband/{DEVICE}/ports/1/hw_counters/{name}").read_text())


def connected_pairs() -> int:
    """Queue pairs of this guest that can send, as its kernel counts them."""
    pairs = json.loads(shell(f"rdma -j resource show qp link {DEVICE}/1") or "[]")
    return len([pair for pair in pairs if pair["type"] == "RC" and pair["state"] == "RTS"])


def test_an_end_without_a_device_is_served_by_tcp(near: End, far: Far) -> None:
    """The first: the destination's guest has none yet."""
    with path(near, far, MIB) as ends:
        assert ends.carriers() == ("tcp (host-b: this host has no RDMA device)", "tcp (this host has no RDMA device)")
        ends.pump(0)
        ends.arrives_whole()
    far("shell", ADD_DEVICE)


def test_a_stream_goes_by_rdma_over_32_queue_pairs(near: End, far: Far) -> None:
    sent = counter("sent_pkts")
    with path(near, far, 6 * MIB, queue_pairs=32) as ends:
        assert ends.carriers() == ("rdma", "rdma")
        assert connected_pairs() == 32 + 1
        ends.pump(0)
        ends.arrives_whole()
        assert ends.carriers() == ("rdma", "rdma")
        assert near.status()["redials"] == 0
        assert counter("sent_pkts") - sent >= 6 * MIB / 4096
    assert connected_pairs() == 0, "queue pairs outlived their lane"


def test_an_end_that_wants_no_rdma_gets_none(near: End, far: Far) -> None:
    with path(near, far, MIB // 4, at_far={"rdma": "never"}) as ends:
        assert ends.carriers() == ("tcp (host-b: RDMA is turned off)", "tcp")
        ends.pump(0)
        ends.arrives_whole()


def test_rdma_that_dies_in_the_middle_gives_way_to_tcp(near: End, far: Far) -> None:
    with path(near, far, 4 * MIB, queue_pairs=8) as ends:
        ends.pump(0, MIB)
        ends.took(MIB // 2)
        assert ends.carriers() == ("rdma", "rdma")
        far("shell", BLOCK)
        try:
            ends.pump(MIB)
            reason = ends.fell_back()
            assert re.search("RDMA failed: ", reason), reason
            ends.arrives_whole()
        finally:
            far("shell", UNBLOCK)
        assert near.status()["redials"] >= 3
        assert near.log().count("no RDMA: ") == 1, "the reason is to be said once"


def test_a_lost_link_takes_rdma_with_it_and_brings_it_back(near: End, far: Far) -> None:
    with path(near, far, 2 * MIB, queue_pairs=4) as ends:
        ends.pump(0, MIB)
        ends.took(MIB // 2)
        shell("ip link set eth0 down")
        try:
            until("the link is lost", lambda: near.status()["state"] == "link-lost")
        finally:
            shell("ip link set eth0 up")
        ends.pump(MIB)
        ends.arrives_whole()
        ends.carried_by("rdma")


def test_a_killed_peer_ends_the_session_as_with_tcp(near: End, far: Far) -> None:
    with path(near, far, 2 * MIB, queue_pairs=4, resume_within=10) as ends:
        ends.pump(0, MIB)
        ends.took(MIB // 2)
        far("kill")
        until("the source has failed", lambda: near.status()["state"] == "failed")
        error = near.status()["error"]
        assert "host-b" in error
        assert "RDMA" not in error
        gone = select.poll()
        gone.register(ends.program, 0)
        assert gone.poll(PATIENCE * 1000), "the local program must see the end"


def scenarios() -> list[Any]:
    return [value for name, value in globals().items() if name.startswith("test_")]


def main(role: str, report: str = "") -> None:
    verbs.probe()  # loads pyverbs, before anything forks
    if role == "far":
        serve(End("destination"))
        return
    near, far = End("source"), Far(FAR)
    with Path(report).open("w") as lines:
        for scenario in scenarios():
            begun, error = time.monotonic(), ""
            try:
                scenario(near, far)
            except Exception:
                error = traceback.format_exc()
                print(error, flush=True)
            seconds = round(time.monotonic() - begun, 1)
            print(scenario.__name__, "FAILED" if error else "passed", seconds, "s", flush=True)
            lines.write(json.dumps({"name": scenario.__name__, "error": error, "seconds": seconds}) + "\n")
            lines.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])

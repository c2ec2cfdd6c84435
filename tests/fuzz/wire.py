"""What comes over the network and the control socket: frames, hello, codec bodies, chains, store messages, JSON."""

from __future__ import annotations

import json
import random
import socket
import struct
import tempfile
import threading
from collections.abc import Callable, Hashable
from pathlib import Path

import xxhash
from pydantic import ValidationError

from dwcp.buffers import BufferPool
from dwcp.encoding.codec import Coder
from dwcp.errors import ControlFailed, ProtocolError
from dwcp.transport import frames, hello
from dwcp.transport.frames import HEADER_BYTES, MAX_BATCH, Codec, Type
from models.datapath import DataPathConfig, DataPathStatus, Service, TlsFiles
from tests.fuzz.engine import Case, Wrong

_GOLDEN = Path(__file__).parents[1] / "unit" / "dwcp" / "golden"
_PACKED = struct.Struct("!I")
TEXT = b"a page of a guest, and another one much like it. " * 90
NOISE = random.Random(7).randbytes(6000)


def _golden(*names: str) -> list[bytes]:
    found = [path for path in sorted(_GOLDEN.glob("*.hex")) if not names or path.stem in names]
    return [bytes.fromhex(path.read_text()) for path in found]


def seal(raw: bytes, dice: random.Random) -> bytes:
    """A frame whose length and checksum hold."""
    if len(raw) < HEADER_BYTES:
        return raw
    head = bytearray(raw[:24])
    struct.pack_into("!I", head, 16, len(raw) - HEADER_BYTES)
    if dice.random() < 0.5:
        head[:2] = b"DW"
    return bytes(head) + xxhash.xxh3_64_digest(bytes(head) + raw[HEADER_BYTES:]) + raw[HEADER_BYTES:]


def header() -> Case:
    def run(data: bytes) -> Hashable:
        found = frames.decode_header(data)
        if found.length > frames.MAX_BATCH * 3 or found.raw_length > MAX_BATCH:
            raise Wrong(f"a header that asks for too much passes: {found}")
        return found.type

    return Case([raw[:HEADER_BYTES] for raw in _golden()], run)


def frame() -> Case:
    def run(data: bytes) -> Hashable:
        found = frames.decode_header(data[:HEADER_BYTES])
        frames.verify(data[:HEADER_BYTES], found, data[HEADER_BYTES:])
        message = frames.decode_payload(found, data[HEADER_BYTES:])
        if isinstance(message, frames.Data):
            held = len(message.body) if message.codec in frames.CHAINED else message.unpacked
            if held > 3 * message.raw_length + 8192:  # tokens take twice the raw bytes at most, a chain a little more
                raise Wrong(f"{message.raw_length} bytes count against what a peer may have us hold, {held} are held")
        again = frames.encode(message)
        if again != data:
            raise Wrong(f"{message} was not encoded as {data.hex()}, but {again.hex()}")
        return type(message).__name__, found.codec

    return Case(_golden(), run, repair=seal)


def opening() -> Case:
    """HELLO at the destination, WELCOME and REFUSE at the source."""
    own = bytes(range(16))

    def run(data: bytes) -> Hashable:
        found = frames.decode_header(data[:HEADER_BYTES])
        payload = data[HEADER_BYTES:]
        frames.verify(data[:HEADER_BYTES], found, payload)
        if found.type is not Type.HELLO:
            return type(hello.decode_answer(found, payload)).__name__
        asked = hello.decode_hello(found, payload)
        for name, bound in ((asked.migration_id, asked.instance), ("m-1", None)):
            answer = hello.judge(asked, migration_id=name, owner_token=asked.owner_token, instance=own, bound=bound)
            hello.decode_answer(*_parts(hello.encode_answer(answer)))
        return type(answer).__name__

    return Case(_golden("hello", "welcome", "refuse"), run, repair=seal)


def _parts(raw: bytes) -> tuple[frames.Header, bytes]:
    return frames.decode_header(raw[:HEADER_BYTES]), raw[HEADER_BYTES:]


class _Wire(socket.socket):
    """A connection whose other end has sent these bytes, and left."""

    def __init__(self, data: bytes) -> None:
        super().__init__(socket.AF_UNIX)
        self._data = memoryview(data)

    def recv_into(self, buffer: object, nbytes: int = 0, flags: int = 0) -> int:
        into = memoryview(buffer)  # type: ignore[arg-type]
        size = min(len(into), len(self._data), 1000)
        into[:size] = self._data[:size]
        self._data = self._data[size:]
        return size


def lane() -> Case:
    """A stream of frames, as a lane reads it."""
    from dwcp.transport.lane import Lane, LaneClosed

    pool = BufferPool(frames.DIGEST_BYTES + MAX_BATCH, keep=4)
    good = _golden()

    def run(data: bytes) -> Hashable:
        with _Wire(data) as sock:
            reader = Lane(sock, pool)
            kinds = []
            try:
                while True:
                    message, buffer, _ = reader.read()
                    kinds.append(type(message).__name__)
                    if buffer is not None:
                        pool.give(buffer)
            except LaneClosed:
                return tuple(kinds[:4])

    def mend(data: bytes, dice: random.Random) -> bytes:
        return (
            b"".join(dice.choices(good, k=dice.randint(0, 3))) + seal(data[: dice.randint(0, 400)], dice) + data[:100]
        )

    return Case([b"".join(good), good[0] + good[1]], run, repair=mend)


def codec(which: Codec) -> Callable[[], Case]:
    def make() -> Case:
        coder = Coder()
        seeds = []
        for raw in (TEXT, NOISE, bytes(70_000), TEXT + NOISE[:500]):
            for rung in ("lz4",) if which is Codec.LZ4 else ("zstd1", "zstd7"):
                used, body = coder.encode(rung, raw)  # type: ignore[arg-type]
                if used is which:
                    seeds.append(_PACKED.pack(len(raw)) + bytes(body))

        def run(data: bytes) -> Hashable:
            if len(data) < 4:
                return None
            size = _PACKED.unpack_from(data)[0] % (MAX_BATCH + 2)
            return len(coder.decode(which, data[4:], size)).bit_length()

        return Case(seeds, run)

    return make


def chain() -> Case:
    """Batches of one chain, each as: length of the body u32, raw length u32, body."""
    from dwcp.encoding.chain import ChainPacker, ChainUnpacker

    head, log = struct.Struct("!II"), 20

    def chained(level: int, *raws: bytes) -> bytes:
        packer = ChainPacker(level, log)
        bodies = [(raw, packer.pack(raw)) for raw in raws]
        return b"".join(head.pack(len(body), len(raw)) + body for raw, body in bodies)

    def run(data: bytes) -> Hashable:
        unpacker, place, done = ChainUnpacker(log), 0, 0
        broken: ProtocolError | None = None
        while place + head.size <= len(data) and done < 8:
            length, raw_length = head.unpack_from(data, place)
            raw_length = raw_length % (1 << 21) or 1
            place += head.size
            body = data[place : place + length]
            place += len(body)
            done += 1
            try:
                raw = unpacker.unpack(body, raw_length)
            except ProtocolError as error:
                broken = broken or error
                continue
            if broken or len(raw) != raw_length:
                raise Wrong(f"after {broken} a chain decodes to {len(raw)} bytes, {raw_length} were asked for")
        if broken:
            raise broken
        return done

    def mend(data: bytes, dice: random.Random) -> bytes:
        """The first length holds, the others as they are."""
        if len(data) < head.size:
            return data
        first = struct.unpack_from("!I", data)[0]
        return _PACKED.pack(first if first < len(data) else len(data) - head.size) + data[4:]

    seeds = [chained(1, TEXT, NOISE, TEXT), chained(3, TEXT, TEXT, bytes(200_000)), chained(5, NOISE), chained(3, TEXT)]
    return Case(seeds, run, repair=mend)


def store_talk() -> Case:
    """Messages between two stores, cut anywhere."""
    from dwcp.encoding import messages
    from dwcp.encoding.messages import BaseIs, Done, Feed, Keys, Message, Pages, Roots, Same, Want

    key = bytes(range(16))
    said: list[Message] = [
        Roots((key, key[::-1]), (key,)), BaseIs(key), Same(key, 9), Keys(key * 3), Done(12), Want(1, 7, (1, 2, 3)),
        Pages(1, 7, (bytes(4096), NOISE[:4096])), Pages(1, 7, ()),
    ]  # fmt: skip
    seeds = [messages.encode(one) for one in said]

    def run(data: bytes) -> Hashable:
        feed, whole = Feed(), Feed()
        half = len(data) // 2
        apart = [*feed.add(data[:half]), *feed.add(data[half:])]
        if apart != list(whole.add(data)):
            raise Wrong("the messages depend on how the bytes came")
        for message in apart:
            if not list(Feed().add(messages.encode(message))) == [message]:
                raise Wrong(f"{message} does not come back")
        return tuple(type(message).__name__ for message in apart)

    def mend(data: bytes, dice: random.Random) -> bytes:
        return struct.pack("!I", len(data) - 5) + data[4:] + dice.choice(seeds) if len(data) >= 5 else data

    return Case([*seeds, b"".join(seeds)], run, repair=mend)


def peer() -> Case:
    """Well-formed frames in any order, from a peer that keeps no rule, into a session of either role."""
    from tests.fuzz.session import hear

    def run(data: bytes) -> Hashable:
        return hear(data)

    seeds = [random.Random(seed).randbytes(400) for seed in range(8)]
    return Case(seeds, run, weight=2)


def _config() -> DataPathConfig:
    return DataPathConfig(
        role="source",
        migration_id="m-1",
        peer_name="host-b",
        address="127.0.0.1",
        port=49152,
        services=(Service(name="ram", path="/run/novacron/ram.sock"),),
        tls=TlsFiles(certificate="/a", key="/b", authority="/c"),
    )


def config() -> Case:
    def run(data: bytes) -> Hashable:
        return DataPathConfig.model_validate_json(data).role

    return Case([_config().model_dump_json().encode()], run, refusals=(ValidationError,))


def control_request() -> Case:
    """A line to the control socket: always one line of JSON comes back."""
    from dwcp.control import ControlServer

    server = ControlServer.__new__(ControlServer)
    status = DataPathStatus(role="source", migration_id="m-1", pid=1, state="connected")

    def handle(request: dict[str, object]) -> DataPathStatus:
        if request.get("op") not in ("status", "stop", "abort", "limit"):
            raise ValueError(f"unknown op {request.get('op')!r}")
        return status

    server._handler = handle
    server._answered = lambda op: None

    def run(data: bytes) -> Hashable:
        near, far = socket.socketpair()
        with near:
            near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
            near.sendall(data[: 1 << 16])
            near.shutdown(socket.SHUT_WR)
            server._answer(far)
            line = b"".join(iter(lambda: near.recv(1 << 16), b""))
        answer = json.loads(line)
        if not line.endswith(b"\n") or len(answer) != 1:
            raise Wrong(f"the answer is {line!r}")
        return "error" in answer

    ops = ({"op": "status"}, {"op": "stop"}, {"op": "limit", "bytes_per_second": 5})
    return Case([json.dumps(op).encode() + b"\n" for op in ops], run, refusals=())


def control_answer() -> Case:
    """What a host worker is told by whatever listens on a control socket."""
    from dwcp import control

    kept = tempfile.TemporaryDirectory(prefix="fz")
    folder = Path(kept.name)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / control.CONTROL))
    listener.listen(4)
    said = b""

    def serve() -> None:
        while True:
            sock, _ = listener.accept()
            with sock:
                try:
                    sock.recv(4096)
                    sock.sendall(said)
                except OSError:
                    continue  # it has read enough

    threading.Thread(target=serve, daemon=True).start()

    def run(data: bytes) -> Hashable:
        nonlocal said
        said = data
        return control.status(kept.name).state

    status = DataPathStatus(role="source", migration_id="m-1", pid=1, state="connected", error="é")
    seeds = [json.dumps({"ok": status.model_dump(mode="json")}).encode() + b"\n", b'{"error": "no"}\n']
    return Case(seeds, run, refusals=(ControlFailed,), weight=0.5)

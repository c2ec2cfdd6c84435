"""A session in memory that hears frames from a peer which keeps no rule but the frames' form."""

from __future__ import annotations

import struct
from collections.abc import Hashable
from typing import Final

from dwcp.errors import ProtocolError
from dwcp.flow import EMPTY_DIGEST
from dwcp.local import Flow
from dwcp.session import Session
from dwcp.transport import frames
from dwcp.transport.carrier import Carrier, LaneClosed
from dwcp.transport.frames import HEADER_BYTES, MAX_UNACKED_RAW, Buffer, Codec, Header, Type
from models.datapath import DataPathConfig, Service, TlsFiles
from tests.fuzz.engine import Wrong

_STEP = struct.Struct("!BBHBI")
_KINDS: Final = (
    Type.DATA, Type.DATA, Type.DATA, Type.FIN, Type.OPEN, Type.RESET, Type.ACK, Type.ACK, Type.PING, Type.PONG,
    Type.LEAVE, Type.BYE,
)  # fmt: skip
_TEXT = b"a text, and more of it. " * 400
MOST_STEPS: Final = 60


class Said(Carrier):
    """A lane on which the peer has said all this, and left."""

    def __init__(self, said: list[bytes], session: Session) -> None:
        super().__init__(session.pool, 0)
        self._said = said

    def read_raw(self) -> tuple[Header, bytearray, memoryview]:
        if not self._said:
            raise LaneClosed("the peer closed the connection")
        raw = self._said.pop(0)
        header = frames.decode_header(raw[:HEADER_BYTES])
        payload = bytearray(raw[HEADER_BYTES:])
        frames.verify(raw[:HEADER_BYTES], header, payload)
        return header, payload, memoryview(payload)

    def send(self, start: bytes, body: Buffer = b"") -> None: ...
    def read_hello(self, wanted: frozenset[Type]) -> tuple[Header, bytes]:
        raise LaneClosed("not here")

    def settimeout(self, seconds: float) -> None: ...
    def queued(self) -> int:
        return 0

    def cut(self, reason: str) -> None: ...
    def finish(self) -> None: ...
    def close(self) -> None: ...
    def observe(self, now: float) -> None: ...
    def keep_unsent(self, size: int) -> None: ...


def make_session(role: str) -> Session:
    return Session(
        DataPathConfig.model_validate(
            {
                "role": role,
                "migration_id": "m-1",
                "peer_name": "b",
                "address": "127.0.0.1",
                "port": 1,
                "services": (Service(name="ram", path="/nowhere/ram.sock"),),
                "tls": TlsFiles(certificate="/a", key="/b", authority="/c"),
                "rdma": "never",
                "batch_bytes": 4096,
            }
        )
    )


def _frame(kind: int, flow: int, seq: int, form: int, number: int) -> bytes:
    """Well-formed by length and checksum; the rest is as it comes."""
    type_ = _KINDS[kind % len(_KINDS)]
    near = flow % 4 if flow < 200 else flow
    first = struct.pack("!I", near if form & 1 else number)
    text = _TEXT[: number % 600]
    payload = {
        Type.FIN: EMPTY_DIGEST + bytes([form % 3]),
        Type.OPEN: first + struct.pack("!I", form) + b"ram",
        Type.RESET: first + bytes([form % 5]) + text[:500],
        Type.ACK: struct.pack("!IQ", near, number % 50 if form & 1 else number) * (form % 3 + 1),
        Type.BYE: bytes([form % 3]) + text[:500],
    }.get(type_, struct.pack("!BQ", form % 18, number))
    if type_ is not Type.DATA:
        flow = near if type_ is Type.FIN else 0
        return frames.head(type_, payload, flow=flow, seq=seq % 40 if type_ not in _NO_SEQ else 0)
    codec = form % 6
    raw = number % 5000 + 1
    body = _TEXT[:raw] if codec == Codec.NONE else _TEXT[: number % 300 + 1]
    tokens = struct.pack("!I", number % 9000) if form & 0x40 else b""
    head = frames.head(
        Type.DATA,
        EMPTY_DIGEST + tokens,
        body,
        codec=codec | (frames.PAGES if tokens else 0),
        flow=near,
        seq=seq,
        raw=raw,
    )
    return head + body


_NO_SEQ: Final = frozenset({Type.ACK, Type.PING, Type.PONG, Type.BYE, Type.LEAVE})


def hear(data: bytes) -> Hashable:
    """Run the script. What the session keeps stays bounded, and its own flows are never more than there can be."""
    role = "destination" if data[:1] < b"\x80" else "source"
    session = make_session(role)
    if role == "source":
        session.new_flow("ram")
    steps = [_STEP.unpack_from(data, at) for at in range(1, min(len(data), MOST_STEPS * _STEP.size) - 9, _STEP.size)]
    ends: set[str] = set()
    said = [_frame(*step) for step in steps]
    while said:
        try:
            session._read_lane(Said(said, session))
        except LaneClosed:
            ends.add("closed")
        except ProtocolError as error:
            ends.add(str(error)[:12])  # a lane of many: the peer dials again
        if session.ended:
            break
        while session._control.ready():
            message = session.control_message()
            if isinstance(message, frames.Reset):
                session.apply_reset(message)
            session.control_done()
    session.tick(session.started + 1)
    session.status()
    _check(list(session._flows.values()))
    session.close()
    return role, session.state, len(session._flows), frozenset(ends)


def _check(flows: list[Flow]) -> None:
    if len(flows) > frames.MAX_FLOWS or any(flow._arrivals.held > MAX_UNACKED_RAW for flow in flows):
        raise Wrong("a session holds more than it may")

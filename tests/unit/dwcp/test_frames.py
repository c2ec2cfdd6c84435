"""The wire format: what is encoded comes back, golden files keep it as it is, and no bytes can do harm."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwcp.errors import ProtocolError
from dwcp.transport import frames, hello
from dwcp.transport.frames import (
    HEADER_BYTES,
    Ack,
    Bye,
    ByeReason,
    Codec,
    Data,
    Ending,
    Fin,
    Leave,
    Message,
    Open,
    Ping,
    Pong,
    Reset,
    ResetReason,
    Type,
)
from dwcp.transport.hello import Features, Hello, Refuse, RefuseReason, Welcome

GOLDEN = Path(__file__).parent / "golden"
DIGEST = bytes(range(16))
Opening = Hello | Welcome | Refuse

MESSAGES: dict[str, Message] = {
    "data": Data(7, 0x0102030405060708, Codec.NONE, 5, DIGEST, b"hello"),
    "data-zstd": Data(256, 1, Codec.ZSTD, 4 << 20, DIGEST, b"\x28\xb5\x2f\xfd"),
    "data-pages": Data(1, 2, Codec.CHAIN_START, 1 << 20, DIGEST, b"\x28\xb5\x2f\xfd", tokens=0x1234),
    "fin": Fin(7, 9, DIGEST, Ending.WHOLE),
    "open": Open(3, 7, 6, "ram"),
    "reset": Reset(4, 7, ResetReason.UNREACHABLE, "no such socket: /run/é"),
    "ack": Ack(((0, 5), (7, 0x0102030405060708))),
    "ping": Ping(16, 0x1122334455667788),
    "pong": Pong(0, 0x1122334455667788),
    "bye": Bye(ByeReason.FAILED, "link lost"),
    "leave": Leave(3, 0x1122334455667788),
}
OPENINGS: dict[str, Opening] = {
    "hello": Hello(
        "move-0123456789abcdef", 42, bytes(range(16, 32)), bytes(16), 16, 2, 8, Features.LZ4 | Features.ZSTD
    ),
    "welcome": Welcome(2, Features.LZ4 | Features.ZSTD, bytes(range(32, 48))),
    "refuse": Refuse(RefuseReason.INSTANCE, "the source's data path was restarted"),
}


def encoded(message: Message | Opening) -> bytes:
    if isinstance(message, Hello):
        return hello.encode_hello(message)
    if isinstance(message, Welcome | Refuse):
        return hello.encode_answer(message)
    return frames.encode(message)


def decoded(raw: bytes, *, opening: bool = False) -> Message | Opening:
    header = frames.decode_header(raw[:HEADER_BYTES])
    payload = raw[HEADER_BYTES:]
    frames.verify(raw[:HEADER_BYTES], header, payload)
    if not opening:
        return frames.decode_payload(header, payload)
    if header.type is Type.HELLO:
        return hello.decode_hello(header, payload)
    return hello.decode_answer(header, payload)


@pytest.mark.parametrize("name", MESSAGES)
def test_a_frame_is_the_bytes_of_its_golden_file_and_comes_back(name: str) -> None:
    raw = bytes.fromhex((GOLDEN / f"{name}.hex").read_text())
    assert encoded(MESSAGES[name]).hex() == raw.hex()
    assert decoded(raw) == MESSAGES[name]


@pytest.mark.parametrize("name", OPENINGS)
def test_an_opening_frame_is_the_bytes_of_its_golden_file_and_comes_back(name: str) -> None:
    raw = bytes.fromhex((GOLDEN / f"{name}.hex").read_text())
    assert encoded(OPENINGS[name]).hex() == raw.hex()
    assert decoded(raw, opening=True) == OPENINGS[name]


@pytest.mark.parametrize("name", [*MESSAGES, *OPENINGS])
def test_no_flipped_bit_passes(name: str) -> None:
    raw = bytearray.fromhex((GOLDEN / f"{name}.hex").read_text())
    for bit in range(len(raw) * 8):
        raw[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ProtocolError):
            decoded(bytes(raw), opening=name in OPENINGS)
        raw[bit // 8] ^= 1 << bit % 8


flows = st.integers(1, frames.MAX_FLOWS)
seqs = st.integers(0, 2**64 - 1)
digests = st.binary(min_size=16, max_size=16)
texts = st.text(max_size=60)
messages = st.one_of(
    st.builds(
        lambda flow, seq, digest, body: Data(flow, seq, Codec.NONE, len(body), digest, body),
        flows,
        seqs,
        digests,
        st.binary(min_size=1, max_size=2000),
    ),
    st.builds(Fin, flows, seqs, digests, st.sampled_from(Ending)),
    st.builds(Open, seqs, flows, st.integers(0, 2**32 - 1), st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z")),
    st.builds(Reset, seqs, flows, st.sampled_from(ResetReason), texts),
    st.builds(Ack, st.lists(st.tuples(st.integers(0, 256), seqs), min_size=1, max_size=257).map(tuple)),
    st.builds(Ping, st.integers(0, 16), seqs),
    st.builds(Pong, st.integers(0, 16), seqs),
    st.builds(Leave, st.integers(0, 16), seqs),
    st.builds(Bye, st.sampled_from(ByeReason), texts),
)


@given(messages)
def test_every_message_comes_back_as_it_was(message: Message) -> None:
    assert decoded(encoded(message)) == message


@given(
    st.from_regex(r"\A[a-z0-9][a-z0-9-]{0,31}\Z"),
    st.integers(0, 2**63 - 1),
    digests,
    digests,
    st.integers(0, 255),
    st.integers(0, 255),
    st.integers(0, 255),
)
def test_every_hello_comes_back_as_it_was(
    name: str, owner: int, instance: bytes, expected: bytes, lane: int, lanes: int, most: int
) -> None:
    asked = Hello(name, owner, instance, expected, lane, lanes, most)
    assert decoded(encoded(asked), opening=True) == asked


def survives(decode: Callable[[], object]) -> None:
    try:
        decode()
    except ProtocolError:
        return


@given(st.binary(max_size=200))
def test_any_bytes_are_a_header_or_a_protocol_error(raw: bytes) -> None:
    survives(lambda: frames.decode_header(raw))
    survives(lambda: frames.decode_header(raw[:HEADER_BYTES].ljust(HEADER_BYTES, b"\0")))


@given(
    st.sampled_from([*Type, 0, 99]),
    st.integers(0, 3),
    st.integers(0, 300),
    st.integers(0, 2**32 - 1) | st.integers(0, 600),
    st.integers(0, 2**32 - 1) | st.integers(0, 600),
)
def test_a_header_that_passes_asks_for_bounded_memory(type_: int, codec: int, flow: int, length: int, raw: int) -> None:
    header = struct.pack("!HBBIQIIQ", frames.MAGIC, type_, codec, flow, 0, length, raw, 0)
    try:
        accepted = frames.decode_header(header)
    except ProtocolError:
        return
    assert accepted.length <= frames.MAX_BATCH + frames.DIGEST_BYTES
    assert accepted.raw_length <= frames.MAX_BATCH


@given(st.sampled_from(list(Type)), st.binary(max_size=700), st.integers(0, 256), st.booleans())
def test_any_payload_with_a_good_checksum_is_a_message_or_a_protocol_error(
    type_: Type, payload: bytes, flow: int, carries: bool
) -> None:
    carries = carries or type_ in (Type.DATA, Type.FIN)
    raw_length = max(0, len(payload) - 16) if type_ is Type.DATA else 0
    raw = frames.head(type_, payload, flow=flow if carries else 0, raw=raw_length)
    survives(lambda: decoded(raw))
    survives(lambda: decoded(raw, opening=True))


@given(st.binary(min_size=frames.HELLO_BYTES, max_size=frames.HELLO_BYTES))
def test_any_hello_is_judged_or_a_protocol_error(payload: bytes) -> None:
    def judge() -> None:
        raw = frames.head(Type.HELLO, payload)
        asked = decoded(raw, opening=True)
        assert isinstance(asked, Hello)
        hello.judge(asked, migration_id="m", owner_token=0, instance=DIGEST, bound=None)

    survives(judge)


ASKED = Hello("m-1", 5, b"s" * 16, bytes(16), 0, 2, 4)


@pytest.mark.parametrize(
    ("changes", "bound", "reason"),
    [
        ({"version": 9, "oldest": 9}, None, RefuseReason.VERSION),
        ({"migration_id": "m-2"}, None, RefuseReason.MIGRATION),
        ({"owner_token": 6}, None, RefuseReason.OWNER),
        ({"instance": bytes(16)}, None, RefuseReason.INSTANCE),
        ({}, b"x" * 16, RefuseReason.INSTANCE),
        ({"expected": b"old destination "}, None, RefuseReason.INSTANCE),
        ({"lane": 4}, None, RefuseReason.LANE),
        ({"lanes": 0}, None, RefuseReason.LANE),
        ({"lanes": 5}, None, RefuseReason.LANE),
        ({"most": 17}, None, RefuseReason.LANE),
    ],
)
def test_a_hello_that_does_not_fit_is_refused_with_its_reason(
    changes: dict[str, object], bound: bytes | None, reason: RefuseReason
) -> None:
    values = {name: getattr(ASKED, name) for name in ASKED.__slots__}
    asked = Hello(**{**values, **changes})
    answer = hello.judge(asked, migration_id="m-1", owner_token=5, instance=DIGEST, bound=bound)
    assert isinstance(answer, Refuse)
    assert answer.reason is reason
    assert answer.text


def test_a_hello_that_fits_is_welcome_again_and_again() -> None:
    for bound in (None, ASKED.instance):
        answer = hello.judge(ASKED, migration_id="m-1", owner_token=5, instance=DIGEST, bound=bound)
        assert answer == Welcome(hello.VERSION, hello.ALL_FEATURES, DIGEST)


def test_a_newer_peer_that_still_speaks_our_version_is_welcome_in_ours() -> None:
    newer = Hello("m-1", 5, b"s" * 16, bytes(16), 0, 2, 2, version=7, oldest=1)
    answer = hello.judge(newer, migration_id="m-1", owner_token=5, instance=DIGEST, bound=None)
    assert isinstance(answer, Welcome)
    assert answer.version == hello.VERSION


def test_a_peer_of_version_1_is_told_to_upgrade() -> None:
    raw = bytes.fromhex((GOLDEN / "hello-1.hex").read_text())
    asked = decoded(raw, opening=True)
    assert isinstance(asked, Hello)
    answer = hello.judge(asked, migration_id=asked.migration_id, owner_token=42, instance=DIGEST, bound=None)
    assert isinstance(answer, Refuse)
    assert answer.reason is RefuseReason.VERSION
    assert "upgrade the older host" in answer.text


def test_a_long_explanation_is_cut_at_a_character() -> None:
    bye = decoded(frames.encode(Bye(ByeReason.STOPPED, "é" * 1000)))
    assert bye == Bye(ByeReason.STOPPED, "é" * (frames.MAX_TEXT // 2))


@pytest.mark.parametrize(
    ("tokens", "body", "complaint"),
    [(2 * 6144 + 2049, 30, "page tokens are outside"), (1000, 1000 + 3 + 128 + 1, "too long for 1000")],
)
def test_a_frame_makes_nobody_hold_more_than_its_raw_bytes_may_need(tokens: int, body: int, complaint: str) -> None:
    data = Data(1, 0, Codec.CHAIN, 6144, DIGEST, bytes(body), tokens)
    with pytest.raises(ProtocolError, match=complaint):
        decoded(frames.encode(data))

"""How much guest memory a QEMU stream stands for."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.corpora.stream import write_stream
from bench.recorded import PAGE, NotAStream, opened, ram_bytes

NAME = b"\x06pc.ram"
FOOT = struct.pack(">BI", 0x7E, 2)
EOS = struct.pack(">Q", 0x10)


def stream(*chunks: bytes, end: bytes = b"\0") -> bytes:
    """A stream with that many parts of memory, as QEMU 7.2 writes it."""
    head = b"QEVM" + struct.pack(">I", 3) + b"\x07" + struct.pack(">I", 10) + b"pc-q35-7.2"
    setup = struct.pack(">BIB3sII", 1, 2, 3, b"ram", 0, 4)
    sizes = (
        struct.pack(">Q", 5 * PAGE | 0x04)
        + NAME
        + struct.pack(">Q", 3 * PAGE)
        + b"\x04/rom"
        + struct.pack(">Q", 2 * PAGE)
    )
    parts = b"".join(struct.pack(">BI", 2, 2) + chunk + EOS + FOOT for chunk in chunks)
    return head + setup + sizes + EOS + FOOT + parts + struct.pack(">BI", 3, 2) + EOS + FOOT + end


def page(number: int, first: bool = False) -> bytes:
    """A page record; `first`: with the name of its block."""
    head = struct.pack(">Q", number * PAGE | (0x08 if first else 0x28))
    return head + (NAME if first else b"") + bytes([number % 251]) * PAGE


def zero(number: int) -> bytes:
    return struct.pack(">QB", number * PAGE | 0x22, 0)


def test_pages_and_zero_pages_count_each_time_they_are_sent() -> None:
    assert ram_bytes(stream(page(0, first=True) + zero(1), page(0) + page(2))) == 4 * PAGE


def test_device_state_after_the_memory_is_not_looked_at() -> None:
    assert ram_bytes(stream(page(0, first=True), end=b"\x04" + page(1) * 3)) == PAGE


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"ELF", "not QEVM"),
        (stream(struct.pack(">Q", 0x47)), "flags 0x47"),
        (stream(page(0, first=True))[:3000], "ends"),
        (b"QEVM", "ends"),
    ],
)
def test_what_is_no_stream_is_refused_with_what_was_found(data: bytes, what: str) -> None:
    with pytest.raises(NotAStream, match=what):
        ram_bytes(data)


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_it_counts_what_the_writer_of_corpora_writes(kinds: list[bool]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        pages, out = Path(folder, "pages"), Path(folder, "stream")
        pages.write_bytes(b"".join(bytes(PAGE) if empty else b"\x55" * PAGE for empty in kinds))
        write_stream(pages, out, again=0)
        with opened("pages", out) as found:
            assert found.ram_bytes == len(kinds) * PAGE


def test_the_start_of_a_stream_counts_as_the_bytes_it_has(tmp_path: Path) -> None:
    path = tmp_path / "stream"
    path.write_bytes(stream(page(0, first=True)))
    with opened("start", path, at_most=100) as found:
        assert (len(found), found.ram_bytes) == (100, 100)

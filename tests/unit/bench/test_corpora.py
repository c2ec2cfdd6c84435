"""Pages of RAM to measure on, and the stream made of them."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from bench.corpora.pages import PAGE, POISON, ZERO, PageFile, add_cached, add_processes
from bench.corpora.stream import write_stream
from bench.measured import BATCH, batches
from dwcp.encoding.pages import Encoder, Memory, bound


def page(number: int) -> bytes:
    return random.Random(number).randbytes(PAGE)


def test_a_page_file_counts_zero_pages_drops_poison_and_ends_at_its_limit(tmp_path: Path) -> None:
    out = PageFile(tmp_path / "pages", limit=3 * PAGE)
    out.add(ZERO + POISON + page(1) + page(2) + page(3))
    out.close()
    assert (out.pages, out.zero, out.poison, out.full) == (3, 1, 1, True)
    assert (tmp_path / "pages").read_bytes() == ZERO + page(1) + page(2)


def test_batches_hold_each_page_once_and_no_zero_pages(tmp_path: Path) -> None:
    path = tmp_path / "pages"
    pages = [page(i) for i in range(BATCH // PAGE + 2)]
    path.write_bytes(b"".join([ZERO, *pages, ZERO, pages[0], pages[5]]))
    assert list(batches(path)) == [b"".join(pages[:-2]), b"".join(pages[-2:])]


def test_what_the_page_cache_holds_of_a_file_is_taken_page_by_page(tmp_path: Path) -> None:
    path, out = tmp_path / "file", PageFile(tmp_path / "pages")
    path.write_bytes(page(1) + b"end")
    add_cached(out, [path])
    out.close()
    assert (tmp_path / "pages").read_bytes() == page(1) + b"end".ljust(PAGE, b"\0")


@pytest.mark.skipif(os.geteuid() != 0, reason="memory of processes is read by root")
def test_the_memory_of_a_process_holds_what_it_knows(tmp_path: Path) -> None:
    secret = random.Random(5).randbytes(2 * PAGE)
    out = PageFile(tmp_path / "pages")
    add_processes(out, [os.getpid()])
    out.close()
    assert secret[PAGE // 2 : PAGE] in (tmp_path / "pages").read_bytes()


def test_the_stream_is_understood_to_its_end_as_qemus(tmp_path: Path) -> None:
    pages = [ZERO] * 20 + [page(i) for i in range(80)] + [page(7)] * 10
    (tmp_path / "pages").write_bytes(b"".join(pages))
    length = write_stream(tmp_path / "pages", tmp_path / "stream", again=0.2)
    raw = (tmp_path / "stream").read_bytes()
    assert len(raw) == length
    encoder = Encoder(Memory(1000), "ram")
    assert encoder.encode(raw, bytearray(bound(len(raw))), True).consumed == length
    counts = encoder.counts
    assert not counts.lost_sync
    assert counts.records == len(pages) + len(pages) // 5
    assert (counts.zero, counts.copied) == (20, 10)
    assert counts.delta > 10  # of the second round; what was a zero page is fresh now

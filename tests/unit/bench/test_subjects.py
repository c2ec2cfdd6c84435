"""The peers really carry a stream, on loopback, and their CPU is seen."""

from __future__ import annotations

import mmap
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.carriers import End
from bench.datapath import carry
from bench.datapath_plan import Cell
from bench.recorded import Stream
from bench.subjects import Spot, _settle
from models.datapath import TlsFiles

SIZE = (3 << 20) + 5


@pytest.fixture
def stream() -> Iterator[Stream]:
    with mmap.mmap(-1, SIZE) as data:
        data.write((bytes(range(251)) * (SIZE // 251 + 1))[:SIZE])
        yield Stream("sample", data, SIZE)


@pytest.fixture
def spot(tmp_path: Path) -> Spot:
    def end(name: str) -> End:
        files = TlsFiles(certificate="/none", key="/none", authority="/none")
        return End(name=name, address="127.0.0.1", interface="lo", namespace="", tls=files)

    return Spot(end("near"), end("far"), tmp_path)


@pytest.mark.parametrize("group", ["cpu", "tail"])
def test_the_relay_carries_every_byte(group: str, stream: Stream, spot: Spot) -> None:
    done = carry(Cell(group, "recorded", 0, "relay"), stream, spot)
    assert done.stream_bytes == SIZE
    assert done.near_cpu_seconds > 0
    assert done.far_cpu_seconds > 0


@pytest.mark.skipif(shutil.which("zstd") is None, reason="the zstd command is not installed")
def test_the_zstd_pipe_carries_every_byte(stream: Stream, spot: Spot) -> None:
    done = carry(Cell("cpu", "recorded", 0, "zstd-pipe"), stream, spot)
    assert done.near_cpu_seconds + done.far_cpu_seconds > 0


def test_a_process_that_waits_for_bytes_counts_as_settled() -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as idle:
        _settle((idle.pid,))
        assert idle.poll() is None
        assert idle.stdin
        idle.stdin.close()

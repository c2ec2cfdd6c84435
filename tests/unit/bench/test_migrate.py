"""The command: arguments, estimates, and what every method shares."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.carriers import METHODS
from bench.guest import MEMORY_KIB, Machine
from bench.machine import in_words
from bench.migrate import OVERHEAD, estimate, main
from bench.move import interface_bytes
from bench.plan import METHODS as METHOD_NAMES
from bench.plan import Cell
from bench.results import Row, load, save

NET_DEV = """Inter-|   Receive            |  Transmit
 face |bytes packets errs drop fifo frame compressed multicast|bytes packets errs drop fifo colls carrier compressed
    lo:    100       1    0    0    0     0          0         0       100     1    0    0    0     0       0          0
  eth0: 616161      22    0    0    0     0          0         0 526000000   333    0    0    0     0       0          0
"""


def row(method: str, seconds: float) -> Row:
    return Row(
        run="2026-11-23T05:00:00Z",
        link_mbit=100,
        workload="idle",
        method=method,
        seconds=seconds,
        gap_seconds=0.4,
        wire_bytes=10**8,
        cpu_seconds=3,
        converged=True,
    )


def test_every_method_of_the_plan_is_known_how_to_run() -> None:
    assert tuple(METHODS) == METHOD_NAMES


def test_the_command_names_the_remedy_of_a_wrong_selection(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--only", "100:idle:fast"]) == 2
    assert "no method 'fast'; use plain, xbzrle, multifd-zstd, novacron" in capsys.readouterr().err


@pytest.mark.parametrize("repeat", ["0", "21"])
def test_a_repeat_out_of_range_says_what_is_in_range(repeat: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--repeat", repeat]) == 2
    assert "from 1 to 20" in capsys.readouterr().err


def test_plot_only_draws_the_rows_there_are_and_leaves_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = (row("plain", 45), row("novacron", 15))
    save(tmp_path / "migrate.json", rows)
    assert main(["--plot-only", "--results", str(tmp_path)]) == 0
    assert (tmp_path / "migrate.png").exists()
    assert "3.00x" in capsys.readouterr().out
    assert load(tmp_path / "migrate.json") == rows


def test_plot_only_without_rows_says_to_measure_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--plot-only", "--results", str(tmp_path)]) == 1
    assert "run `make bench` first" in capsys.readouterr().err


def test_an_estimate_follows_earlier_rows_of_the_cell_and_else_the_link() -> None:
    assert estimate(Cell(100, "idle", "novacron"), [row("novacron", 15), row("plain", 45)]) == OVERHEAD + 15
    unknown = [estimate(Cell(link, "idle", "plain"), []) for link in (100, 1000)]
    assert unknown[0] > unknown[1] > OVERHEAD


def test_durations_read_well() -> None:
    assert in_words(45.4) == "45 s"
    assert in_words(125) == "2 min"


def test_an_interface_is_found_by_its_whole_name() -> None:
    assert interface_bytes(NET_DEV, "eth0") == 526_000_000
    with pytest.raises(KeyError):
        interface_bytes(NET_DEV, "eth")


def test_source_and_destination_are_the_same_machine_and_its_memory_avoids_the_stale_dirty_bitmap() -> None:
    machine = Machine(Path("/k"), Path("/i"), Path("/c"), "tcg")
    booted = machine.command(20, Path("/run"), None)
    waiting = machine.command(20, Path("/run"), "defer")
    assert waiting == [*booted, "-incoming", "defer"]
    assert "check=0" in " ".join(booted)
    assert MEMORY_KIB % 256

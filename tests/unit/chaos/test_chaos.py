"""The fault matrix without a lab: its table, its results, its page, its clock."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509

from tests.chaos import clock, results
from tests.chaos.results import Row
from tests.chaos.table import MATRIX, QUICK, pick
from workers.lab.certificates import Authority


def row(outcome: str = "moved", copies: int = 1, counter_ok: bool = True, orphans: int = 0, seed: int = 1) -> Row:
    return Row(
        what="link cut", phase="middle", seed=seed, outcome=outcome, copies=copies, counter_ok=counter_ok,
        orphans=orphans, seconds=9,
    )  # fmt: skip


def test_the_matrix_has_all_it_must_and_no_combination_twice() -> None:
    names = [each.name for each in MATRIX]
    assert len(names) == len(set(names)) >= 76
    assert set(QUICK) <= set(names)


def test_combinations_are_picked_by_fault_by_phase_or_both() -> None:
    assert [each.name for each in pick(["cancel:middle"])] == ["cancel:middle"]
    assert {each.what for each in pick(["cancel"])} == {"cancel"}
    assert {each.phase for each in pick([":idle"])} == {"idle"}
    with pytest.raises(ValueError, match="nothing:middle"):
        pick(["nothing:middle"])


@pytest.mark.parametrize(
    "bad",
    [
        row(outcome="lost", copies=0),
        row(outcome="doubled", copies=2),
        row(copies=0),
        row(outcome="stopped", copies=1),
        row(counter_ok=False),
        row(orphans=1),
        row(outcome="recovered", copies=2),
        row(outcome="unnamed error"),
    ],
)
def test_what_is_lost_doubled_broken_or_left_behind_is_not_good(bad: Row) -> None:
    assert not bad.good


def test_a_stop_that_the_fault_is_made_of_is_good_with_no_copy() -> None:
    assert row(outcome="stopped", copies=0).good


def test_a_row_replaces_that_of_the_same_combination_and_seed(tmp_path: Path) -> None:
    file = tmp_path / "chaos.json"
    results.save([row("lost", 0), row(seed=2)], file)
    results.save([row("moved")], file)
    assert results.load(file) == [row("moved"), row(seed=2)]


def test_the_page_of_reliability_says_what_the_results_say() -> None:
    text = results.PAGE.read_text()
    assert results.page(text, results.load()) == text, "run `python -m tests.chaos --report`"


def test_a_preloaded_clock_jumps_while_its_process_runs(tmp_path: Path) -> None:
    clock.set_offset(tmp_path, 0)
    ask = "import sys, time\nfor _ in sys.stdin: print(time.time(), time.monotonic(), flush=True)"
    with clock.preloaded(tmp_path):
        process = subprocess.Popen(
            [sys.executable, "-c", ask], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
    assert "LD_PRELOAD" not in os.environ
    before = _told(process)
    clock.set_offset(tmp_path, -3600)
    after = _told(process)
    process.communicate(timeout=10)
    assert -3600 <= after[0] - before[0] < -3000
    assert 0 <= after[1] - before[1] < 600
    assert time.time() - after[0] > 3000


def _told(process: subprocess.Popen[str]) -> tuple[float, float]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    wall, steady = process.stdout.readline().split()
    return float(wall), float(steady)


def test_a_certificate_can_be_made_anew_as_one_that_has_expired(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    files = authority.issue("host-a")
    authority.reissue("host-a", days=-1)
    expired = x509.load_pem_x509_certificate(Path(files.certificate).read_bytes())
    assert expired.not_valid_before_utc < expired.not_valid_after_utc < datetime.now(UTC)
    authority.issue("host-a")
    assert x509.load_pem_x509_certificate(Path(files.certificate).read_bytes()).not_valid_after_utc > datetime.now(UTC)

"""A few hundred damaged inputs for every decoder, the same each time; and the engine that makes and judges them."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from tests.fuzz import worker
from tests.fuzz.__main__ import main
from tests.fuzz.engine import MAX_INPUT, Case, Inputs, fuzz
from tests.fuzz.targets import SELF_TESTS, TARGETS, load
from tests.fuzz.worker import drive

SEED = 20240607


@pytest.mark.parametrize("name", TARGETS)
def test_no_damaged_input_breaks_a_decoder(name: str) -> None:
    case = load(name)
    tally = fuzz(case, SEED, executions=150 if case.weight > 1 else 400)
    assert not [finding.trace for finding in tally.findings]
    assert len(tally.outcomes) > 1  # not all are refused alike: the damage gets past the first gate


def test_the_same_seed_gives_the_same_inputs_and_another_gives_others() -> None:
    case = load("recipe")

    def inputs(seed: int) -> list[bytes]:
        row = Inputs(case, seed)
        return [row.next() for _ in range(300)]

    assert inputs(1) == inputs(1) != inputs(2)
    assert max(map(len, inputs(1))) <= MAX_INPUT


def test_an_outcome_not_seen_before_leads_on() -> None:
    """Three bytes must be right one after the other: guessed at once they would take millions of inputs."""

    def run(data: bytes) -> int:
        steps = next((n for n, (have, want) in enumerate(zip(data, b"key", strict=False)) if have != want), 3)
        if steps == 3 and len(data) >= 3:
            raise ValueError("opened")
        return steps

    tally = fuzz(Case([b"...."], run), 1, executions=200_000, most_findings=1)
    assert [finding.data[:3] for finding in tally.findings] == [b"key"]


def test_a_repair_sees_what_was_changed() -> None:
    seen: list[bytes] = []

    def repair(data: bytes, dice: random.Random) -> bytes:
        seen.append(data)
        return b"repaired"

    tally = fuzz(Case([b"seed"], lambda data: data == b"repaired", repair=repair), 1, executions=100)
    assert tally.outcomes == {True, False}
    assert len(set(seen)) > 20


@pytest.mark.parametrize(
    ("name", "what"),
    [("_raises", "KeyError: 'found'"), ("_dies", "ends with SIGSEGV"), ("_hangs", "hangs for over 1 s")],
)
def test_what_breaks_a_decoder_is_kept_and_can_be_done_again(
    name: str, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "_hangs":  # the others must not be taken for it on a busy machine
        monkeypatch.setenv("NOVACRON_FUZZ_HANG", "1")
        monkeypatch.setattr(worker, "HANG_SECONDS", 1.0)
    monkeypatch.setattr(worker, "MOST_CRASHES", 1)
    report = drive(name, 5, 2.0, tmp_path, None)
    assert not report.trouble
    assert report.executions > 1
    (kept,) = report.findings
    assert kept.what == what
    assert Path(kept.path).read_bytes()[:1] == b"!"
    assert what in Path(kept.path).with_suffix(".txt").read_text()
    assert main(["--replay", kept.path]) == 1


def test_a_run_says_its_seed_its_table_and_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--seconds", "0.4", "--folder", str(tmp_path), "--seed", "7"]
    assert main([*arguments, "--only", "header,recipe"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("seed 7: 2 targets")
    assert re.search(r"^recipe +\d{2,} +\d+ +\d+ +0$", said, re.M)
    assert said.rstrip().endswith("nothing found")
    assert main([*arguments, "--only", "header,_raises"]) == 1
    assert "findings in: _raises" in capsys.readouterr().out
    assert not list(tmp_path.glob("*.current"))


def test_a_target_whose_module_is_missing_is_a_failure_not_a_target_less(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def load_missing() -> Case:
        raise ModuleNotFoundError("No module named 'dwcp.gone'")

    monkeypatch.setitem(SELF_TESTS, "_gone", load_missing)
    assert main(["--seconds", "0.2", "--folder", str(tmp_path), "--only", "header,_gone"]) == 1
    assert "No module named 'dwcp.gone'" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["nothing-0123456789abcdef.bin", "frame-0123456789abcdef.bin"])
def test_an_input_that_cannot_be_run_again_is_said(name: str, tmp_path: Path) -> None:
    if name.startswith("nothing"):
        (tmp_path / name).write_bytes(b"input")
    with pytest.raises(SystemExit, match="no such input"):
        main(["--replay", str(tmp_path / name)])

"""Images between two processes, over their standard input and output, as over ssh."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from novacron.cli import cli

GIVE = (sys.executable, "-m", "novacron.cli", "image", "give")
DATA = random.Random(1).randbytes(600_000)


def novacron(*args: str) -> Result:
    return CliRunner().invoke(cli, args, prog_name="novacron")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "there.raw"
    path.write_bytes(b"one byte more at the front" + DATA + bytes(5 << 20))
    return path


def test_an_image_is_taken_from_another_process_and_then_only_what_is_new(image: Path, tmp_path: Path) -> None:
    target = tmp_path / "here.raw"
    target.write_bytes(DATA)
    told = novacron("image", "take", str(target), "--json", "--", *GIVE, str(image))
    assert told.exit_code == 0, told.output
    assert target.read_bytes() == image.read_bytes()
    assert target.stat().st_blocks * 512 < 2 << 20
    answer = json.loads(told.output)
    assert answer["bytes"] == image.stat().st_size
    assert answer["received"] < 60_000
    other = tmp_path / "other.raw"
    told = novacron("image", "take", str(other), "--like", str(target), "--", *GIVE, str(image))
    assert told.exit_code == 0
    assert "in place" in told.output
    assert other.read_bytes() == image.read_bytes()


def test_compare_says_what_would_be_sent(image: Path, tmp_path: Path) -> None:
    old = tmp_path / "old.raw"
    old.write_bytes(DATA)
    answer = json.loads(novacron("image", "compare", str(old), str(image), "--json").output)
    assert answer["bytes"] == image.stat().st_size
    assert 0 < answer["chunk_bytes"] < 60_000
    assert "are new" in novacron("image", "compare", str(old), str(image)).output


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("false",), "the stream ended"),
        (("/nowhere/command",), "No such file"),
        ((sys.executable, "-c", "import time; time.sleep(60)"), "has said nothing for 1 s"),
        ((sys.executable, "-c", "print('Permission denied, please try again.')"), "not of this protocol"),
    ],
)
def test_another_end_that_does_not_speak_is_told_and_nothing_is_replaced(
    command: tuple[str, ...], words: str, tmp_path: Path
) -> None:
    target = tmp_path / "here.raw"
    target.write_bytes(b"as it was")
    told = novacron("image", "take", str(target), "--wait", "1", "--", *command)
    assert told.exit_code == 1
    assert words in told.output
    assert target.read_bytes() == b"as it was"


def test_a_file_above_the_limit_is_refused_at_both_ends(image: Path, tmp_path: Path) -> None:
    told = novacron("image", "take", str(tmp_path / "here.raw"), "--limit", "1", "--", *GIVE, str(image))
    assert told.exit_code == 1
    assert "above what is taken here" in told.output
    assert [path.name for path in tmp_path.iterdir()] == ["there.raw"]

"""Every line that belongs to a move says so, in workers and in the data path process."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from subprocess import run

import pytest

from models import logline


def test_a_line_is_json_with_time_level_message_and_context() -> None:
    record = logging.LogRecord("x", logging.WARNING, "", 0, "lost %d of\n%s", (1, '"2"'), None)
    line = json.loads(logline.JsonLines(lambda: {"migration_id": "m1", "vm": ""}).format(record))
    assert line.pop("time").endswith("+00:00")
    assert line == {"level": "WARNING", "logger": "x", "message": 'lost 1 of\n"2"', "migration_id": "m1"}


def test_an_error_is_one_line_with_its_traceback() -> None:
    try:
        raise ValueError("no")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "", 0, "failed", (), sys.exc_info())
    text = logline.JsonLines(dict).format(record)
    assert "\n" not in text
    assert "ValueError: no" in json.loads(text)["error"]


def test_an_unknown_format_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOVACRON_LOG_FORMAT", "xml")
    with pytest.raises(logline.BadFormat, match=r"NOVACRON_LOG_FORMAT: got 'xml'\. Use json or text"):
        logline.chosen("", dict)


def test_the_data_path_process_names_its_migration_on_every_line(tmp_path: Path) -> None:
    """It cannot start here, as its address is nobody's: what it says of that must be JSON."""
    tls = {"certificate": "/none", "key": "/none", "authority": "/none"}
    config = {
        "role": "destination", "migration_id": "m1", "peer_name": "host-a", "address": "192.0.2.1", "tls": tls,
        "services": [{"name": "ram", "path": str(tmp_path / "ram.sock")}],
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    command = [sys.executable, "-m", "dwcp", str(tmp_path / "config.json")]
    ended = run(command, env={"NOVACRON_LOG_FORMAT": "json"}, capture_output=True, text=True, check=False, timeout=60)
    lines = [json.loads(line) for line in ended.stderr.splitlines()]
    assert ended.returncode == 2
    assert lines
    assert {(line["process"], line["migration_id"], line["role"]) for line in lines} == {("dwcp", "m1", "destination")}

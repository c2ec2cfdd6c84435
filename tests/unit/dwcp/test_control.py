"""The lock that says that a data path runs in a folder."""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path

import pytest

from dwcp import control
from dwcp.errors import StartFailed


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / control.CONFIG
    path.touch()
    return path


def test_a_data_path_starts_although_somebody_just_asks_whether_one_runs(config: Path) -> None:
    asking = os.open(config, os.O_RDONLY)
    fcntl.flock(asking, fcntl.LOCK_SH)
    answered = threading.Timer(0.1, os.close, (asking,))
    answered.start()
    lock = control.lock_config(config)
    assert control.is_running(config.parent)
    os.close(lock)
    answered.join()
    assert not control.is_running(config.parent)


def test_a_second_data_path_in_one_folder_is_refused(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "_ASKED_SECONDS", 0.05)
    lock = control.lock_config(config)
    with pytest.raises(StartFailed, match="stop it first, or use it"):
        control.lock_config(config)
    os.close(lock)

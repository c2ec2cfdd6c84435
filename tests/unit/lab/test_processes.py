"""Processes are found by what they are, and never mistaken for another."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from workers.lab.errors import LabError, wait_until
from workers.lab.processes import Part, alive, end, identify, marked, send


@pytest.fixture
def part(tmp_path: Path) -> Iterator[Part]:
    part = Part("sleeper", tmp_path)
    yield part
    part.stop()


def test_a_part_is_started_once_and_stopped(part: Part) -> None:
    process = part.start(["sleep", "60"])
    assert part.start(["sleep", "60"]) == process
    assert os.getsid(process.pid) == process.pid
    part.stop()
    assert part.process() is None
    assert not alive(process)


def test_a_recycled_pid_is_neither_taken_for_the_part_nor_killed(part: Part) -> None:
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        process = identify(stranger.pid)
        assert process is not None
        part.record.parent.mkdir()
        for other in ({"started": process.started - 1}, {"boot": "an earlier boot"}):
            part.record.write_text(
                json.dumps({"pid": process.pid, "started": process.started, "boot": process.boot, **other})
            )
            assert part.process() is None
            part.stop()
        assert not send(replace(process, started=process.started - 1), signal.SIGKILL)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_zombie_counts_as_gone() -> None:
    child = subprocess.Popen(["true"])
    wait_until(lambda: identify(child.pid) is None, 10, lambda: "the child still counts as alive")
    child.wait()


_LAST_THREAD = """
import ctypes, threading, time
threading.Thread(target=time.sleep, args=(60,)).start()
print("begun", flush=True)
ctypes.CDLL(None).pthread_exit(None)
"""


def test_a_process_counts_as_alive_until_its_last_thread_has_ended() -> None:
    child = subprocess.Popen([sys.executable, "-c", _LAST_THREAD], stdout=subprocess.PIPE)
    try:
        assert child.stdout
        assert child.stdout.readline() == b"begun\n"
        stat = Path(f"/proc/{child.pid}/stat")
        wait_until(lambda: ") Z " in stat.read_text(), 10, lambda: f"the first thread goes on: {stat.read_text()}")
        assert identify(child.pid)
    finally:
        child.kill()
    wait_until(lambda: identify(child.pid) is None, 10, lambda: "the child still counts as alive")
    child.wait()
    child.stdout.close()


def test_one_that_ignores_the_polite_signal_is_killed(part: Part) -> None:
    process = part.start(["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done"])
    wait_until(lambda: "ready" in part.log.read_text(), 10, lambda: part.last_words())
    end([process], grace=0.2)
    assert not alive(process)


def test_processes_of_a_lab_are_found_by_their_mark_children_too(part: Part) -> None:
    process = part.start(["sh", "-c", "sleep 60 & wait"])
    wait_until(lambda: len(marked(part.folder)) == 2, 10, lambda: f"found {marked(part.folder)}")
    found = marked(part.folder)
    assert process in found
    end(found)
    assert marked(part.folder) == set()


def test_the_callers_own_temporal_settings_do_not_reach_a_part(part: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMPORAL_API_KEY", "secret")
    part.start(["sh", "-c", "env; echo told; exec sleep 60"], {"TEMPORAL_ADDRESS": "127.0.0.1:1"})
    wait_until(lambda: "told" in part.log.read_text(), 10, lambda: "the part does not tell its environment")
    environment = part.log.read_text()
    assert "TEMPORAL_ADDRESS=127.0.0.1:1" in environment
    assert "TEMPORAL_API_KEY" not in environment


def test_last_words_end_an_error_message(part: Part) -> None:
    part.start(["sh", "-c", "echo one; echo two; exec sleep 60"])
    wait_until(lambda: "two" in part.log.read_text(), 10, lambda: "the part does not speak")
    assert part.last_words().endswith("one\n  two")


def test_a_missing_program_is_an_error_with_a_remedy(part: Part) -> None:
    with pytest.raises(LabError, match=r"`no-such-program`.*make setup"):
        part.start(["no-such-program"])

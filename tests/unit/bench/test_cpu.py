"""CPU time from /proc."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from bench.cpu import TICK, Watched, parse_stat, process_seconds


def test_fields_are_counted_from_the_end_of_the_name() -> None:
    line = "71 (qemu) (x 1 2) S 1 71 71 0 -1 4194560 9 0 0 0 250 50 7 7 20 0 5 0 100 0 0"
    assert parse_stat(line) == 300 * TICK


def test_a_busy_process_is_seen_to_use_the_cpu_and_a_thread_is_told_apart() -> None:
    watched = Watched(os.getpid(), (os.getpid(),))
    own, thread = watched.read()
    before = time.process_time()
    while time.process_time() - before < 4 * TICK:
        pass
    own_after, thread_after = watched.read()
    assert thread_after > thread
    assert own_after - own < thread_after - thread


def test_the_cpu_time_of_a_process_is_known_to_the_nanosecond_and_after_it_has_ended() -> None:
    process = subprocess.Popen([sys.executable, "-c", "sum(range(10**6))"], stdout=subprocess.PIPE)
    assert process.stdout
    process.stdout.read()  # returns at its end, while it is not waited for
    assert 0 < process_seconds(process.pid) < 60
    process.wait()
    process.stdout.close()
    with pytest.raises(ProcessLookupError, match="is gone"):
        process_seconds(process.pid)

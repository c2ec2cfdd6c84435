"""A Python process at work on data: parsed JSON, objects, decimals, arrays, a table in SQLite's memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

from bench.corpora.pages import PageFile, add_processes
from workers.lab.errors import LabError

WITHIN: Final = 120
JOB: Final = Path(__file__).parent / "jobs" / "data.py"


def make(out: PageFile, _folder: Path) -> str:
    process = subprocess.Popen(
        [sys.executable, "-I", str(JOB)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        if said != "ready\n":
            raise LabError(f"the data process said {said!r} instead of ready; see its error above")
        add_processes(out, [process.pid])
    finally:
        process.kill()
        process.wait(WITHIN)
    return "a Python process with orders as objects, JSON, decimals, float arrays and SQLite in memory"

"""Start a data path process that outlives whoever starts it.

It gets a session of its own (setsid), `log` in its folder for all it says, and a configuration file that is its lock.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from dwcp.control import CONFIG, CONTROL, is_running, status
from dwcp.errors import ControlFailed, StartFailed
from models.datapath import DataPathConfig, DataPathStatus

LOG: Final = "log"
_QUOTED: Final = 1500
_POLL: Final = 0.02


def spawn(
    config: DataPathConfig, folder: Path | str, launcher: Sequence[str] = (), timeout: float = 20.0
) -> DataPathStatus:
    """Write `folder`/config.json, start the process through `launcher` (such as nsenter) and wait until it answers.

    The folder is made with mode 0711 if it is missing. Raises StartFailed, quoting the log's end.
    """
    folder = Path(folder)
    folder.mkdir(mode=0o711, parents=True, exist_ok=True)
    if is_running(folder):
        raise StartFailed(f"a data path runs in {folder} already; use it, or stop it first")
    (folder / CONTROL).unlink(missing_ok=True)
    written = folder / f"{CONFIG}.new"
    written.write_text(config.model_dump_json(indent=2))
    written.replace(folder / CONFIG)
    paths = [str(Path(__file__).resolve().parent.parent), os.environ.get("PYTHONPATH", "")]
    with (folder / LOG).open("ab") as log:
        process = subprocess.Popen(
            [*launcher, sys.executable, "-m", "dwcp", str(folder / CONFIG)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        )
    deadline = time.monotonic() + timeout
    while True:
        with contextlib.suppress(ControlFailed):
            answer = status(folder)
            threading.Thread(target=process.wait, name=f"reap {process.pid}", daemon=True).start()
            return answer
        code = process.poll()
        if code is not None:
            raise StartFailed(f"data path in {folder} ended with code {code} as it started: {tail(folder)}")
        if time.monotonic() > deadline:
            process.kill()
            process.wait()
            raise StartFailed(f"data path in {folder} did not answer within {timeout:g} s: {tail(folder)}")
        time.sleep(_POLL)


def tail(folder: Path | str) -> str:
    """The end of the log, for an error message."""
    try:
        return (Path(folder) / LOG).read_bytes()[-_QUOTED:].decode("utf-8", "replace").strip() or "(its log is empty)"
    except FileNotFoundError:
        return "(it has no log)"

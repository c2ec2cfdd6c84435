"""The control socket: one line of JSON asks, one line of JSON answers.

    {"op": "status"}                 -> {"ok": DataPathStatus}
    {"op": "stop"} | {"op": "abort"} -> {"ok": DataPathStatus}, then the process ends and its files are gone
    {"op": "limit", "bytes_per_second": N} -> {"ok": DataPathStatus}: what this end sends is bounded from now on; 0: not
    anything else                    -> {"error": "what was wrong"}

`stop` ends the session on purpose (the peer becomes `closed` if no flow was open); `abort` fails it at both ends. The
process holds a lock on its configuration file as long as it lives, so "is it running" needs no pid file and no guess.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from dwcp.errors import ControlFailed, NotRunning, StartFailed
from dwcp.source import listen_unix
from models.datapath import DataPathStatus

log = logging.getLogger(__name__)

CONTROL: Final = "control.sock"
CONFIG: Final = "config.json"
MAX_REQUEST: Final = 4096
MAX_ANSWER: Final = 1 << 20
ANSWER_SECONDS: Final = 5.0
_POLL: Final = 0.02
_ASKED_SECONDS: Final = 1.0

Request = dict[str, object]
Handler = Callable[[Request], DataPathStatus]
_JSON: Final = TypeAdapter(Request)


class ControlServer:
    """Serves `handler(request)`, which raises ValueError for one it does not know; calls `answered(op)` when the answer
    is out."""

    def __init__(self, folder: Path, handler: Handler, answered: Callable[[str], None]) -> None:
        self._path = folder / CONTROL
        self._handler = handler
        self._answered = answered
        self._listener = listen_unix(str(self._path), 0o600)

    def start(self) -> None:
        threading.Thread(target=self._serve, name="control", daemon=True).start()

    def close(self) -> None:
        self._path.unlink(missing_ok=True)
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept: its thread would hold on to all of the session
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return  # closed: the process is about to end
            threading.Thread(target=self._answer, args=(sock,), name="control client", daemon=True).start()

    def _answer(self, sock: socket.socket) -> None:
        op = ""
        with sock:
            try:
                sock.settimeout(ANSWER_SECONDS)
                line = _read_line(sock, MAX_REQUEST)
                try:
                    asked = _JSON.validate_json(line)
                    answer: dict[str, object] = {"ok": self._handler(asked).model_dump(mode="json")}
                    op = str(asked.get("op"))
                except ValueError as error:  # pydantic's is one
                    answer = {"error": f"{error}; ops are status, stop, abort, limit"}
                sock.sendall(json.dumps(answer).encode() + b"\n")
            except OSError as error:
                log.info("a control client left: %s", error)
        if op:
            self._answered(op)


def _read_line(sock: socket.socket, limit: int) -> bytes:
    """Up to a newline or the end of file. Raises OSError."""
    line = b""
    while not line.endswith(b"\n") and len(line) <= limit:
        part = sock.recv(65536)
        if not part:
            break
        line += part
    return line


def lock_config(config: Path) -> int:
    """The lock that says "running", held until the process ends. Raises StartFailed if another holds it.

    Whoever asks `is_running` holds it too, for a moment: only one that is held longer is that of a data path.
    """
    handle = os.open(config, os.O_RDONLY | os.O_CLOEXEC)
    deadline = time.monotonic() + _ASKED_SECONDS
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return handle
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                os.close(handle)
                raise StartFailed(f"a data path runs on {config} already; stop it first, or use it") from error
        time.sleep(_POLL)


def is_running(folder: Path | str) -> bool:
    """Whether a data path process lives on this folder's configuration, answering or not."""
    try:
        handle = os.open(Path(folder) / CONFIG, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def status(folder: Path | str, timeout: float = ANSWER_SECONDS) -> DataPathStatus:
    """Ask the data path of `folder`. Raises NotRunning, or ControlFailed when it runs and does not answer."""
    return _ask(Path(folder), "status", timeout)


def limit(folder: Path | str, bytes_per_second: int, timeout: float = ANSWER_SECONDS) -> DataPathStatus:
    """Bound what this end sends over all its lanes, from now on; 0: no bound. Raises NotRunning, ControlFailed."""
    return _ask(Path(folder), "limit", timeout, bytes_per_second=bytes_per_second)


def stop(folder: Path | str, timeout: float = 10.0, *, abort: bool = False) -> DataPathStatus:
    """Stop it, wait until its process is gone; its last status. Raises NotRunning, ControlFailed."""
    deadline = time.monotonic() + timeout
    last = _ask(Path(folder), "abort" if abort else "stop", timeout)
    while is_running(folder):
        if time.monotonic() > deadline:
            raise ControlFailed(f"data path {last.pid} in {folder} still runs {timeout:g} s after stop; kill it")
        time.sleep(_POLL)
    return last


def _ask(folder: Path, op: str, timeout: float, **more: object) -> DataPathStatus:
    path = folder / CONTROL
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(timeout)
            sock.connect(str(path))
            sock.sendall(json.dumps({"op": op, **more}).encode() + b"\n")
            line = _read_line(sock, MAX_ANSWER)
        answer = _JSON.validate_json(line)
        if "error" in answer:
            raise ControlFailed(f"data path in {folder} refused {op}: {answer['error']}")
        return DataPathStatus.model_validate(answer.get("ok"))
    except (FileNotFoundError, ConnectionRefusedError) as error:
        if is_running(folder):
            raise ControlFailed(f"data path in {folder} runs and does not answer {op} (starting or ending)") from error
        raise NotRunning(f"no data path runs in {folder}; start one") from error
    except (OSError, ValidationError) as error:
        raise ControlFailed(f"data path in {folder} gave no answer to {op}: {error}") from error

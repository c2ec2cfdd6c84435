"""One end of a data path inside an RDMA test guest, and a word to the one in the other guest.

A guest without KVM takes seconds to load Python's modules, so a data path is a fork of this process rather than a new
one: a process of its own all the same, that can be killed.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from blake3 import blake3

from dwcp import control
from dwcp.__main__ import Keeper
from dwcp.errors import ControlFailed
from models.datapath import DataPathConfig, DataPathStatus, Service, TlsFiles

PORT: Final = 7000
PATIENCE: Final = 60.0
DEVICE: Final = "rxe0"


def until(what: str, condition: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """The condition's first true value; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"did not happen within {seconds:g} s: {what}"
        time.sleep(0.1)
    return value


def shell(command: str) -> str:
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


class End:
    """The data path of this guest, one after another, and the program behind its socket."""

    def __init__(self, role: str) -> None:
        self.role = role
        self.folder = Path()
        self.process = 0
        self._took = 0
        self._sum = blake3()
        self._whole = threading.Event()

    def start(self, **changes: Any) -> int:
        """Start it; the destination's port."""
        self.folder = Path(tempfile.mkdtemp(prefix=self.role))
        path = str(self.folder / "ram.sock")
        here, there = ("host-a", "host-b") if self.role == "source" else ("host-b", "host-a")
        nowhere = "/nonexistent"
        values: dict[str, Any] = {
            "role": self.role,
            "migration_id": "m-1",
            "peer_name": there,
            "address": "10.77.0.2",
            "services": (Service(name="ram", path=path),),
            "tls": TlsFiles(certificate=nowhere, key=nowhere, authority=nowhere),
            "protection": "none",
            "codec": "raw",
            "port_range": (20000, 20999),
            "resume_within": 90,
            "linger": 120,
        }
        config = DataPathConfig(**{**values, **changes})
        if self.role == "destination":
            self._listen(path)
        self.process = os.fork()
        if not self.process:
            self._be(config, here)
        return int(until(f"the {self.role} answers", self._answer).port)

    def _be(self, config: DataPathConfig, name: str) -> None:
        """The fork: never comes back."""
        code = 3
        try:
            log = os.open(self.folder / "log", os.O_WRONLY | os.O_CREAT, 0o600)
            os.dup2(log, 2)
            logging.basicConfig(format=f"%(asctime)s {name} %(threadName)s: %(message)s", level=logging.INFO)
            path = self.folder / control.CONFIG
            path.write_text(config.model_dump_json())
            control.lock_config(path)
            code = Keeper(config, self.folder).run()
        except BaseException:
            logging.exception("data path")
        finally:
            os._exit(code)

    def _answer(self) -> DataPathStatus | None:
        with contextlib.suppress(ControlFailed):
            return control.status(self.folder)
        gone, code = os.waitpid(self.process, os.WNOHANG)
        assert not gone, f"the {self.role} ended with {code}: {self.log()}"
        return None

    def status(self) -> dict[str, Any]:
        return control.status(self.folder).model_dump(mode="json")

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def kill(self) -> None:
        os.kill(self.process, signal.SIGKILL)
        os.waitpid(self.process, 0)

    def stop(self) -> None:
        if control.is_running(self.folder):
            control.stop(self.folder)
            os.waitpid(self.process, 0)

    # --- the destination's program: reads to the end ---

    def _listen(self, path: str) -> None:
        self._took, self._sum, self._whole = 0, blake3(), threading.Event()
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen(1)
        threading.Thread(target=self._read, args=(listener, self._sum, self._whole), daemon=True).start()

    def _read(self, listener: socket.socket, digest: Any, whole: threading.Event) -> None:
        with listener:
            sock, _ = listener.accept()
        with sock, contextlib.suppress(ConnectionError):
            while part := sock.recv(1 << 18):
                digest.update(part)
                self._took += len(part)
        whole.set()

    def took(self) -> int:
        return self._took

    def digest(self) -> str:
        """Of everything, once the end has come."""
        assert self._whole.wait(PATIENCE * 2), f"no end of file after {self._took} bytes"
        return str(self._sum.hexdigest())

    def shell(self, command: str) -> str:
        return shell(command)


class Far:
    """The other guest's `End`, called from here."""

    def __init__(self, address: str) -> None:
        def dial() -> socket.socket | None:
            with contextlib.suppress(OSError):
                return socket.create_connection((address, PORT), timeout=5)
            return None

        sock = until("the other guest is up", dial)
        sock.settimeout(PATIENCE * 3)
        self._file = sock.makefile("rw")

    def __call__(self, method: str, *args: Any, **named: Any) -> Any:
        self._file.write(json.dumps([method, args, named]) + "\n")
        self._file.flush()
        answer = json.loads(self._file.readline())
        assert "error" not in answer, f"other guest, {method}: {answer['error']}"
        return answer["ok"]


def serve(end: End) -> None:
    """Let the other guest call `end`'s methods, until it hangs up."""
    with socket.create_server(("0.0.0.0", PORT)) as listener:
        sock, _ = listener.accept()
    with sock, sock.makefile("rw") as file:
        for line in file:
            method, args, named = json.loads(line)
            try:
                answer = {"ok": getattr(end, method)(*args, **named)}
            except Exception as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            file.write(json.dumps(answer) + "\n")
            file.flush()

"""`python -m dwcp CONFIG.json`: one end of a data path. Says on stderr what it does; answers on control.sock.

Exit code 0: ended on purpose, 1: the session failed, 2: it could not start. The main thread is the keeper: it looks
after lanes and deadlines about ten times a second and does nothing else.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Final

from pydantic import TypeAdapter, ValidationError

from dwcp.control import ControlServer, Request, lock_config
from dwcp.destination import Destination
from dwcp.errors import StartFailed
from dwcp.session import Session
from dwcp.source import Source
from models import logline
from models.base import Count
from models.datapath import DataPathConfig, DataPathStatus

log = logging.getLogger("dwcp")

TICK: Final = 0.1
_TEXT: Final = "%(asctime)s %(levelname)s %(threadName)s: %(message)s"
_BYTES: Final = TypeAdapter[int](Count)
FAREWELL_SECONDS: Final = 1.0
"""How long BYE may take to leave."""


class Keeper:
    """Holds one end together, from start to the last file removed."""

    def __init__(self, config: DataPathConfig, folder: Path) -> None:
        self._session = Session(config)
        self._config = config
        self._leave = threading.Event()
        self._signalled = False
        self._rim: Source | Destination = (
            Source(self._session) if config.role == "source" else Destination(self._session)
        )
        try:
            self._control = ControlServer(folder, self._handle, self._answered)
        except StartFailed:
            self._rim.close()
            raise

    def run(self) -> int:
        """Until the end; the exit code."""
        session, rim = self._session, self._rim
        session.encoding.prepare()
        rim.start()
        self._control.start()
        log.info("%s of %s, port %d", self._config.role, self._config.migration_id, session.port)
        try:
            while not (self._leave.is_set() or self._signalled):
                now = time.monotonic()
                session.tick(now)
                rim.tick(now)
                if session.lingered(now):
                    break
                if now - session.started > self._config.lifetime:
                    session.fail(f"lifetime of {self._config.lifetime:g} s is over")
                    break
                session.changed.wait(TICK)
                session.changed.clear()
            session.close()
            return 1 if session.state == "failed" else 0
        finally:
            rim.close()
            self._say_goodbye()
            self._session.keep_pages()
            self._control.close()

    def _say_goodbye(self) -> None:
        """BYE leaves on the lanes that still work; the others are not waited for."""
        deadline = time.monotonic() + FAREWELL_SECONDS
        while self._session.lanes_alive and time.monotonic() < deadline:
            time.sleep(0.01)
        self._session.cut_lanes()

    def on_signal(self, number: int, _: FrameType | None) -> None:
        """A clean stop, within TICK. Sets no Event: this runs inside the main thread, which may hold its lock."""
        self._signalled = True

    def _handle(self, request: Request) -> DataPathStatus:
        op = request.get("op")
        if op == "limit":
            self._session.outbox.limit(_BYTES.validate_python(request.get("bytes_per_second")))
        elif op == "abort":
            self._session.fail("aborted by its host")
        elif op == "stop":
            self._session.close()
        elif op != "status":
            raise ValueError(f"unknown op {op!r}")
        return self._session.status()

    def _answered(self, op: str) -> None:
        """Only now: the process must not be gone before its last answer is."""
        if op in ("stop", "abort"):
            self._leave.set()
            self._session.changed.set()


def _log_to_stderr(known: dict[str, str | int]) -> None:
    handler = logging.StreamHandler(sys.stderr)
    try:
        handler.setFormatter(logline.chosen(_TEXT, lambda: known))
    except logline.BadFormat as error:  # the worker that started us has refused it; never a reason to lose a move
        handler.setFormatter(logging.Formatter(f"%(message)s ({error})"))
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)


def main(arguments: list[str]) -> int:
    _log_to_stderr({"process": "dwcp"})
    if len(arguments) != 1:
        log.error("usage: python -m dwcp CONFIG.json")
        return 2
    path = Path(arguments[0]).resolve()
    try:
        config = DataPathConfig.model_validate_json(path.read_bytes())
        _log_to_stderr({"process": "dwcp", "migration_id": config.migration_id, "role": config.role})
        lock_config(path)
        sys.setswitchinterval(0.001)  # threads mostly wait for sockets; one that computes must not delay an ack
        keeper = Keeper(config, path.parent)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, keeper.on_signal)
        return keeper.run()
    except (OSError, ValidationError, StartFailed) as error:
        log.error("cannot start: %s", error)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

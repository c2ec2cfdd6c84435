"""A PostgreSQL of its own for tests: in a folder, on a UNIX socket, gone with the test."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

USER = "postgres"
START_WITHIN = 60


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """The connection string of a running server."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    assert found, "PostgreSQL's server is missing: scripts/setup.sh installs it (Debian's package postgresql)"
    programs = found[-1].parent
    with tempfile.TemporaryDirectory(prefix="pg-") as made:
        folder = Path(made)
        if os.getuid() == 0:
            shutil.chown(folder, USER)
        _run(folder, programs / "initdb", "-D", folder / "data", "-A", "trust", "-N", "-E", "UTF8", "--locale=C.UTF-8")
        options = ["-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=60"]
        server = subprocess.Popen(
            _as_user(programs / "postgres", "-D", folder / "data", "-k", folder, *options),
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=(folder / "log").open("wb"),
        )
        try:
            deadline = time.monotonic() + START_WITHIN
            while subprocess.run([programs / "pg_isready", "-q", "-h", folder], timeout=20, check=False).returncode:
                words = (folder / "log").read_text()[-400:]
                assert server.poll() is None, f"PostgreSQL ended: {words}"
                assert time.monotonic() < deadline, f"PostgreSQL does not answer: {words}"
                time.sleep(0.1)
            user = USER if os.getuid() == 0 else ""
            yield f"host={folder} dbname=postgres" + (f" user={user}" if user else "")
        finally:
            server.send_signal(2)  # fast shutdown
            server.wait(60)


def _run(folder: Path, *command: str | Path) -> None:
    done = subprocess.run(_as_user(*command), cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-400:]


def _as_user(*command: str | Path) -> list[str]:
    """PostgreSQL refuses to run as root."""
    prefix = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"] if os.getuid() == 0 else []
    return [*prefix, *map(str, command)]

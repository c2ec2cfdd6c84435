"""PostgreSQL under pgbench, with a table of real text beside it: shared buffers and the backends' own memory."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bench.corpora.packages import install
from bench.corpora.pages import PageFile, add_processes
from workers.lab.errors import LabError

BINARIES: Final = Path("/usr/lib/postgresql")
USER: Final = "postgres"
SCALE: Final = 14
CLIENTS: Final = 4
SECONDS: Final = 20
START_WITHIN: Final = 30
SETTINGS: Final = {
    "listen_addresses": "",
    "shared_buffers": "224MB",
    "max_connections": "20",
    "fsync": "off",
    "autovacuum": "off",
    "huge_pages": "off",
}
TEXT: Final = """
CREATE TABLE package (id serial PRIMARY KEY, field text, value text);
COPY package (field, value) FROM STDIN;
"""


def make(out: PageFile, folder: Path) -> str:
    binaries = _binaries()
    shutil.chown(folder, USER)
    with _server(binaries, folder) as server:
        _psql(binaries, folder, TEXT + "".join(_facts()) + "\\.\n")
        _psql(binaries, folder, "CREATE INDEX ON package (field, left(value, 40)); ANALYZE package;")
        _run(folder, str(binaries / "pgbench"), "-i", "-q", "-s", str(SCALE), "-h", str(folder), "postgres")
        load = [str(binaries / "pgbench"), "-c", str(CLIENTS), "-T", str(4 * SECONDS), "-h", str(folder), "postgres"]
        with subprocess.Popen(_as_postgres(*load), cwd=folder, stdout=subprocess.DEVNULL) as clients:
            time.sleep(SECONDS)  # the load itself: there is nothing to wait for
            _psql(binaries, folder, "SELECT count(*), max(length(value)) FROM package WHERE value ~ 'server';")
            add_processes(out, [server.pid, *_children(server.pid)])
            clients.terminate()
    return f"PostgreSQL {binaries.parent.name} under pgbench (scale {SCALE}), and a table of package descriptions"


def _binaries() -> Path:
    def newest() -> Path | None:
        found = sorted(BINARIES.glob("*/bin/pgbench"), key=lambda path: int(path.parts[-3]))
        return found[-1].parent if found else None

    if newest() is None:
        install("postgresql")
    if (found := newest()) is None:
        raise LabError(f"the package postgresql brings no pgbench below {BINARIES}")
    return found


def _facts() -> Iterator[str]:
    """Rows: every field of every package that apt knows of, as text of COPY."""
    said = subprocess.run(["apt-cache", "dumpavail"], capture_output=True, text=True, timeout=120, check=True)
    source = said.stdout or Path("/var/lib/dpkg/status").read_text()
    for line in source[: 60 << 20].splitlines():
        field, colon, value = line.partition(": ")
        if colon:
            yield f"{field}\t{value.replace(chr(92), '/').replace(chr(9), ' ')}\n"


@contextlib.contextmanager
def _server(binaries: Path, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A server of its own in `folder`, on a UNIX socket only."""
    data = folder / "data"
    _run(folder, str(binaries / "initdb"), "-D", str(data), "-A", "trust", "-N", "-E", "UTF8", "--locale=C.UTF-8")
    options = [f"-c{name}={value}" for name, value in SETTINGS.items()]
    log = (folder / "log").open("wb")
    command = [str(binaries / "postgres"), "-D", str(data), "-k", str(folder), *options]
    with log, subprocess.Popen(_as_postgres(*command), cwd=folder, stdout=log, stderr=log) as server:
        try:
            deadline = time.monotonic() + START_WITHIN
            ready = [str(binaries / "pg_isready"), "-q", "-h", str(folder)]
            while subprocess.run(_as_postgres(*ready), cwd=folder).returncode:
                if server.poll() is not None or time.monotonic() > deadline:
                    raise LabError(f"PostgreSQL does not start: {(folder / 'log').read_text()[-400:]}")
                time.sleep(0.1)
            yield server
        finally:
            server.terminate()
            server.wait(60)


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _psql(binaries: Path, folder: Path, text: str) -> None:
    _run(folder, str(binaries / "psql"), "-q", "-v", "ON_ERROR_STOP=1", "-h", str(folder), "postgres", text=text)


def _run(folder: Path, *command: str, text: str = "") -> None:
    done = subprocess.run(_as_postgres(*command), cwd=folder, input=text.encode(), capture_output=True, timeout=300)
    if done.returncode:
        raise LabError(f"{Path(command[0]).name} failed: {done.stderr.decode(errors='replace').strip()[-400:]}")


def _as_postgres(*command: str) -> list[str]:
    """PostgreSQL refuses to run as root."""
    return ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", *command]

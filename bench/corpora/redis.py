"""Redis as a session store: sessions written, read, changed and expired over a UNIX socket."""

from __future__ import annotations

import json
import random
import socket
import subprocess
import time
from pathlib import Path
from typing import Final

from bench.corpora.packages import need
from bench.corpora.pages import PageFile, add_processes
from workers.lab.errors import LabError

SESSIONS: Final = 200_000
CHANGES: Final = 70_000
PIPELINE: Final = 200
START_WITHIN: Final = 20
AGENTS: Final = (
    "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148",
)


def make(out: PageFile, folder: Path) -> str:
    # redis-server and redis-check-rdb are one program that goes by its name; redis-tools brings no service.
    program = need("redis-check-rdb", "redis-tools")
    path = folder / "redis.sock"
    command = ["redis-server", "--port", "0", "--unixsocket", str(path), "--save", "", "--dir", str(folder)]
    with subprocess.Popen(command, executable=program, stdout=subprocess.DEVNULL) as server:
        try:
            with _connect(path, server) as sock:
                _work(sock)
                add_processes(out, [server.pid])
        finally:
            server.terminate()
            server.wait(30)
    return f"Redis with {SESSIONS} web sessions (JSON), of which many were changed or dropped"


def _connect(path: Path, server: subprocess.Popen[bytes]) -> socket.socket:
    deadline = time.monotonic() + START_WITHIN
    while True:
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.connect(str(path))
            return sock
        except OSError as error:
            sock.close()
            if server.poll() is not None or time.monotonic() > deadline:
                raise LabError(f"redis-server does not answer at {path}: {error}") from error
            time.sleep(0.05)


def _work(sock: socket.socket) -> None:
    draw = random.Random(8)
    tokens = [draw.randbytes(16).hex() for _ in range(SESSIONS)]
    answers = sock.makefile("rb")
    commands: list[tuple[str, ...]] = [("SET", f"session:{token}", _session(draw), "EX", "86400") for token in tokens]
    for token in draw.choices(tokens, k=CHANGES):
        if draw.random() < 0.7:
            commands.append(("SET", f"session:{token}", _session(draw), "EX", "86400"))
        else:
            commands.append(("DEL", f"session:{token}"))
        commands.append(("HINCRBY", f"seen:{draw.randrange(20_000)}", "pages", "1"))
    for at in range(0, len(commands), PIPELINE):
        some = commands[at : at + PIPELINE]
        sock.sendall(b"".join(_command(*words) for words in some))
        for _ in some:
            if (answer := answers.readline())[:1] not in (b"+", b":"):
                raise LabError(f"redis-server answered {answer!r}")


def _command(*words: str) -> bytes:
    """One command in Redis's protocol."""
    parts = [f"*{len(words)}\r\n".encode()]
    for word in words:
        data = word.encode()
        parts.append(b"$%d\r\n%s\r\n" % (len(data), data))
    return b"".join(parts)


def _session(draw: random.Random) -> str:
    return json.dumps(
        {
            "user": draw.randrange(1_000_000),
            "csrf": draw.randbytes(20).hex(),
            "agent": draw.choice(AGENTS),
            "address": ".".join(str(draw.randrange(1, 255)) for _ in range(4)),
            "since": 1_795_000_000 + draw.randrange(86_400),
            "basket": [{"id": draw.randrange(90_000), "n": draw.randint(1, 4)} for _ in range(draw.randrange(8))],
            "seen": [f"/shop/{draw.choice('abcdefgh')}/{draw.randrange(9000)}" for _ in range(draw.randrange(30))],
            "flash": None,
        }
    )

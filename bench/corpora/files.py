"""What a file server's page cache holds: files asked for over loopback, then the pages that stayed in memory."""

from __future__ import annotations

import functools
import http.client
import http.server
import itertools
import os
import random
import threading
import urllib.parse
from pathlib import Path
from typing import Final

from bench.corpora.pages import LIMIT, PageFile, add_cached

ROOTS: Final = ("share", "lib")
"""Of /usr: text, images, archives and compressed manuals; programs and libraries."""
LARGEST: Final = 8 << 20
SEED: Final = 4


def make(out: PageFile, _folder: Path) -> str:
    wanted = _choose()
    handler = functools.partial(_Quiet, directory="/usr")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            _fetch(server.server_port, wanted)
        finally:
            server.shutdown()
            thread.join()
    add_cached(out, wanted)
    return f"page cache of a file server after {len(wanted)} files of /usr/share and /usr/lib"


class _Quiet(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: object) -> None:
        return


def _choose() -> list[Path]:
    """Files in a fixed random order, half of the bytes from each root."""
    chosen: list[Path] = []
    for root in ROOTS:
        found = []
        for folder, _, names in os.walk(f"/usr/{root}"):
            found += [Path(folder) / name for name in sorted(names)]
        found = sorted(path for path in found if path.is_file() and not path.is_symlink() and _plain(path))
        random.Random(SEED).shuffle(found)
        sizes = itertools.accumulate(path.stat().st_size for path in found)
        chosen += [path for path, total in zip(found, sizes, strict=True) if total < LIMIT // len(ROOTS)]
    random.Random(SEED).shuffle(chosen)
    return chosen


def _plain(path: Path) -> bool:
    """Neither empty nor huge."""
    return 0 < path.stat().st_size <= LARGEST


def _fetch(port: int, paths: list[Path]) -> None:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        for path in paths:
            client.request("GET", urllib.parse.quote(f"/{path.relative_to('/usr')}"))
            answer = client.getresponse()
            if answer.status != 200:
                raise RuntimeError(f"the file server answered {answer.status} for {path}")
            while answer.read(1 << 20):
                pass
    finally:
        client.close()

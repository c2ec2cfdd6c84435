"""Which corpora there are, and how each comes into the cache."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from bench.corpora import data, files, guest, postgres, redis
from bench.corpora.pages import PageFile
from workers.lab.settings import LabSettings

VERSION: Final = 1
"""Raise it when a corpus is made otherwise: old files are then made again."""

RANDOM_MIB: Final = 64


def _random(out: PageFile, _folder: Path) -> str:
    for _ in range(RANDOM_MIB):
        out.add(os.urandom(1 << 20))
    return "random bytes: the control, nothing can shrink it"


_MAKERS: Final[dict[str, Callable[[PageFile, Path], str]]] = {
    "guest": guest.make,
    "postgres": postgres.make,
    "redis": redis.make,
    "python": data.make,
    "files": files.make,
    "random": _random,
}
"""Each fills the page file, with a folder of its own for what it needs, and says what was done."""
NAMES: Final = tuple(_MAKERS)


def folder() -> Path:
    return LabSettings.from_environment().root / "corpora"


def about(name: str) -> Path:
    """The JSON that tells how the corpus was made."""
    return folder() / f"{name}.json"


def corpus(name: str) -> Path:
    """The file of pages, made if it is not there. Raises LabError."""
    path = folder() / f"{name}.pages"
    path.parent.mkdir(parents=True, exist_ok=True)
    with (folder() / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _made(name, path):
            _make(name, path)
    return path


def _made(name: str, path: Path) -> bool:
    return path.exists() and about(name).exists() and json.loads(about(name).read_text())["version"] == VERSION


def _make(name: str, path: Path) -> None:
    part = path.with_suffix(".part")
    with tempfile.TemporaryDirectory(prefix=f"nc-{name}-") as work:
        out = PageFile(part)
        try:
            what = _MAKERS[name](out, Path(work))
        finally:
            out.close()
    facts = {
        "version": VERSION,
        "what": what,
        "pages": out.pages,
        "zero": out.zero,
        "poison_dropped": out.poison,
        "machine": platform.platform(),
    }
    about(name).write_text(json.dumps(facts, indent=1) + "\n")
    part.rename(path)

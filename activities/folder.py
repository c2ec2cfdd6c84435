"""The folder of one migration on one host: the names in it, and the marker that a move may have been handed to libvirt.

The path is the same on every host of a site, because libvirt gives one path to both sides.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from models.host import HostSettings


@dataclass(frozen=True)
class Started:
    """The marker: `at` is Unix time, so that a deadline counts on through a restart of the worker."""

    at: float


@dataclass(frozen=True)
class Folder:
    path: Path

    @classmethod
    def of(cls, settings: HostSettings, migration_id: str) -> Folder:
        return cls(Path(settings.state_dir) / "migrations" / migration_id)

    @property
    def config(self) -> Path:
        return self.path / "config.json"

    @property
    def log(self) -> Path:
        return self.path / "log"

    def socket(self, service: str) -> str:
        return str(self.path / f"{service}.sock")

    def make(self, group: int | None = None) -> None:
        """0711: QEMU's user must reach the sockets by name; nobody else needs to list them. At the destination QEMU
        makes its sockets here itself, so `group`, QEMU's, may write; not list, nor remove what is not its own."""
        self.path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        self.path.mkdir(mode=0o711, exist_ok=True)
        if group is not None:
            os.chown(self.path, -1, group)
        self.path.chmod(0o711 if group is None else 0o1730)

    def remove(self) -> None:
        """Also when it is not there, or only in part."""
        if self.path.exists():
            shutil.rmtree(self.path)

    def started(self) -> Started | None:
        try:
            return Started(at=float(json.loads((self.path / "started").read_text())["at"]))
        except FileNotFoundError:
            return None

    def mark_started(self, at: float) -> Started:
        """On disk before libvirt is called, so that no later attempt takes this move for one that never began."""
        fresh = self.path / "started.new"
        with fresh.open("w") as file:
            json.dump({"at": at}, file)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.path / "started")
        return Started(at=at)


def living(settings: HostSettings) -> tuple[str, ...]:
    """Ids of the migrations that have a folder on this host."""
    root = Path(settings.state_dir) / "migrations"
    return tuple(sorted(entry.name for entry in root.iterdir() if entry.is_dir())) if root.is_dir() else ()

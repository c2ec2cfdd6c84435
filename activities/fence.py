"""The fence of one host: it keeps the highest owner token it has seen for each VM, and obeys nobody with a lower one.

Kept in `state_dir`, on disk before it is acted on: it outlives the worker, not the host. A host that was started anew
runs none of its VMs any more, so it takes no VM until it was compared with the site's records (`welcome`); from then
on it refuses every token given out before, which is all that the tokens it forgot had been for.

Token 0 is nobody's: refused once any other was seen for the VM, accepted until then.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from activities import errors
from models import failures
from models.host import NOT_RECONCILED, Finding, HostSettings
from models.migration import VmRef

BOOT = Path("/proc/sys/kernel/random/boot_id")


class Fence:
    def __init__(self, settings: HostSettings) -> None:
        self._host = settings.host
        self._state = Path(settings.state_dir)
        self._owners = self._state / "owners"

    def seen(self, vm: VmRef) -> int:
        """The highest token seen for the VM."""
        if vm.uuid:
            return self._token(self._file(vm.uuid))
        named = (found for file in self._owners.glob("*.json") if (found := _read(file)).get("vm") == vm.vm)
        return max((int(found["token"]) for found in named), default=0)

    def known(self, vm: VmRef) -> int:
        """What a new token for the VM has to be above, to be obeyed here."""
        return max(self.seen(vm), self._floor())

    def check(self, vm: VmRef | None, what: str) -> None:
        """Before anything is changed for the VM. Refuses an older token; a newer one is on disk afterwards."""
        if vm is None:
            return
        with self._alone():
            seen, known = self.seen(vm), self.known(vm)
            if vm.token < (known if vm.token else seen):
                raise errors.final(
                    failures.REFUSED,
                    f"{self._host} refuses to {what} for {vm.vm}: the order has owner token {vm.token}, and this host "
                    f"has seen {known}. A later operation has the VM; nothing was done. "
                    f"`novacron owners` shows which",
                )
            if vm.uuid and vm.token > seen:
                _write(self._file(vm.uuid), {"vm": vm.vm, "token": vm.token})

    def welcomed(self) -> bool:
        """This host was compared with the site's records since it was started."""
        return _read(self._welcome).get("boot") == _boot()

    def findings(self) -> tuple[Finding, ...]:
        """What speaks against a VM's coming here."""
        if self.welcomed():
            return ()
        what = (
            f"{self._host} was started, or lost its state, and has not been compared with the site's owner records "
            f"since: it may still hold a VM that runs elsewhere now"
        )
        remedy = "Run `novacron reconcile`, and read what it says of that host."
        return (Finding(id=NOT_RECONCILED, severity="blocker", what=what, remedy=remedy),)

    def welcome(self, floor: int) -> int:
        """The host may take work. Once is enough: said again, the first floor stays, since moves run above it."""
        with self._alone():
            if not self.welcomed():
                _write(self._welcome, {"boot": _boot(), "floor": floor})
            return self._floor()

    @property
    def _welcome(self) -> Path:
        return self._state / "welcome.json"

    def _floor(self) -> int:
        return int(_read(self._welcome).get("floor", 0))

    def _file(self, uuid: str) -> Path:
        return self._owners / f"{uuid}.json"

    @staticmethod
    def _token(file: Path) -> int:
        return int(_read(file).get("token", 0))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Against other threads, and a worker that is just being replaced."""
        self._owners.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self._owners / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _boot() -> str:
    return BOOT.read_text().strip()


def _read(file: Path) -> dict[str, Any]:
    """Nothing when it is not there. A damaged file is an error: what it guarded must not be taken for unguarded."""
    try:
        found = json.loads(file.read_text())
    except FileNotFoundError:
        return {}
    if not isinstance(found, dict):
        raise ValueError(f"{file} holds no JSON object; reconcile this host, then remove it")
    return found


def _write(file: Path, value: dict[str, Any]) -> None:
    fresh = file.with_suffix(".new")
    with fresh.open("w") as out:
        json.dump(value, out)
        out.flush()
        os.fsync(out.fileno())
    fresh.replace(file)
    folder = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)

"""A real account under the contract: nothing can be broken there on purpose, and not everything be seen."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from clouds.disks.content import BLOCK
from clouds.errors import NotFound
from models.clouds import AwsSettings, AzureSettings, CloudSettings, Snapshot
from tests.clouds.aws.scene import AwsCloud
from tests.clouds.azure.scene import AzureCloud
from tests.clouds.faults import FaultPlan, Kind
from tests.live import sweeps
from tests.live.sweeps import Sweep

WHY_NOT = {
    "gcp": "an upload that was cut leaves an object that carries no tag, so a sweep by tag would not find it",
    "oci": "its imported disks are objects, which carry no tags, so a sweep by tag would not find them",
    "kvm": "it is under the contract on real parts already: pytest tests/integration/contract",
}
"""Clouds that are not run live: what cannot be cleaned up by its tag alone is not made."""


class Unseen(int):
    """A figure that nobody on this side can see: it holds whatever is asked of it, and the rest of the test counts."""

    def _whole(self, _: Any) -> Unseen:
        return self

    def _holds(self, _: Any) -> bool:
        return True

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = _whole
    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _holds
    __hash__ = int.__hash__


class NoFaults(FaultPlan):
    def on(self, operation: str, kind: Kind, times: int = 1, after: int = 0) -> None:
        pytest.skip(f"{kind} of {operation}: nobody breaks a real cloud on purpose")

    def count(self, operation: str) -> int:
        return Unseen()


class Gathered:
    """A target of any size that keeps only what is written."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.held: dict[int, bytes] = {}

    def read(self, offset: int, length: int) -> bytes:
        return self.held.get(offset // BLOCK, bytes(BLOCK))[:length]

    def write(self, offset: int, data: bytes) -> None:
        self.held[offset // BLOCK] = data.ljust(BLOCK, b"\0")

    def zero(self, offset: int, length: int) -> None:
        self.held.pop(offset // BLOCK, None)

    def flush(self) -> None:
        pass


class Marking:
    """ImageExport whose snapshots carry the run's tag: the adapter has no tags for them."""

    def __init__(self, inner: Any, sweep: Sweep, run: str) -> None:
        self._inner, self._sweep, self._run = inner, sweep, run

    def create_snapshot(self, volume: str, token: str) -> Snapshot:
        made: Snapshot = self._inner.create_snapshot(volume, token)
        self._sweep.tag(made.id, self._run)
        return made

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class LiveCloud:
    def __init__(self, settings: CloudSettings, run: str, size: str | None) -> None:
        """Raises UsageError for a cloud that could not be cleaned up."""
        if not isinstance(settings, AwsSettings | AzureSettings):
            raise pytest.UsageError(f"--live {settings.cloud}: not run live: {WHY_NOT[settings.cloud]}")
        self.settings = settings
        self.run = run
        self.sweep, adapter = sweeps.sweep_of(settings)
        self.adapter = dataclasses.replace(adapter, image_export=Marking(adapter.image_export, self.sweep, run))
        assert adapter.catalogue is not None
        known = AwsCloud if isinstance(settings, AwsSettings) else AzureCloud
        self.calls = dataclasses.replace(known.calls, priced=bool(adapter.catalogue.prices()))
        self.size = size or known.size
        self.faults = NoFaults()

    def sent(self) -> int:
        return Unseen()

    def content(self, disk: str) -> dict[int, bytes]:
        """Read back through the adapter, which checks every block."""
        assert self.adapter.image_export is not None
        assert self.adapter.image_import is not None
        try:
            target = Gathered(self.adapter.image_import.get_snapshot(disk).size)
        except NotFound:
            return {}
        self.adapter.image_export.export_disk(disk, target, lambda _: None)
        return dict(sorted(target.held.items()))

    def things(self) -> list[str]:
        return sweeps.found(self.sweep, self.run)

    def clean(self) -> list[str]:
        return sweeps.clean(self.sweep, self.adapter, self.run)

    def small_pages(self) -> None:
        raise NotImplementedError("only fakes have pages of a size that is told")

    def guest_writes(self, volume: str, index: int, data: bytes) -> None:
        pytest.skip("nobody writes into a guest's disk from outside on a real cloud")

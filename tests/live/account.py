"""A real account under the contract: nothing can be broken there on purpose, and not everything be seen."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from clouds.adapters import connect
from clouds.aws.session import AwsSession
from clouds.capabilities import Adapter
from clouds.disks.content import BLOCK
from clouds.errors import Conflict, NotFound
from models.clouds import AwsSettings, CloudSettings, Snapshot
from tests.clouds.aws.scene import AwsCloud
from tests.clouds.faults import FaultPlan, Kind
from tests.clouds.scene import RUN_TAG, looks

WHY_NOT = {
    "azure": "its sweep by tag is not built",
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


class AwsSweep:
    """Everything that carries a run's tag, and only that."""

    def __init__(self, settings: AwsSettings, adapter: Adapter) -> None:
        self._aws = AwsSession(settings)
        self._adapter = adapter

    def instances(self, run: str) -> list[str]:
        groups = self._all("describe_instances", "Reservations", Filters=_carries(run))
        found = [each for group in groups for each in group["Instances"]]
        return [each["InstanceId"] for each in found if each["State"]["Name"] not in ("terminated", "shutting-down")]

    def images(self, run: str) -> list[str]:
        """Looked through here: the tag decides, not how a filter is read."""
        return [each["ImageId"] for each in self._all("describe_images", "Images", Owners=["self"]) if _has(each, run)]

    def disks(self, run: str) -> list[str]:
        found = self._all("describe_snapshots", "Snapshots", OwnerIds=["self"], Filters=_carries(run))
        return [each["SnapshotId"] for each in found if _has(each, run)]

    def found(self, run: str) -> list[str]:
        return [*self.disks(run), *self.images(run), *self.instances(run)]

    def tag(self, disk: str, run: str) -> None:
        tags = [{"Key": RUN_TAG, "Value": run}]
        self._aws.call(f"tag {disk}", "ec2", "create_tags", Resources=[disk], Tags=tags)

    def clean(self, run: str) -> list[str]:
        """What was removed. Raises AssertionError with what would not go."""
        instances, images = self._adapter.instances, self._adapter.image_import
        assert instances is not None
        assert images is not None
        removed = self.found(run)
        for instance in self.instances(run):
            instances.terminate_instance(instance)
        for image in self.images(run):
            images.delete_image(image)
        for _ in looks():
            for disk in self.disks(run):
                try:
                    images.delete_disk(disk)
                except Conflict:
                    continue  # the image is still on its way out
            if not self.found(run):
                return removed
        raise AssertionError(f"still there of run {run}: {self.found(run)}")

    def _all(self, operation: str, key: str, **asked: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        page: dict[str, str] = {}
        while True:
            answer = self._aws.call(f"look what the run made ({key})", "ec2", operation, **asked, **page)
            found += answer[key]
            if not answer.get("NextToken"):
                return found
            page = {"NextToken": answer["NextToken"]}


class Marking:
    """ImageExport whose snapshots carry the run's tag: the adapter has no tags for them."""

    def __init__(self, inner: Any, sweep: AwsSweep, run: str) -> None:
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
        if not isinstance(settings, AwsSettings):
            raise pytest.UsageError(f"--live {settings.cloud}: not run live: {WHY_NOT[settings.cloud]}")
        self.settings = settings
        self.run = run
        adapter = connect(settings)
        self.sweep = AwsSweep(settings, adapter)
        self.adapter = dataclasses.replace(adapter, image_export=Marking(adapter.image_export, self.sweep, run))
        assert adapter.catalogue is not None
        self.calls = dataclasses.replace(AwsCloud.calls, priced=bool(adapter.catalogue.prices()))
        self.size = size or AwsCloud.size
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
        return self.sweep.found(self.run)

    def guest_writes(self, volume: str, index: int, data: bytes) -> None:
        pytest.skip("nobody writes into a guest's disk from outside on a real cloud")


def _carries(run: str) -> list[dict[str, Any]]:
    return [{"Name": f"tag:{RUN_TAG}", "Values": [run]}]


def _has(thing: dict[str, Any], run: str) -> bool:
    return {"Key": RUN_TAG, "Value": run} in thing.get("Tags", [])

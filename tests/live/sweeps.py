"""Everything on an account that carries a run's tag, and only that: seen, and removed."""

from __future__ import annotations

from typing import Any, Protocol

from clouds.adapters import connect
from clouds.aws.session import AwsSession
from clouds.azure.session import AzureSession
from clouds.capabilities import Adapter
from clouds.errors import CloudError, Conflict
from models.clouds import AwsSettings, AzureSettings
from tests.clouds.scene import RUN_TAG, looks


class Sweep(Protocol):
    """The tag decides, looked at here: not how a provider reads a filter."""

    def instances(self, run: str) -> list[str]: ...
    def images(self, run: str) -> list[str]: ...
    def disks(self, run: str) -> list[str]: ...
    def tag(self, disk: str, run: str) -> None:
        """A snapshot of a volume: the adapter has no tags for it."""


def found(sweep: Sweep, run: str) -> list[str]:
    return [*sweep.disks(run), *sweep.images(run), *sweep.instances(run)]


def clean(sweep: Sweep, adapter: Adapter, run: str) -> list[str]:
    """What was removed. Raises AssertionError with what would not go."""
    assert adapter.instances is not None
    assert adapter.image_import is not None
    removed, why = found(sweep, run), ""
    for instance in sweep.instances(run):
        adapter.instances.terminate_instance(instance)
    for image in sweep.images(run):
        adapter.image_import.delete_image(image)
    for _ in looks():
        for disk in sweep.disks(run):
            try:
                adapter.image_import.delete_disk(disk)
            except Conflict as error:
                why = str(error)  # what holds it is still on its way out
        if not found(sweep, run):
            return removed
    raise AssertionError(f"still there of run {run}: {found(sweep, run)} {why}")


class AwsSweep:
    def __init__(self, settings: AwsSettings) -> None:
        self._aws = AwsSession(settings)

    def instances(self, run: str) -> list[str]:
        groups = self._all("describe_instances", "Reservations", Filters=_carries(run))
        told = [each for group in groups for each in group["Instances"] if _has(each, run)]
        return [each["InstanceId"] for each in told if each["State"]["Name"] not in ("terminated", "shutting-down")]

    def images(self, run: str) -> list[str]:
        return [each["ImageId"] for each in self._all("describe_images", "Images", Owners=["self"]) if _has(each, run)]

    def disks(self, run: str) -> list[str]:
        told = self._all("describe_snapshots", "Snapshots", OwnerIds=["self"], Filters=_carries(run))
        return [each["SnapshotId"] for each in told if _has(each, run)]

    def tag(self, disk: str, run: str) -> None:
        tags = [{"Key": RUN_TAG, "Value": run}]
        self._aws.call(f"tag {disk}", "ec2", "create_tags", Resources=[disk], Tags=tags)

    def _all(self, operation: str, key: str, **asked: Any) -> list[dict[str, Any]]:
        told: list[dict[str, Any]] = []
        page: dict[str, str] = {}
        while True:
            answer = self._aws.call(f"look what the run made ({key})", "ec2", operation, **asked, **page)
            told += answer[key]
            if not answer.get("NextToken"):
                return told
            page = {"NextToken": answer["NextToken"]}


class AzureSweep:
    """Network interfaces are not looked for: they go with their VM, and cost nothing."""

    def __init__(self, settings: AzureSettings) -> None:
        self._azure = AzureSession(settings)
        self._group = settings.resource_group
        self._gallery = settings.gallery

    def instances(self, run: str) -> list[str]:
        return self._of("virtual_machines", "list", "virtualMachines", run)

    def images(self, run: str) -> list[str]:
        """The definition has the tag; the adapter makes one version of each."""
        try:
            told = list(
                self._azure.pages("look what the run made", "gallery_images", "list_by_gallery", *self._place())
            )
        except CloudError as error:
            if "NotFound" not in error.code:
                raise
            return []  # no gallery was made yet
        names = [each.name for each in told if (each.tags or {}).get(RUN_TAG) == run]
        kind = "galleries/images/versions"
        return [str(self._azure.id(kind, self._gallery, name, "1.0.0")) for name in names]

    def disks(self, run: str) -> list[str]:
        """Not those that hang on a VM and go with it."""
        return [each for kind in ("disks", "snapshots") for each in self._of(kind, "list_by_resource_group", kind, run)]

    def tag(self, disk: str, run: str) -> None:
        thing = self._azure.find(disk, "snapshots")
        tags = dict(self._azure.call(f"find {disk}", "snapshots", "get", *thing.path).tags or {})
        body = {"tags": {**tags, RUN_TAG: run}}
        self._azure.run(f"tag {disk}", "snapshots", "begin_update", *thing.path, body)

    def _of(self, part: str, operation: str, kind: str, run: str) -> list[str]:
        told = self._azure.pages("look what the run made", part, operation, self._group)
        mine = [each for each in told if (each.tags or {}).get(RUN_TAG) == run]
        free = [each for each in mine if kind != "disks" or not each.managed_by]
        return [str(self._azure.find(each.id, kind)) for each in free]

    def _place(self) -> tuple[str, str]:
        return self._group, self._gallery


def sweep_of(settings: AwsSettings | AzureSettings) -> tuple[Sweep, Adapter]:
    if isinstance(settings, AwsSettings):
        return AwsSweep(settings), connect(settings)
    return AzureSweep(settings), connect(settings)


def _carries(run: str) -> list[dict[str, Any]]:
    return [{"Name": f"tag:{RUN_TAG}", "Values": [run]}]


def _has(thing: dict[str, Any], run: str) -> bool:
    return {"Key": RUN_TAG, "Value": run} in thing.get("Tags", [])

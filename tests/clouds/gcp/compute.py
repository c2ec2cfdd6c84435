"""Compute Engine as strict as Google documents it: operations that take their time, request ids, states, labels.

Images keep the bytes of their disks, taken out of the archive by Python's tarfile, which knows nothing of the writer.
An operation is done when it, or what it makes, was looked at `slow` times.
"""

from __future__ import annotations

import copy
import gzip
import io
import re
import tarfile
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.clouds.gcp.storage import StrictStorage
from tests.clouds.gcp.wire import Call, Drift, Fault, write

BLOCK = 512 << 10
GIB = 1 << 30
PROJECT, REGION = "novacron-test", "us-east1"
ZONES = ("us-east1-b", "us-east1-c")
SIZES = {
    "e2-medium": (2, 4096, "X86_64"), "e2-micro": (2, 1024, "X86_64"), "e2-standard-2": (2, 8192, "X86_64"),
    "n2-standard-4": (4, 16384, "X86_64"), "c3-standard-4": (4, 16384, "X86_64"), "t2a-standard-1": (1, 4096, "ARM64"),
    "c4a-standard-1": (1, 4096, "ARM64"),
}  # fmt: skip
NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
KEY, VALUE = re.compile(r"[a-z][a-z0-9_-]{0,62}"), re.compile(r"[a-z0-9_-]{0,63}")
ROOT = f"https://www.googleapis.com/compute/v1/projects/{PROJECT}"
Blocks = dict[int, bytes]


@dataclass
class Operation:
    told: dict[str, Any]
    looks: int
    then: Callable[[], None]
    failure: tuple[str, str, int] | None = None


@dataclass
class StrictCompute:
    storage: StrictStorage
    slow: int = 2
    images: dict[str, dict[str, Any]] = field(default_factory=dict)
    content: dict[str, Blocks] = field(default_factory=dict)
    instances: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By `<zone>/<name>`."""
    disks: dict[str, Blocks] = field(default_factory=dict)
    operations: dict[str, Operation] = field(default_factory=dict)
    fail_next: dict[str, tuple[str, str, int]] = field(default_factory=dict)
    """Method to (code, message, HTTP status) of the operation that it begins."""
    _requests: dict[str, str] = field(default_factory=dict)
    _made: int = 0

    def answer(self, call: Call) -> bytes:
        if call.params["project"] != PROJECT:
            raise Fault(404, "notFound", f"The resource 'projects/{call.params['project']}' was not found")
        method = getattr(self, call.name.replace(".", "_"), None)
        if method is None:
            raise Drift(f"{call.name} is not part of this fake")
        request = call.params.get("requestId")
        if request is not None:
            if str(uuid.UUID(request)) != request or not uuid.UUID(request).int:
                raise Fault(400, "invalid", "Invalid value for field 'requestId'.")
            if request in self._requests:
                return write(call, self.operations[self._requests[request]].told)
        told = method(call)
        if request is not None:
            self._requests[request] = told["name"]
        return write(call, told)

    # Images.

    def images_insert(self, call: Call) -> dict[str, Any]:
        asked = call.json()
        name = self._name(asked, self.images)
        sources = [key for key in ("rawDisk", "sourceImage", "sourceDisk", "sourceSnapshot") if key in asked]
        if len(sources) != 1:
            raise Fault(400, "invalid", "Exactly one source is needed.")
        self._labels(asked.get("labels", {}))
        archive = b""
        if "rawDisk" in asked:
            archive = self._archive(asked["rawDisk"]["source"])
        image = {
            **asked, **self._new("image", f"global/images/{name}"), "status": "PENDING", "sourceType": "RAW",
            "labelFingerprint": "Zm9v", "diskSizeGb": "0",
        }  # fmt: skip
        if "sourceImage" in asked:
            origin = self._ready(asked["sourceImage"])
            image["diskSizeGb"] = origin["diskSizeGb"]
            self.content[name] = dict(self.content[origin["name"]])
        self.images[name] = image

        def then() -> None:
            if archive:
                size, self.content[name] = unpack(archive)
                image["diskSizeGb"], image["archiveSizeBytes"] = str(size // GIB), str(len(archive))
            image["status"] = "READY"

        return self._operation(call, image, then, undo=lambda: self._forget(name))

    def images_get(self, call: Call) -> dict[str, Any]:
        return copy.deepcopy(self._looked(self.images, call.params["image"], f"global/images/{call.params['image']}"))

    def images_list(self, call: Call) -> dict[str, Any]:
        found = [image for image in self.images.values() if _fits(image, call.params.get("filter", ""))]
        return self._page(call, "compute#imageList", found, f"{ROOT}/global/images")

    def images_delete(self, call: Call) -> dict[str, Any]:
        name = call.params["image"]
        image = self._looked(self.images, name, f"global/images/{name}")
        return self._operation(call, image, lambda: self._forget(name))

    # Instances.

    def instances_insert(self, call: Call) -> dict[str, Any]:
        asked, zone = call.json(), self._zone(call)
        there = {key.rpartition("/")[2] for key in self.instances if key.startswith(f"{zone}/")}
        name = self._name(asked, there)
        self._labels(asked.get("labels", {}))
        size = re.fullmatch(r"zones/([a-z0-9-]+)/machineTypes/([a-z0-9-]+)", asked["machineType"])
        if not size or size[1] != zone or size[2] not in SIZES:
            raise Fault(400, "invalid", f"Invalid value for field 'resource.machineType': '{asked['machineType']}'.")
        (network,) = asked["networkInterfaces"]
        if not network.get("network") and not network.get("subnetwork"):
            raise Fault(400, "invalid", "At least one of network and subnetwork is needed.")
        disks: list[dict[str, Any]] = []
        for place, disk in enumerate(asked["disks"]):
            origin = self._ready(disk["initializeParams"]["sourceImage"])
            if disk.get("boot", False) != (place == 0):
                raise Fault(400, "invalid", "The first disk boots, and no other.")
            own = name if place == 0 else f"{name}-{place}"
            self.disks[f"{zone}/{own}"] = dict(self.content[origin["name"]])
            disks.append(
                {
                    "kind": "compute#attachedDisk", "index": place, "boot": place == 0, "mode": "READ_WRITE",
                    "type": "PERSISTENT", "autoDelete": disk.get("autoDelete", False), "deviceName": f"disk-{place}",
                    "source": f"{ROOT}/zones/{zone}/disks/{own}", "diskSizeGb": origin["diskSizeGb"],
                }
            )  # fmt: skip
        self._made += 1
        instance = {
            **self._new("instance", f"zones/{zone}/instances/{name}"), "zone": f"{ROOT}/zones/{zone}", "name": name,
            "machineType": f"{ROOT}/{asked['machineType']}", "status": "PROVISIONING", "disks": disks,
            "description": asked.get("description", ""), "labels": asked.get("labels", {}),
            "labelFingerprint": "MQ==",
            "networkInterfaces": [{"name": "nic0", "networkIP": f"10.0.0.{self._made}",
                "accessConfigs": [{**access, "natIP": "198.51.100.7"} for access in network.get("accessConfigs", [])]}],
        }  # fmt: skip
        key = f"{zone}/{name}"
        self.instances[key] = instance
        return self._operation(call, instance, lambda: _set(instance, "RUNNING"), undo=lambda: self._remove(key))

    def instances_get(self, call: Call) -> dict[str, Any]:
        return copy.deepcopy(self._instance(call))

    def instances_aggregatedList(self, call: Call) -> dict[str, Any]:
        found = [item for item in self.instances.values() if _fits(item, call.params.get("filter", ""))]
        page = self._page(call, "compute#instanceAggregatedList", found, f"{ROOT}/aggregated/instances")
        scopes: dict[str, Any] = {}
        for zone in ZONES:
            here = [item for item in page["items"] if item["zone"].endswith(f"/{zone}")]
            warning = {"code": "NO_RESULTS_ON_PAGE", "message": "There are no results for this scope on this page."}
            scopes[f"zones/{zone}"] = {"instances": here} if here else {"warning": warning}
        return {**page, "items": scopes}

    def instances_start(self, call: Call) -> dict[str, Any]:
        return self._change(call, {"TERMINATED", "RUNNING"}, "STAGING", "RUNNING")

    def instances_stop(self, call: Call) -> dict[str, Any]:
        return self._change(call, {"TERMINATED", "RUNNING"}, "STOPPING", "TERMINATED")

    def instances_reset(self, call: Call) -> dict[str, Any]:
        return self._change(call, {"RUNNING"}, "RUNNING", "RUNNING")

    def instances_delete(self, call: Call) -> dict[str, Any]:
        instance = self._instance(call)
        _set(instance, "STOPPING")
        key = f"{self._zone(call)}/{instance['name']}"
        return self._operation(call, instance, lambda: self._remove(key))

    def instances_setLabels(self, call: Call) -> dict[str, Any]:
        asked, instance = call.json(), self._instance(call)
        if asked.get("labelFingerprint") != instance["labelFingerprint"]:
            raise Fault(412, "conditionNotMet", "Labels fingerprint either invalid or resource labels have changed")
        self._labels(asked["labels"])
        instance["labels"] = asked["labels"]
        instance["labelFingerprint"] = f"{len(instance['labelFingerprint'])}{instance['labelFingerprint']}"
        return self._operation(call, instance, lambda: None)

    # Operations, sizes, quotas.

    def globalOperations_get(self, call: Call) -> dict[str, Any]:
        return self._look(call, "")

    def zoneOperations_get(self, call: Call) -> dict[str, Any]:
        return self._look(call, self._zone(call))

    def machineTypes_list(self, call: Call) -> dict[str, Any]:
        zone = self._zone(call)
        found = [
            {
                **self._new("machineType", f"zones/{zone}/machineTypes/{name}"), "name": name, "guestCpus": cpus,
                "memoryMb": memory, "architecture": architecture, "zone": zone,
            }
            for name, (cpus, memory, architecture) in SIZES.items()
        ]  # fmt: skip
        return self._page(call, "compute#machineTypeList", found, f"{ROOT}/zones/{zone}/machineTypes")

    def regions_get(self, call: Call) -> dict[str, Any]:
        if call.params["region"] != REGION:
            raise Fault(404, "notFound", "The region was not found.")
        quotas = [{"metric": "CPUS", "limit": 24.0, "usage": 2.0}, {"metric": "NETWORKS", "limit": 0.0, "usage": 0.0}]
        return {**self._new("region", f"regions/{REGION}"), "name": REGION, "quotas": quotas}

    def projects_get(self, call: Call) -> dict[str, Any]:
        quotas = [{"metric": "IMAGES", "limit": 2000.0, "usage": float(len(self.images))}]
        return {**self._new("project", ""), "name": PROJECT, "quotas": quotas}

    # For all.

    def _operation(
        self, call: Call, target: dict[str, Any], then: Callable[[], None], undo: Callable[[], None] = lambda: None
    ) -> dict[str, Any]:
        self._made += 1
        zone = call.params.get("zone", "")
        name = f"operation-{self._made}"
        told = {
            **self._new("operation", f"{f'zones/{zone}' if zone else 'global'}/operations/{name}"), "name": name,
            "status": "RUNNING", "operationType": call.name, "progress": 0, "targetLink": target["selfLink"],
            **({"zone": f"{ROOT}/zones/{zone}"} if zone else {}),
        }  # fmt: skip
        failure = self.fail_next.pop(call.name, None)
        self.operations[name] = Operation(told, self.slow, undo if failure else then, failure)
        return told

    def _look(self, call: Call, zone: str) -> dict[str, Any]:
        found = self.operations.get(call.params["operation"])
        if found is None or found.told.get("zone", "").rpartition("/")[2] != zone:
            raise Fault(404, "notFound", "The operation was not found.")
        self._tick(found)
        return found.told

    def _tick(self, operation: Operation) -> None:
        if operation.told["status"] == "DONE":
            return
        operation.looks -= 1
        if operation.looks > 0:
            return
        operation.told |= {"status": "DONE", "progress": 100}
        try:
            operation.then()
        except BadArchive as error:
            operation.failure = ("INVALID_USAGE", str(error), 400)
        if operation.failure:
            code, message, status = operation.failure
            operation.told["error"] = {"errors": [{"code": code, "message": message}]}
            operation.told |= {"httpErrorStatusCode": status, "httpErrorMessage": "FAILED"}

    def _looked(self, things: dict[str, dict[str, Any]], key: str, path: str) -> dict[str, Any]:
        for operation in list(self.operations.values()):
            if operation.told["targetLink"] == f"{ROOT}/{path}":
                self._tick(operation)
        if key not in things:
            raise Fault(404, "notFound", f"The resource 'projects/{PROJECT}/{path}' was not found")
        return things[key]

    def _instance(self, call: Call) -> dict[str, Any]:
        zone, name = self._zone(call), call.params["instance"]
        return self._looked(self.instances, f"{zone}/{name}", f"zones/{zone}/instances/{name}")

    def _change(self, call: Call, allowed: set[str], now: str, later: str) -> dict[str, Any]:
        instance = self._instance(call)
        if instance["status"] not in allowed:
            raise Fault(400, "resourceNotReady", f"The resource is {instance['status']}.")
        _set(instance, now)
        return self._operation(call, instance, lambda: _set(instance, later))

    def _zone(self, call: Call) -> str:
        if call.params["zone"] not in ZONES:
            raise Fault(404, "notFound", f"The zone {call.params['zone']} was not found.")
        return call.params["zone"]

    def _name(self, asked: dict[str, Any], taken: Any) -> str:
        name = str(asked.get("name", ""))
        if not NAME.fullmatch(name):
            raise Fault(400, "invalid", f"Invalid value for field 'resource.name': '{name}'.")
        if name in taken:
            raise Fault(409, "alreadyExists", f"The resource '{name}' already exists")
        return name

    def _labels(self, labels: dict[str, str]) -> None:
        if len(labels) > 64 or not all(KEY.fullmatch(k) and VALUE.fullmatch(v) for k, v in labels.items()):
            raise Fault(400, "invalid", f"Invalid value for field 'resource.labels': {labels}.")

    def _ready(self, path: str) -> dict[str, Any]:
        found = re.fullmatch(r"projects/([a-z0-9-]+)/global/images/([a-z0-9-]+)", path)
        if not found or found[1] != PROJECT or found[2] not in self.images:
            raise Fault(404, "notFound", f"The resource '{path}' was not found")
        if self.images[found[2]]["status"] != "READY":
            raise Fault(400, "resourceNotReady", f"The resource '{path}' is not ready")
        return self.images[found[2]]

    def _archive(self, source: str) -> bytes:
        prefix = f"https://storage.googleapis.com/{self.storage.bucket}/"
        kept = self.storage.objects.get(source.removeprefix(prefix))
        if not source.startswith(prefix) or kept is None:
            raise Fault(404, "notFound", f"The resource '{source}' was not found")
        return kept.data

    def _new(self, kind: str, path: str) -> dict[str, Any]:
        self._made += 1
        link = f"{ROOT}/{path}"
        return {"kind": f"compute#{kind}", "id": str(4096 + self._made), "selfLink": link,
                "creationTimestamp": "2026-01-01T00:00:00.000-07:00"} if kind != "operation" else {
            "kind": "compute#operation", "id": str(4096 + self._made), "selfLink": link,
            "insertTime": "2026-01-01T00:00:00.000-07:00"}  # fmt: skip

    def _page(self, call: Call, kind: str, found: list[dict[str, Any]], link: str) -> dict[str, Any]:
        limit = int(call.params.get("maxResults", 500))
        if not 0 < limit <= 500:
            raise Fault(400, "invalid", "Invalid value for field 'maxResults'.")
        start = int(call.params.get("pageToken") or 0)
        more = {"nextPageToken": str(start + limit)} if start + limit < len(found) else {}
        return {"kind": kind, "id": "list", "selfLink": link, "items": found[start : start + limit], **more}

    def _forget(self, image: str) -> None:
        self.images.pop(image, None)
        self.content.pop(image, None)

    def _remove(self, key: str) -> None:
        for disk in self.instances.pop(key)["disks"]:
            if disk["autoDelete"]:
                del self.disks["/".join(disk["source"].split("/")[-3::2])]


class BadArchive(Exception):
    """Not what Google takes."""


def unpack(archive: bytes) -> tuple[int, Blocks]:
    """Size and blocks of the one file `disk.raw`, zero ones left out."""
    try:
        with gzip.open(io.BytesIO(archive)) as plain, tarfile.open(fileobj=plain, mode="r:") as tar:
            (member,) = tar.getmembers()
            spans: Any = member.sparse if member.issparse() else [(0, member.size)]
            if member.name != "disk.raw" or member.size % GIB:
                raise BadArchive(f"{member.name} of {member.size} bytes is not disk.raw of whole GiB")
            file = tar.extractfile(member)
            assert file is not None
            blocks = {}
            for start, length in spans:
                for index in range(start // BLOCK, -(-(start + length) // BLOCK)):
                    file.seek(index * BLOCK)
                    data = file.read(BLOCK)
                    if data.strip(b"\0"):
                        blocks[index] = data
            return member.size, blocks
    except (OSError, EOFError, tarfile.TarError, ValueError) as error:
        raise BadArchive(f"no archive: {error}") from error


def _set(instance: dict[str, Any], status: str) -> None:
    instance["status"] = status


def _fits(item: dict[str, Any], rule: str) -> bool:
    """The filters that the adapter uses, no others."""
    labels: dict[str, str] = item.get("labels", {})
    if not rule:
        return True
    if found := re.fullmatch(r"labels\.([a-z0-9_-]+):\*", rule):
        return found[1] in labels
    if found := re.fullmatch(r"labels\.([a-z0-9_-]+)=([a-z0-9_-]+)", rule):
        return labels.get(found[1]) == found[2]
    if found := re.fullmatch(r'zone eq "(.*)"', rule):
        return bool(re.fullmatch(found[1], item["zone"]))
    raise Drift(f"the filter {rule!r} is not part of this fake")

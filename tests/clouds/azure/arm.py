"""Azure's resource manager, what the adapter uses of it: as strict as Azure documents it, with disks that keep bytes.

Everything that takes time on Azure is an operation here: it ends after `slow` looks at it or at its thing. Resource
groups come back in capitals, as Azure likes to have them in lists.
Sources: Compute and Network REST references; messages of Azure as people report them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from clouds.disks.content import BLOCK
from tests.clouds.azure.blobs import PAGE, Blob, Blobs
from tests.clouds.azure.wire import AzureFault

SUBSCRIPTION = "00000000-1111-2222-3333-444444444444"
GROUP = "lab"
REGION = "eastus"
ROOT = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers"
SUBNET = f"{ROOT}/Microsoft.Network/virtualNetworks/lab/subnets/default"
SIZES: dict[str, dict[str, str]] = {
    "Standard_B2s": {"vCPUs": "2", "MemoryGB": "4", "HyperVGenerations": "V1,V2", "CpuArchitectureType": "x64"},
    "Standard_D2s_v5": {
        "vCPUs": "2", "MemoryGB": "8", "HyperVGenerations": "V1,V2", "CpuArchitectureType": "x64",
        "DiskControllerTypes": "SCSI, NVMe",
    },
    "Standard_D2ps_v5": {"vCPUs": "2", "MemoryGB": "8", "HyperVGenerations": "V2", "CpuArchitectureType": "Arm64"},
    "Standard_D2s_v6": {
        "vCPUs": "2", "MemoryGB": "8", "HyperVGenerations": "V2", "CpuArchitectureType": "x64",
        "DiskControllerTypes": "NVMe",
    },
    "Standard_E2s_v5": {"vCPUs": "2", "MemoryGB": "16", "HyperVGenerations": "V1,V2", "CpuArchitectureType": "x64"},
    "Standard_M8ms": {"vCPUs": "8", "MemoryGB": "218.75", "HyperVGenerations": "V1,V2"},
}  # fmt: skip
NOT_HERE = "Standard_M8ms"
"""Restricted for this subscription."""
VM_PAGE, SKU_PAGE = 4, 5
SMALLEST = (20 << 20) + PAGE


@dataclass
class Thing:
    """A resource as it is told."""

    id: str
    told: dict[str, Any]
    blob: Blob | None = None
    looks: int = 0
    """Left until what it is doing has ended."""
    then: Callable[[], None] = lambda: None
    failing: str = ""
    """Code of the end that is planned."""
    addresses: list[str] = field(default_factory=list)

    @property
    def properties(self) -> dict[str, Any]:
        properties: dict[str, Any] = self.told["properties"]
        return properties


@dataclass
class Operation:
    thing: Thing
    code: str = ""
    result: dict[str, Any] | None = None


class StrictArm:
    """Operations by method and type, each a method that takes the names and the body, and gives the thing or the
    operation. Things are kept by their path below the resource group, in small letters."""

    def __init__(self, base: str, slow: int = 2) -> None:
        self.slow = slow
        self.base = base
        self.things: dict[str, Thing] = {}
        self.blobs = Blobs(base)
        self.fail_next = False
        self.operations: dict[str, Operation] = {}
        self._made = 0

    # What all have.

    def look(self, thing: Thing) -> None:
        if thing.looks:
            thing.looks -= 1
            if not thing.looks:
                self._end(thing)

    def get(self, path: str) -> Thing:
        thing = self.things.get(path.lower())
        if thing is None:
            raise AzureFault("ResourceNotFound", f"The Resource 'Microsoft.Compute/{path}' was not found.", 404)
        self.look(thing)
        return self.get_now(path)

    def get_now(self, path: str) -> Thing:
        if path.lower() not in self.things:
            raise AzureFault("ResourceNotFound", f"The Resource '{path}' was not found.", 404)
        return self.things[path.lower()]

    def begin(self, thing: Thing, then: Callable[[], None], result: dict[str, Any] | None = None) -> Operation:
        """Something that takes time, after what the thing was doing before."""
        if thing.looks:
            self._end(thing)
        thing.looks, thing.then = self.slow, then
        operation = Operation(thing, result=result)
        if self.fail_next:
            operation.code = thing.failing = "InternalExecutionError"
            self.fail_next = False
        self.operations[f"{self._next():08x}"] = operation
        return operation

    def _end(self, thing: Thing) -> None:
        thing.looks = 0
        if thing.failing:
            thing.failing = ""
            thing.properties["provisioningState"] = "Failed"
            return
        thing.then()

    def _remove(self, path: str) -> None:
        del self.things[path.lower()]

    def _next(self) -> int:
        self._made += 1
        return self._made

    def _make(self, path: str, body: dict[str, Any], kind: str, space: str = "Microsoft.Compute") -> Thing:
        told = {**body, "id": f"{ROOT}/{space}/{path}", "name": path.rpartition("/")[2], "type": f"{space}/{kind}"}
        told["properties"] = {**body.get("properties", {}), "provisioningState": "Creating"}
        thing = Thing(told["id"], told)
        self.things[path.lower()] = thing
        return thing

    def _ready(self, thing: Thing, **more: Any) -> Callable[[], None]:
        return lambda: thing.properties.update({"provisioningState": "Succeeded", **more})

    def _by_id(self, id: str, *kinds: str) -> Thing:
        """What a request refers to. Ids are taken in any case."""
        for thing in self.things.values():
            if thing.id.lower() == id.lower() and (not kinds or thing.told["type"].partition("/")[2] in kinds):
                return thing
        raise AzureFault("NotFound", f"The entity {id} was not found.", 404)

    # Disks and snapshots.

    def put_disks(self, path: str, body: dict[str, Any]) -> Operation | Thing:
        creation = body["properties"]["creationData"]
        if path.lower() in self.things:
            old = self.things[path.lower()]
            if old.properties["creationData"] != creation:
                raise AzureFault("PropertyChangeNotAllowed", "Changing property 'creationData' is not allowed.", 409)
            old.told["tags"] = body.get("tags", {})
            return old
        size = creation.get("uploadSizeBytes", 0)
        if creation["createOption"] != "Upload" or size < SMALLEST or (size - PAGE) % (1 << 20):
            raise AzureFault("InvalidParameter", f"uploadSizeBytes {size}: whole MiB and a footer, 20 MiB at least.")
        thing = self._make(path, body, "disks")
        thing.blob = Blob(bytearray(size), family=thing.id)
        thing.properties.update(uniqueId=thing.id, diskSizeBytes=size - PAGE, diskState="ReadyToUpload")
        return self.begin(thing, self._ready(thing))

    def patch_disks(self, path: str, body: dict[str, Any]) -> Operation:
        thing = self.get_now(path)
        thing.told["tags"] = body["tags"]
        return self.begin(thing, self._ready(thing))

    patch_snapshots = patch_disks

    def delete_disks(self, path: str, body: None) -> Operation | None:
        if path.lower() not in self.things:
            return None
        thing = self.get_now(path)
        if thing.told.get("managedBy"):
            raise AzureFault("OperationNotAllowed", f"{path} is attached to VM {thing.told['managedBy']}.", 409)
        if thing.addresses:
            raise AzureFault(
                "OperationNotAllowed",
                f"There is an active shared access signature outstanding for disk {path}. Call EndGetAccess before "
                "attaching or deleting the disk.",
                409,
            )
        return self.begin(thing, lambda: self._remove(path))

    delete_snapshots = delete_disks

    def post_disks_beginGetAccess(self, path: str, body: dict[str, Any]) -> Operation:
        thing, access = self.get_now(path), body["access"]
        state = thing.properties.get("diskState", "Unattached")
        if thing.properties["provisioningState"] != "Succeeded":
            raise AzureFault("Conflict", f"{path} is being made.", 409)
        if (access == "Write") != (state in ("ReadyToUpload", "ActiveUpload")):
            raise AzureFault("OperationNotAllowed", f"{access} access is not permitted in state {state}.", 409)
        if state == "Attached" or thing.told.get("managedBy"):
            raise AzureFault("OperationNotAllowed", "Access not permitted because disk is attached to running VM", 409)
        assert thing.blob is not None
        url = self.blobs.grant(thing.blob, access)
        thing.addresses.append(url)
        thing.properties["diskState"] = "ActiveUpload" if access == "Write" else "ActiveSAS"
        return self.begin(thing, lambda: None, {"accessSAS": url})

    post_snapshots_beginGetAccess = post_disks_beginGetAccess

    def post_disks_endGetAccess(self, path: str, body: None) -> Operation:
        thing = self.get_now(path)
        for url in thing.addresses:
            self.blobs.leaves[url].good = False
        thing.addresses.clear()
        uploaded = thing.properties.get("diskState") == "ActiveUpload"
        operation = self.begin(thing, self._ready(thing, diskState="Unattached"))
        if uploaded and not operation.code and not self._whole(thing):
            operation.code = thing.failing = "InvalidVhd"
        return operation

    post_snapshots_endGetAccess = post_disks_endGetAccess

    def _whole(self, thing: Thing) -> bool:
        """Azure looks for the footer's cookie, its type and its size."""
        assert thing.blob is not None
        footer = bytes(thing.blob.held[-PAGE:])
        size = int.from_bytes(footer[48:56], "big")
        return footer[:8] == b"conectix" and footer[60:64] == b"\0\0\0\2" and size == len(thing.blob.disk)

    def put_snapshots(self, path: str, body: dict[str, Any]) -> Operation | Thing:
        if path.lower() in self.things:
            return self.things[path.lower()]
        creation = body["properties"]["creationData"]
        source = self._by_id(creation["sourceResourceId"], "disks")
        if creation["createOption"] != "Copy" or not body["properties"].get("incremental"):
            raise AzureFault("InvalidParameter", "Here: incremental copies.")
        thing = self._make(path, body, "snapshots")
        assert source.blob is not None
        thing.blob = source.blob.copy()
        thing.properties.update(
            diskSizeBytes=len(source.blob.disk), incrementalSnapshotFamilyId=source.blob.family, diskState="Unattached"
        )
        return self.begin(thing, self._ready(thing, completionPercent=100.0))

    # The gallery.

    def put_galleries(self, path: str, body: dict[str, Any]) -> Operation | Thing:
        if path.lower() in self.things:
            return self.things[path.lower()]
        thing = self._make(path, body, "galleries")
        return self.begin(thing, self._ready(thing))

    def put_galleries_images(self, path: str, body: dict[str, Any]) -> Operation | Thing:
        self.get_now(path.rpartition("/images/")[0])
        if path.lower() in self.things:
            return self.things[path.lower()]
        identifier = body["properties"]["identifier"]
        if identifier in [t.properties.get("identifier") for t in self.things.values()]:
            raise AzureFault("Conflict", "Publisher, offer and sku are those of another image definition.", 409)
        thing = self._make(path, body, "galleries/images")
        return self.begin(thing, self._ready(thing))

    def put_galleries_images_versions(self, path: str, body: dict[str, Any]) -> Operation | Thing:
        self.get_now(path.rpartition("/versions/")[0])
        if path.lower() in self.things:
            return self.things[path.lower()]
        storage = body["properties"]["storageProfile"]
        for image in [storage["osDiskImage"], *storage.get("dataDiskImages", ())]:
            source = self._by_id(image["source"]["id"], "disks", "snapshots")
            if source.properties.get("diskState") != "Unattached":
                raise AzureFault("InvalidParameter", f"{source.id} is {source.properties.get('diskState')}.")
        thing = self._make(path, body, "galleries/images/versions")
        thing.blob = self._by_id(storage["osDiskImage"]["source"]["id"]).blob.copy()  # type: ignore[union-attr]
        return self.begin(thing, self._ready(thing))

    def delete_galleries_images(self, path: str, body: None) -> Operation | None:
        if path.lower() not in self.things:
            return None
        if any(other.startswith(f"{path.lower()}/") for other in self.things):
            raise AzureFault("CannotDeleteResource", "Can not delete before nested resources are deleted.", 409)
        return self.begin(self.get_now(path), lambda: self._remove(path))

    def delete_galleries_images_versions(self, path: str, body: None) -> Operation | None:
        if path.lower() not in self.things:
            return None
        return self.begin(self.get_now(path), lambda: self._remove(path))

    # Networks and VMs.

    def put_networkInterfaces(self, path: str, body: dict[str, Any]) -> Operation | Thing:
        if path.lower() in self.things:
            return self.things[path.lower()]
        for each in body["properties"]["ipConfigurations"]:
            if each["properties"]["subnet"]["id"].lower() != SUBNET.lower():
                raise AzureFault("InvalidResourceReference", f"{each['properties']['subnet']['id']} was not found.")
            each["properties"]["privateIPAddress"] = f"10.0.0.{3 + self._next()}"
        thing = self._make(path, body, "networkInterfaces", "Microsoft.Network")
        return self.begin(thing, self._ready(thing))

    def delete_networkInterfaces(self, path: str, body: None) -> Operation | None:
        if path.lower() not in self.things:
            return None
        thing = self.get_now(path)
        if "virtualMachine" in thing.properties:
            raise AzureFault("NicInUse", f"{path} is used by a virtual machine.", 400)
        return self.begin(thing, lambda: self._remove(path))

    def put_virtualMachines(self, path: str, body: dict[str, Any]) -> Operation | Thing:
        if path.lower() in self.things:
            return self.things[path.lower()]
        properties = body["properties"]
        if properties["hardwareProfile"]["vmSize"] not in SIZES:
            raise AzureFault("InvalidParameter", f"The value {properties['hardwareProfile']['vmSize']} is invalid.")
        if "osProfile" in properties:
            raise AzureFault("InvalidParameter", "Parameter 'osProfile' is not allowed: the image is specialized.")
        storage = properties["storageProfile"]
        image = self._by_id(storage["imageReference"]["id"], "galleries/images/versions")
        if image.properties["provisioningState"] != "Succeeded":
            raise AzureFault("GalleryImageNotReady", f"{image.id} is {image.properties['provisioningState']}.", 409)
        luns = [data["lun"] for data in image.properties["storageProfile"].get("dataDiskImages", ())]
        if [disk["lun"] for disk in storage.get("dataDisks", ())] != luns:
            raise AzureFault("InvalidParameter", f"The image has data disks at {luns}.")
        nics = [self._by_id(nic["id"]) for nic in properties["networkProfile"]["networkInterfaces"]]
        if any("virtualMachine" in nic.properties for nic in nics):
            raise AzureFault("NicInUse", "The network interface is used by another virtual machine.", 400)
        thing = self._make(path, body, "virtualMachines")
        thing.properties.update(vmId="vm", timeCreated="2026-01-01T00:00:00+00:00")
        for nic in nics:
            nic.properties["virtualMachine"] = {"id": thing.id}
        sources = [image.blob, *(self._by_id(d["source"]["id"]).blob for d in _data_images(image))]
        for number, (disk, blob) in enumerate(zip([storage["osDisk"], *storage["dataDisks"]], sources, strict=True)):
            self._disk_of(thing, disk, blob.copy(), number)  # type: ignore[union-attr]
        self._power(thing, "starting")
        return self.begin(thing, lambda: self._running(thing))

    def _disk_of(self, machine: Thing, disk: dict[str, Any], blob: Blob, number: int) -> None:
        made = self._make(
            f"disks/{machine.told['name']}_disk{number}_{self._next():08x}",
            {"location": REGION, "properties": {"creationData": {"createOption": "FromImage"}}},
            "disks",
        )
        made.blob, blob.family = blob, made.id
        made.properties.update(diskSizeBytes=len(blob.disk), diskState="Attached", provisioningState="Succeeded")
        made.told["managedBy"] = machine.id
        disk["managedDisk"]["id"] = _capitals(made.id)
        disk["name"] = made.told["name"]

    def patch_virtualMachines(self, path: str, body: dict[str, Any]) -> Thing:
        thing = self.get_now(path)
        if thing.looks:
            raise AzureFault("Conflict", "The request failed due to conflict with a concurrent request.", 409)
        thing.told["tags"] = body["tags"]
        return thing

    def delete_virtualMachines(self, path: str, body: None) -> Operation | None:
        if path.lower() not in self.things:
            return None
        thing = self.get_now(path)
        operation = self.begin(thing, lambda: self._gone(path, thing))
        thing.properties["provisioningState"] = "Deleting"
        return operation

    def _gone(self, path: str, machine: Thing) -> None:
        del self.things[path.lower()]
        storage = machine.properties["storageProfile"]
        for disk in (storage["osDisk"], *storage["dataDisks"]):
            made = self._by_id(disk["managedDisk"]["id"])
            made.told.pop("managedBy")
            made.properties["diskState"] = "Unattached"
            if disk.get("deleteOption") == "Delete":
                self.things.pop(f"disks/{disk['name']}".lower())
        for nic in machine.properties["networkProfile"]["networkInterfaces"]:
            kept = self._by_id(nic["id"])
            del kept.properties["virtualMachine"]
            if nic["properties"].get("deleteOption") == "Delete":
                self.things.pop(f"networkinterfaces/{kept.told['name']}".lower())

    def post_virtualMachines_start(self, path: str, body: None) -> Operation:
        return self._turn(path, "starting", "running")

    def post_virtualMachines_deallocate(self, path: str, body: None) -> Operation:
        return self._turn(path, "deallocating", "deallocated")

    def post_virtualMachines_restart(self, path: str, body: None) -> Operation:
        return self._turn(path, "running", "running")

    def _turn(self, path: str, now: str, then: str) -> Operation:
        thing = self.get_now(path)
        operation = self.begin(thing, lambda: self._power(thing, then))
        self._power(thing, now)
        return operation

    def _running(self, thing: Thing) -> None:
        self._ready(thing)()
        self._power(thing, "running")

    def _power(self, thing: Thing, state: str) -> None:
        thing.told["power"] = state

    # For tests.

    def guest_writes(self, disk: str, index: int, data: bytes) -> None:
        blob = self._by_id(disk, "disks").blob
        assert blob is not None
        blob.put(index * BLOCK, data.ljust(BLOCK, b"\0"))

    def guest_trims(self, disk: str, index: int) -> None:
        blob = self._by_id(disk, "disks").blob
        assert blob is not None
        blob.clear(index * BLOCK, BLOCK)

    def content(self, id: str) -> dict[int, bytes]:
        blob = self._by_id(id).blob
        assert blob is not None
        cut = ((at // BLOCK, bytes(blob.disk[at : at + BLOCK])) for at in range(0, len(blob.disk), BLOCK))
        zeros = bytes(BLOCK)  # compared: some disks have a GiB of them
        return {index: data.ljust(BLOCK, b"\0") for index, data in cut if data != zeros[: len(data)]}


def told(thing: Thing, view: bool = False) -> dict[str, Any]:
    """As Azure words it; a VM's power only when it is asked for, and its resource group in capitals."""
    answer = {key: value for key, value in thing.told.items() if key != "power"}
    if thing.told["type"] == "Microsoft.Compute/virtualMachines":
        answer["id"] = _capitals(thing.id)
        if view:
            statuses = [{"code": f"ProvisioningState/{thing.properties['provisioningState'].lower()}", "level": "Info"}]
            statuses.append({"code": f"PowerState/{thing.told['power']}", "level": "Info"})
            answer["properties"] = {**answer["properties"], "instanceView": {"statuses": statuses}}
    return answer


def skus() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [{"resourceType": "disks", "name": "StandardSSD_LRS", "locations": [REGION]}]
    for name, can in SIZES.items():
        row = {
            "resourceType": "virtualMachines",
            "name": name,
            "locations": [REGION],
            "capabilities": [{"name": key, "value": value} for key, value in can.items()],
            "restrictions": [],
        }
        if name == NOT_HERE:
            row["restrictions"] = [
                {"type": "Location", "values": [REGION], "reasonCode": "NotAvailableForSubscription"}
            ]
        rows.append(row)
    return rows


def usages() -> list[dict[str, Any]]:
    return [
        {"unit": "Count", "currentValue": used, "limit": limit, "name": {"value": name, "localizedValue": words}}
        for name, words, used, limit in (
            ("cores", "Total Regional vCPUs", 4, 10),
            ("virtualMachines", "Virtual Machines", 2, 25000),
            ("standardDSv5Family", "Standard DSv5 Family vCPUs", 2, 10),
            ("standardNCFamily", "Standard NC Family vCPUs", 0, 0),
        )
    ]


def _data_images(image: Thing) -> list[dict[str, Any]]:
    images: list[dict[str, Any]] = image.properties["storageProfile"].get("dataDiskImages", [])
    return images


def _capitals(id: str) -> str:
    return id.replace(f"/resourceGroups/{GROUP}/", f"/resourceGroups/{GROUP.upper()}/")

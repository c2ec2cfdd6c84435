"""Azure's virtual machines in our words. Stop is deallocate: a VM that is only powered off is billed on."""

from __future__ import annotations

import base64
from contextlib import suppress
from typing import Any

from clouds.azure.ids import ResourceId
from clouds.azure.images import data_disks
from clouds.azure.network import AzureNetwork
from clouds.azure.session import ONCE, AzureSession
from clouds.errors import Busy, Conflict, Final, NotFound
from clouds.tokens import TAG
from models.clouds import Instance, InstanceDisk, InstanceOrder, InstancePage, InstanceState

POWER: dict[str, InstanceState] = {
    "starting": "pending",
    "running": "running",
    "stopping": "stopping",
    "stopped": "stopped",
    "deallocating": "stopping",
    "deallocated": "stopped",
}
PROVISIONING: dict[str, InstanceState] = {"Creating": "pending", "Deleting": "terminating"}
REBOOT_TAG = "novacron-reboot"
"""Token of the last reboot."""
PART = "virtual_machines"


class AzureInstances:
    """Instances. Start, stop and terminate have no token because twice is once. A new VM's token is kept by its network
    interface, which is named after it; a reboot is remembered in a tag, set after it: a worker that dies between the
    two reboots twice. A deleted VM takes its interface and disks along, and is not found any more at once."""

    def __init__(self, session: AzureSession) -> None:
        self._azure = session
        self._network = AzureNetwork(session)

    def list_instances(self, page: str = "", limit: int = 100) -> InstancePage:
        """Those of the resource group, without addresses: Azure keeps them elsewhere, `get_instance` has them."""
        group = self._azure.settings.resource_group
        items, after = self._azure.cut(
            "list instances", PART, "list", group, page=page, limit=limit, expand="instanceView"
        )
        return InstancePage(items=tuple(self._instance(told) for told in items), next=after)

    def get_instance(self, instance: str) -> Instance:
        thing = self._find(instance)
        told = self._azure.call(f"find instance {thing.name}", PART, "get", *thing.path, expand="instanceView")
        network = told.network_profile
        links = [each.id for each in network.network_interfaces or ()] if network else []
        private, public = self._network.addresses(links)
        found = self._instance(told)
        return found.model_copy(update={"private_addresses": tuple(private), "public_addresses": tuple(public)})

    def create_instance(self, order: InstanceOrder, token: str) -> Instance:
        """The VM has the order's name: raises Conflict when another one has it."""
        image = self._azure.find(order.image, "galleries/images/versions")
        version = self._azure.call(f"find image {order.image}", "gallery_image_versions", "get", *image.path)
        if version.provisioning_state in ("Creating", "Updating"):
            raise Busy(f"image {order.image} is still being made", "It is tried again.")
        interface = self._network.interface(order, token)
        thing = self._azure.id("virtualMachines", order.name)
        there = self._azure.seek(f"look for instance {thing.name}", PART, *thing.path)
        if there is None:
            body = self._body(order, token, image, interface, data_disks(version))
            try:
                self._azure.call(f"run instance {order.name}", PART, "begin_create_or_update", *thing.path, body)
            except Final:
                self._network.discard(interface)
                raise
        elif (there.tags or {}).get(TAG) != token:
            self._network.discard(interface)
            raise Conflict(
                f"{thing.name} is a VM of this resource group already, and not of this step", "Choose another name."
            )
        return self.get_instance(str(thing))

    def start_instance(self, instance: str) -> Instance:
        thing = self._find(instance)
        self._azure.call(f"start {thing.name}", PART, "begin_start", *thing.path)
        return self.get_instance(instance)

    def stop_instance(self, instance: str) -> Instance:
        thing = self._find(instance)
        self._azure.call(f"stop {thing.name}", PART, "begin_deallocate", *thing.path)
        return self.get_instance(instance)

    def reboot_instance(self, instance: str, token: str) -> Instance:
        """Waits for the reboot to be done: Azure changes no tags meanwhile."""
        thing = self._find(instance)
        tags = dict(self._azure.call(f"find {thing.name}", PART, "get", *thing.path).tags or {})
        if tags.get(REBOOT_TAG) != token:
            self._azure.run(f"reboot {thing.name}", PART, "begin_restart", *thing.path, methods=ONCE)
            body = {"tags": {**tags, REBOOT_TAG: token}}
            self._azure.call(f"tag {thing.name}", PART, "begin_update", *thing.path, body)
        return self.get_instance(instance)

    def terminate_instance(self, instance: str) -> None:
        with suppress(NotFound):
            thing = self._find(instance)
            self._azure.call(f"terminate {thing.name}", PART, "begin_delete", *thing.path)

    def _find(self, instance: str) -> ResourceId:
        return self._azure.find(instance, "virtualMachines")

    def _body(
        self, order: InstanceOrder, token: str, image: ResourceId, interface: ResourceId, luns: list[int]
    ) -> dict[str, Any]:
        disk = {
            "createOption": "FromImage",
            "deleteOption": "Delete",
            "managedDisk": {"storageAccountType": self._azure.settings.disk_type},
        }
        properties: dict[str, Any] = {
            "hardwareProfile": {"vmSize": order.size},
            "storageProfile": {
                "imageReference": {"id": str(image)},
                "osDisk": disk,
                "dataDisks": [{"lun": lun, **disk} for lun in luns],
            },
            "networkProfile": {
                "networkInterfaces": [{"id": str(interface), "properties": {"primary": True, "deleteOption": "Delete"}}]
            },
        }
        if order.user_data:
            properties["userData"] = base64.b64encode(order.user_data.encode()).decode()
        return {
            "location": self._azure.settings.region,
            "tags": {"Name": order.name, **order.tags, TAG: token},
            **({"zones": [order.zone]} if order.zone else {}),
            "properties": properties,
        }

    def _instance(self, told: Any) -> Instance:
        thing = self._find(told.id)
        storage = told.storage_profile
        disks = []
        if storage and storage.os_disk and storage.os_disk.managed_disk:
            disks.append(self._disk("os", storage.os_disk, boot=True))
        if storage:
            disks += [self._disk(f"lun{disk.lun}", disk) for disk in storage.data_disks or () if disk.managed_disk]
        image = storage.image_reference.id if storage and storage.image_reference else ""
        return Instance(
            cloud="azure",
            id=str(thing),
            name=thing.name,
            state=_state(told),
            size=told.hardware_profile.vm_size if told.hardware_profile else "",
            region=told.location,
            zone=(told.zones or [""])[0],
            image=str(self._azure.find(image, "galleries/images/versions")) if image else "",
            launched=told.time_created,
            disks=tuple(disks),
            tags=dict(told.tags or {}),
        )

    def _disk(self, device: str, told: Any, boot: bool = False) -> InstanceDisk:
        return InstanceDisk(device=device, disk=str(self._azure.find(told.managed_disk.id, "disks")), boot=boot)


def _state(told: Any) -> InstanceState:
    """How it runs, unless it is only just coming or going."""
    if told.provisioning_state in PROVISIONING:
        return PROVISIONING[told.provisioning_state]
    for status in (told.instance_view.statuses if told.instance_view else None) or ():
        kind, _, value = (status.code or "").partition("/")
        if kind == "PowerState":
            return POWER.get(value, "unknown")
    return "unknown"

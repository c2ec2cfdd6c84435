"""OCI's instances in our words. A size is a shape, of a flexible one with OCPUs and GB: `VM.Standard.E5.Flex:2:16`."""

from __future__ import annotations

import base64
import contextlib
from typing import Any

from clouds.errors import Conflict, Invalid, NotFound, NotPermitted
from clouds.oci.errors import PERMISSION
from clouds.oci.session import OciSession
from clouds.tokens import TAG
from models.clouds import Instance, InstanceDisk, InstanceOrder, InstancePage, InstanceState

STATES: dict[str, InstanceState] = {
    "PROVISIONING": "pending",
    "STARTING": "pending",
    "RUNNING": "running",
    "STOPPING": "stopping",
    "STOPPED": "stopped",
    "CREATING_IMAGE": "stopping",
    "TERMINATING": "terminating",
    "TERMINATED": "terminated",
}
REBOOT_TAG = "novacron-reboot"
"""Token of the last reboot."""
LARGEST_PAGE = 1000


class OciInstances:
    """Instances. Their addresses and disks are told by `get_instance` only: Oracle keeps them apart from the list."""

    def __init__(self, session: OciSession) -> None:
        self._oci = session

    def list_instances(self, page: str = "", limit: int = 100) -> InstancePage:
        """Of the compartment, those terminated of late too. Oracle takes up to 1000 as `limit`."""
        more = {"page": page} if page else {}
        answer = self._list("list instances", limit=min(max(limit, 1), LARGEST_PAGE), **more)
        return InstancePage(items=tuple(map(self._instance, answer.data)), next=answer.next_page or "")

    def get_instance(self, instance: str) -> Instance:
        told = self._oci.call(f"find instance {instance}", "compute", "get_instance", instance).data
        found = self._instance(told)
        if found.state in ("terminating", "terminated"):
            return found
        compartment, where = self._oci.settings.compartment, told.availability_domain
        vnics = self._oci.call(
            f"find networks of {instance}", "compute", "list_vnic_attachments", compartment, instance_id=instance
        ).data
        networks = [
            self._oci.call(f"read network {vnic.vnic_id}", "network", "get_vnic", vnic.vnic_id).data
            for vnic in vnics
            if vnic.lifecycle_state == "ATTACHED"
        ]
        what = f"find disks of {instance}"
        boot = self._oci.call(
            what, "compute", "list_boot_volume_attachments", where, compartment, instance_id=instance
        ).data
        data = self._oci.call(what, "compute", "list_volume_attachments", compartment, instance_id=instance).data
        disks = [InstanceDisk(device="boot", disk=disk.boot_volume_id, boot=True) for disk in boot]
        disks += [InstanceDisk(device=(disk.device or "")[:64], disk=disk.volume_id) for disk in data]
        return found.model_copy(
            update={
                "private_addresses": tuple(network.private_ip for network in networks if network.private_ip),
                "public_addresses": tuple(network.public_ip for network in networks if network.public_ip),
                "disks": tuple(disks),
            }
        )

    def create_instance(self, order: InstanceOrder, token: str) -> Instance:
        """Oracle knows a retry token for a day; after that the tag on an instance of this name does its work."""
        earlier = self._list(f"look for {order.name}", display_name=order.name).data
        for told in earlier:
            if (told.freeform_tags or {}).get(TAG) == token and told.lifecycle_state != "TERMINATED":
                return self._instance(told)
        request = self._request(order, token)
        made = self._oci.call(f"launch {order.name}", "compute", "launch_instance", request, opc_retry_token=token).data
        if made.display_name != order.name:
            raise Conflict(f"the token made {made.display_name} already", "Use another step's token for another one.")
        return self._instance(made)

    def start_instance(self, instance: str) -> Instance:
        return self._act(instance, "START", ("running", "pending"))

    def stop_instance(self, instance: str) -> Instance:
        """The guest is asked; Oracle cuts it off after 15 minutes."""
        return self._act(instance, "SOFTSTOP", ("stopped", "stopping"))

    def reboot_instance(self, instance: str, token: str) -> Instance:
        """By reset: the guest is not asked. Remembered by retry token for a day, and by tag."""
        what = f"reboot {instance}"
        told = self._oci.call(what, "compute", "get_instance", instance).data
        tags = dict(told.freeform_tags or {})
        if tags.get(REBOOT_TAG) != token:
            self._oci.call(what, "compute", "instance_action", instance, "RESET", opc_retry_token=token)
            change = self._oci.model("compute", "UpdateInstanceDetails", freeform_tags={**tags, REBOOT_TAG: token})
            self._oci.call(f"tag {instance}", "compute", "update_instance", instance, change)
        return self.get_instance(instance)

    def terminate_instance(self, instance: str) -> None:
        """Its boot volume goes with it."""
        with contextlib.suppress(NotFound):
            found = self._oci.call(f"find instance {instance}", "compute", "get_instance", instance).data
            if STATES.get(found.lifecycle_state) not in ("terminating", "terminated"):
                self._oci.call(
                    f"terminate {instance}", "compute", "terminate_instance", instance, preserve_boot_volume=False
                )

    def _act(self, instance: str, action: str, done: tuple[InstanceState, ...]) -> Instance:
        what = f"{action.lower()} {instance}"
        found = self._oci.call(what, "compute", "get_instance", instance).data
        if STATES.get(found.lifecycle_state) not in done:
            self._oci.call(what, "compute", "instance_action", instance, action)
        return self.get_instance(instance)

    def _list(self, what: str, **more: Any) -> Any:
        compartment = self._oci.settings.compartment
        try:
            return self._oci.call(what, "compute", "list_instances", compartment, **more)
        except NotFound as error:
            raise NotPermitted(error.what, PERMISSION, error.code) from error

    def _request(self, order: InstanceOrder, token: str) -> Any:
        settings = self._oci.settings
        shape, flexible = _shape(order.size)
        optional: dict[str, Any] = {}
        if flexible:
            optional["shape_config"] = self._oci.model("compute", "LaunchInstanceShapeConfigDetails", **flexible)
        if order.user_data:
            optional["metadata"] = {"user_data": base64.b64encode(order.user_data.encode()).decode()}
        return self._oci.model(
            "compute",
            "LaunchInstanceDetails",
            availability_domain=order.zone or settings.availability_domain,
            compartment_id=settings.compartment,
            display_name=order.name,
            shape=shape,
            freeform_tags={**order.tags, TAG: token},
            source_details=self._oci.model("compute", "InstanceSourceViaImageDetails", image_id=order.image),
            create_vnic_details=self._oci.model(
                "compute",
                "CreateVnicDetails",
                subnet_id=order.subnet or settings.subnet,
                assign_public_ip=settings.public_address,
                nsg_ids=list(order.security_groups),
            ),
            **optional,
        )

    def _instance(self, told: Any) -> Instance:
        config = told.shape_config
        flexible = told.shape.endswith(".Flex") and config is not None
        return Instance(
            cloud="oci",
            id=told.id,
            name=told.display_name or "",
            state=STATES.get(told.lifecycle_state, "unknown"),
            size=f"{told.shape}:{config.ocpus:g}:{config.memory_in_gbs:g}" if flexible else told.shape,
            region=self._oci.settings.region,
            zone=told.availability_domain,
            image=told.image_id or "",
            launched=told.time_created,
            tags=dict(told.freeform_tags or {}),
        )


def _shape(size: str) -> tuple[str, dict[str, float]]:
    """Raises Invalid."""
    shape, *numbers = size.split(":")
    if not numbers:
        return shape, {}
    try:
        ocpus, memory = map(float, numbers)
    except ValueError:
        raise Invalid(f"size {size!r} is no shape", "Such as VM.Standard2.1, or VM.Standard.E5.Flex:2:16.") from None
    return shape, {"ocpus": ocpus, "memory_in_gbs": memory}

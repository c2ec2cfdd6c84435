"""Compute Engine's instances in our words. An id is `<zone>/<name>`; what Google calls TERMINATED is stopped."""

from __future__ import annotations

import contextlib
from typing import Any

from clouds.errors import Conflict, NotFound
from clouds.gcp import names
from clouds.gcp.images import GcpImages
from clouds.gcp.session import GcpSession
from clouds.tokens import TAG
from models.clouds import Instance, InstanceDisk, InstanceOrder, InstancePage, InstanceState

STATES: dict[str, InstanceState] = {
    "PENDING": "pending",
    "PROVISIONING": "pending",
    "STAGING": "pending",
    "RUNNING": "running",
    "PENDING_STOP": "stopping",
    "STOPPING": "stopping",
    "SUSPENDING": "stopping",
    "STOPPED": "stopped",
    "TERMINATED": "stopped",
    "SUSPENDED": "paused",
    "DEPROVISIONING": "terminating",
}
IMAGE_LABEL = "novacron-image"
REBOOT_LABEL = "novacron-reboot"
"""Token of the last reboot."""
LARGEST_PAGE = 500
USER_DATA = "user-data"
"""Where cloud-init looks."""


class GcpInstances:
    """Instances. Create, start and reboot return when Google has done them, because what stands in their way (a quota,
    a zone that is full) is told at the end only; stop and terminate when Google has accepted them."""

    def __init__(self, session: GcpSession, images: GcpImages) -> None:
        self._gcp = session
        self._images = images

    def list_instances(self, page: str = "", limit: int = 100) -> InstancePage:
        """Of the region's zones. Google takes up to 500 as `limit`; a page may hold fewer, even none."""
        return self._list("list instances", "", page, limit)

    def get_instance(self, instance: str) -> Instance:
        return self._instance(self._told(instance))

    def create_instance(self, order: InstanceOrder, token: str) -> Instance:
        zone = order.zone or self._gcp.settings.zone
        name = names.resource(order.name, token)
        earlier = self._list(f"look for {name}", f"labels.{TAG}={token}", "", 1).items
        if not earlier:
            what = f"create instance {name}"
            request = self._request(order, name, zone, token)
            with contextlib.suppress(Conflict):  # the name is taken: judged below
                begun = self._gcp.begin(what, token, "Instances", "insert_unary", zone=zone, instance_resource=request)
                self._gcp.finish(what, begun)
            earlier = (self.get_instance(f"{zone}/{name}"),)
        found = earlier[0]
        if found.tags.get(TAG) != token or found.id != f"{zone}/{name}":
            raise Conflict(
                f"{found.id} has the name or the token of {order.name} already",
                "Use another name and another step's token, or remove it.",
            )
        return found

    def start_instance(self, instance: str) -> Instance:
        if self.get_instance(instance).state not in ("running", "pending"):
            what = f"start {instance}"
            self._gcp.finish(what, self._call(what, "start_unary", instance))
        return self.get_instance(instance)

    def stop_instance(self, instance: str) -> Instance:
        if self.get_instance(instance).state not in ("stopped", "stopping"):
            self._call(f"stop {instance}", "stop_unary", instance)
        return self.get_instance(instance)

    def reboot_instance(self, instance: str, token: str) -> Instance:
        """By reset: the guest is not asked. Remembered by request id for an hour, and by label."""
        if self.get_instance(instance).tags.get(REBOOT_LABEL) != token:
            zone, name = names.split(instance, self._gcp.settings.zone)
            what = f"reboot {instance}"
            begun = self._gcp.begin(what, token, "Instances", "reset_unary", zone=zone, instance=name)
            self._gcp.finish(what, begun)
            told = self._told(instance)
            labels = {**told.labels, REBOOT_LABEL: token}
            request = {"label_fingerprint": told.label_fingerprint, "labels": labels}
            what = f"label {instance}"
            self._gcp.finish(
                what, self._call(what, "set_labels_unary", instance, instances_set_labels_request_resource=request)
            )
        return self.get_instance(instance)

    def terminate_instance(self, instance: str) -> None:
        """Its disks go with it, as they came."""
        with contextlib.suppress(NotFound):
            self._call(f"delete {instance}", "delete_unary", instance)

    def _list(self, what: str, rule: str, page: str, limit: int) -> InstancePage:
        region = self._gcp.settings.region
        told = self._gcp.compute(
            what,
            "Instances",
            "aggregated_list",
            filter=rule or f'zone eq ".*/zones/{region}-[a-z0-9]*"',
            max_results=min(max(limit, 1), LARGEST_PAGE),
            page_token=page,
        )
        found = [self._instance(item) for scope in told.items.values() for item in scope.instances]
        return InstancePage(items=tuple(i for i in found if i.region == region), next=told.next_page_token)

    def _told(self, instance: str) -> Any:
        return self._call(f"find instance {instance}", "get", instance)

    def _call(self, what: str, method: str, instance: str, **fields: Any) -> Any:
        zone, name = names.split(instance, self._gcp.settings.zone)
        return self._gcp.compute(what, "Instances", method, zone=zone, instance=name, **fields)

    def _request(self, order: InstanceOrder, name: str, zone: str, token: str) -> dict[str, Any]:
        settings = self._gcp.settings
        labels = {**order.tags, TAG: token}
        sources = [order.image]
        if "/" not in order.image:
            sources += self._images.get_image(order.image).disks[1:]
            labels[IMAGE_LABEL] = order.image
        network: dict[str, Any] = {"network": f"projects/{settings.project}/global/networks/default"}
        if order.subnet:
            path = order.subnet if "/" in order.subnet else f"regions/{settings.region}/subnetworks/{order.subnet}"
            network = {"subnetwork": path}
        if settings.external_address:
            network["access_configs"] = [{"name": "External NAT", "type_": "ONE_TO_ONE_NAT"}]
        checked = names.labels(labels)
        return {
            "name": name,
            "description": f"NovaCron {order.name}",
            "machine_type": f"zones/{zone}/machineTypes/{order.size}",
            "labels": checked,
            "tags": {"items": list(order.security_groups)},
            "metadata": {"items": [{"key": USER_DATA, "value": order.user_data}] if order.user_data else []},
            "network_interfaces": [network],
            "disks": [
                {
                    "boot": place == 0,
                    "auto_delete": True,
                    "initialize_params": {
                        "source_image": names.image_path(settings.project, source),
                        "labels": {TAG: token},
                    },
                }
                for place, source in enumerate(sources)
            ],
        }

    def _instance(self, told: Any) -> Instance:
        zone = names.last(told.zone)
        networks = list(told.network_interfaces)
        return Instance(
            cloud="gcp",
            id=f"{zone}/{told.name}",
            name=told.description.removeprefix("NovaCron ") if TAG in told.labels else told.name,
            state=STATES.get(told.status, "unknown"),
            size=names.last(told.machine_type),
            region=zone.rpartition("-")[0],
            zone=zone,
            image=told.labels.get(IMAGE_LABEL, ""),
            private_addresses=tuple(network.network_i_p for network in networks if network.network_i_p),
            public_addresses=tuple(
                config.nat_i_p for network in networks for config in network.access_configs if config.nat_i_p
            ),
            launched=told.last_start_timestamp or told.creation_timestamp or None,
            disks=tuple(
                InstanceDisk(device=disk.device_name[:64], disk=f"{zone}/{names.last(disk.source)}", boot=disk.boot)
                for disk in told.disks
                if disk.source
            ),
            tags=dict(told.labels),
        )

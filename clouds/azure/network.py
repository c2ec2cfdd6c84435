"""The network interface of an instance. It is made before the VM, under a name made of the token, and goes with the VM:
so it is also where a token remembers what was ordered with it.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from typing import Any

from clouds.azure.ids import ResourceId
from clouds.azure.session import AzureSession
from clouds.errors import CloudError, Conflict, Invalid
from clouds.tokens import TAG, name
from models.clouds import InstanceOrder

ORDER_TAG = "novacron-order"
"""Digest of the order that the token came with."""


class AzureNetwork:
    def __init__(self, session: AzureSession) -> None:
        self._azure = session

    def interface(self, order: InstanceOrder, token: str) -> ResourceId:
        """Made, or found. Raises Conflict when the token came with another order."""
        thing = self._azure.id("networkInterfaces", name("novacron", token))
        digest = hashlib.sha256(order.model_dump_json().encode()).hexdigest()[:32]
        found = self._azure.seek(f"look for interface {thing.name}", "network_interfaces", *thing.path)
        if found is None:
            body = self._body(order, token, digest)
            found = self._azure.run(
                f"make interface {thing.name}", "network_interfaces", "begin_create_or_update", *thing.path, body
            )
        if (found.tags or {}).get(ORDER_TAG) != digest:
            raise Conflict(
                f"the token {token} came with another order before", "Give every instance a step of its own."
            )
        return thing

    def discard(self, thing: ResourceId) -> None:
        """Of a VM that did not come to be."""
        with suppress(CloudError):
            self._azure.call(f"delete {thing.name}", "network_interfaces", "begin_delete", *thing.path)

    def addresses(self, ids: list[str]) -> tuple[list[str], list[str]]:
        """(private, public) of these interfaces, those of the first one first."""
        private, public = list[str | None](), list[str | None]()
        for text in ids:
            thing = self._azure.find(text, "networkInterfaces")
            told = self._azure.seek(
                f"find interface {thing.name}",
                "network_interfaces",
                *thing.path,
                expand="IPConfigurations/PublicIPAddress",
            )
            for each in told.ip_configurations or () if told else ():
                private.append(each.private_ip_address)
                public.append(each.public_ip_address.ip_address if each.public_ip_address else None)
        return [each for each in private if each], [each for each in public if each]

    def _body(self, order: InstanceOrder, token: str, digest: str) -> dict[str, Any]:
        subnet = order.subnet or self._azure.settings.subnet
        if not subnet:
            raise Invalid(
                f"the order of {order.name} names no subnet, and Azure has no default network",
                "Give InstanceOrder.subnet or AzureSettings.subnet the resource id of one.",
            )
        if len(order.security_groups) > 1:
            raise Invalid(
                f"the order of {order.name} has {len(order.security_groups)} security groups, and Azure takes one",
                "Put their rules into one network security group.",
            )
        address = {"name": "primary", "properties": {"primary": True, "subnet": {"id": subnet}}}
        rules = {"networkSecurityGroup": {"id": order.security_groups[0]}} if order.security_groups else {}
        return {
            "location": self._azure.settings.region,
            "tags": {"Name": order.name, TAG: token, ORDER_TAG: digest},
            "properties": {"ipConfigurations": [address], **rules},
        }

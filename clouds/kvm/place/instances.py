"""The host's VMs as instances. All are listed; only those made here, by the mark in their definition, are changed.

An instance's uuid is its token, so libvirt itself knows it again. It is defined with a mark that names order, image and
size; volumes are whole copies of the image's disks, each made under another name first. A process that dies between
two steps leaves what the next attempt goes on with.
"""

from __future__ import annotations

import hashlib
import os
import time
import uuid
import xml.etree.ElementTree as ET
from datetime import UTC, datetime

from clouds.disks.images import convert
from clouds.errors import Conflict, Invalid, NotFound, NotPermitted
from clouds.kvm import leaving, stop
from clouds.kvm.connection import NO_DOMAIN, Domain, Session, code_of
from clouds.kvm.inventory import STATES, qemu_owner
from clouds.kvm.labels import CONFIG, ELEMENT, LIVE, NO_METADATA
from clouds.kvm.place.domain import KEY, NAMESPACE, Mark, compose, mark_xml
from clouds.kvm.place.images import KvmImages
from clouds.kvm.place.session import Libvirt
from clouds.kvm.place.store import Store
from clouds.tokens import TAG
from models.clouds import CloudImage, Instance, InstanceDisk, InstanceOrder, InstancePage, InstanceState, KvmSize
from models.migration import VmRef

OFF = ("shutoff", "crashed")
LOOK_EVERY = 0.2
_STATES: dict[str, InstanceState] = {
    "running": "running",
    "blocked": "running",
    "paused": "paused",
    "suspended": "paused",
    "shutdown": "stopping",
    "shutoff": "stopped",
    "crashed": "stopped",
}


class KvmInstances:
    def __init__(self, libvirt: Libvirt, store: Store, images: KvmImages) -> None:
        self._libvirt = libvirt
        self._store = store
        self._images = images

    def list_instances(self, page: str = "", limit: int = 100) -> InstancePage:
        """By uuid; `next` is the last one's. Made meanwhile, a VM may be missed, none is told twice."""
        most = min(max(limit, 1), 1000)

        def ask(session: Session) -> list[Instance]:
            domains = session.call("list instances", lambda connection: connection.listAllDomains())
            found = [self._instance(each) for each in domains if each.UUIDString() > page]
            return sorted((each for each in found if each), key=lambda each: each.id)[: most + 1]

        items = self._libvirt.call("list instances", ask)
        return InstancePage(items=tuple(items[:most]), next=items[most - 1].id if len(items) > most else "")

    def get_instance(self, instance: str) -> Instance:
        def ask(session: Session) -> Instance:
            told = self._instance(_find(session, instance))
            if told is None:
                raise _none(instance)
            return told

        return self._libvirt.call(f"look at {instance}", ask)

    def create_instance(self, order: InstanceOrder, token: str) -> Instance:
        """Returns when the image's disks are copied and the VM runs."""
        self._refuse(order)
        image, size = self._images.get_image(order.image), self._size(order.size)
        digest = hashlib.sha256(order.model_dump_json().encode()).hexdigest()
        self._libvirt.call(
            f"create {order.name}", lambda session: self._make(session, order, token, image, size, digest)
        )
        return self.get_instance(token)

    def start_instance(self, instance: str) -> Instance:
        def act(session: Session) -> None:
            domain = _ours(session, instance)
            if _state(domain) in OFF:
                session.call(f"start {instance}", lambda _: domain.create())

        self._libvirt.call(f"start {instance}", act)
        return self.get_instance(instance)

    def stop_instance(self, instance: str) -> Instance:
        """Its power button, and after KvmSettings.stop_within its power: QEMU still writes its caches out."""

        def act(session: Session) -> None:
            vm = _ref(_ours(session, instance))
            until = time.monotonic() + self._libvirt.settings.stop_within
            stop.press(session, vm)
            while not leaving.is_off(session, vm):
                if time.monotonic() > until:
                    leaving.cut_power(session, vm)
                    return
                time.sleep(LOOK_EVERY)

        self._libvirt.call(f"stop {instance}", act)
        return self.get_instance(instance)

    def reboot_instance(self, instance: str, token: str) -> Instance:
        """A reset. Remembered in the mark, after it: a worker that dies between the two reboots twice."""

        def act(session: Session) -> None:
            domain = _ours(session, instance)
            mark = _mark(domain)
            if mark is not None and mark.reboot != token:
                session.call(f"reboot {instance}", lambda _: domain.reset())
                _remember(session, domain, mark.model_copy(update={"reboot": token}))

        self._libvirt.call(f"reboot {instance}", act)
        return self.get_instance(instance)

    def terminate_instance(self, instance: str) -> None:
        """With its volumes, for good."""

        def act(session: Session) -> None:
            try:
                domain = _ours(session, instance)
            except NotFound:
                return
            if _state(domain) not in OFF:
                session.call(f"end {instance}", lambda _: domain.destroy())
            images = tuple(str(path) for path in self._store.volumes(domain.UUIDString()))
            leaving.remove(session, _ref(domain), images)

        self._libvirt.call(f"terminate {instance}", act)

    # Making one.

    def _refuse(self, order: InstanceOrder) -> None:
        if order.user_data:
            raise Invalid("user_data is not built for KVM hosts", "Prepare the image, or its network's DHCP.")
        if order.security_groups:
            raise Invalid("a KVM host has no security groups", "Use a libvirt network with a filter.")
        if order.zone not in ("", self._libvirt.settings.region):
            raise Invalid(
                f"zone {order.zone} is not {self._libvirt.settings.region}", "Name the host's region, or none."
            )

    def _size(self, name: str) -> KvmSize:
        for size in self._libvirt.settings.sizes:
            if size.name == name:
                return size
        raise Invalid(f"there is no size {name}", "Choose one that list_sizes tells, or add it to the settings.")

    def _make(
        self, session: Session, order: InstanceOrder, token: str, image: CloudImage, size: KvmSize, digest: str
    ) -> None:
        vm = VmRef(vm=order.name, uuid=token)
        domain = session.find(vm)
        if domain is None:
            if session.find(VmRef(vm=order.name)) is not None:
                raise Conflict(f"this host has a VM {order.name} already", "Choose another name.")
            mark = Mark(order=digest, image=image.id, size=size.name, tags={**order.tags, TAG: token})
            volumes = [self._volume(session, token, disk, number) for number, disk in enumerate(image.disks)]
            network = order.subnet or self._libvirt.settings.network
            accelerator = self._libvirt.settings.accelerator
            xml = compose(order.name, token, size, volumes, image.firmware, network, accelerator, mark)
            session.call(f"define {order.name}", lambda connection: connection.defineXML(xml))
            domain = session.get(vm)
        found = _mark(domain)
        if found is None or found.order != digest:
            raise Conflict(f"VM {domain.name()} has the token of another order", "Use another step's token.")
        if found.launched is None:
            if _state(domain) in OFF:
                session.call(f"start {order.name}", lambda _: domain.create())
            _remember(session, domain, found.model_copy(update={"launched": datetime.now(UTC)}))

    def _volume(self, session: Session, instance: str, disk: str, number: int) -> str:
        path = self._store.volume(instance, _target(number))
        if not path.exists():
            convert(self._store.raw(disk), "raw", path, "qcow2")
            user, group = qemu_owner(session)
            path.chmod(0o600)
            os.chown(path, user, group)
        return str(path)

    # Telling of one.

    def _instance(self, domain: Domain) -> Instance | None:
        """None for one that went away meanwhile."""
        try:
            mark, state = _mark(domain), STATES[domain.state()[0]]
            root = ET.fromstring(domain.XMLDesc(0))
        except Exception as error:
            if code_of(error) == NO_DOMAIN:
                return None
            raise
        id = domain.UUIDString()
        targets = [
            target.get("dev", "")
            for disk in root.iterfind("devices/disk")
            if disk.get("device", "disk") == "disk" and (target := disk.find("target")) is not None
        ]
        return Instance(
            cloud="kvm",
            id=id,
            name=domain.name()[:256],
            state=_STATES.get(state, "unknown"),
            size=mark.size if mark else "",
            region=self._libvirt.settings.region,
            image=mark.image if mark else "",
            private_addresses=_addresses(domain),
            launched=mark.launched if mark else None,
            disks=tuple(
                InstanceDisk(device=target, disk=f"{id}/{target}", boot=number == 0)
                for number, target in enumerate(targets)
            ),
            tags=mark.tags if mark else {},
        )


def _find(session: Session, instance: str) -> Domain:
    try:
        id = str(uuid.UUID(instance))
    except ValueError:
        raise _none(instance) from None
    domain = session.find(VmRef(vm="vm", uuid=id))
    if domain is None:
        raise _none(instance)
    return domain


def _none(instance: str) -> NotFound:
    return NotFound(f"there is no instance {instance}", "Check the id and the region.")


def _ours(session: Session, instance: str) -> Domain:
    domain = _find(session, instance)
    if _mark(domain) is None:
        raise NotPermitted(
            f"VM {domain.name()} was not made by NovaCron: it is only looked at", "Handle it with virsh."
        )
    return domain


def _ref(domain: Domain) -> VmRef:
    return VmRef(vm=domain.name(), uuid=domain.UUIDString())


def _state(domain: Domain) -> str:
    return STATES[domain.state()[0]]


def _mark(domain: Domain) -> Mark | None:
    try:
        text = domain.metadata(ELEMENT, NAMESPACE, 0)
    except Exception as error:
        if code_of(error) == NO_METADATA:
            return None
        raise
    try:
        return Mark.model_validate_json(ET.fromstring(text).text or "")
    except (ET.ParseError, ValueError):
        return None  # somebody else's


def _remember(session: Session, domain: Domain, mark: Mark) -> None:
    flags = CONFIG | (0 if _state(domain) in OFF else LIVE)
    session.call("mark the instance", lambda _: domain.setMetadata(ELEMENT, mark_xml(mark), KEY, NAMESPACE, flags))


def _target(number: int) -> str:
    return f"vd{chr(ord('a') + number)}"


def _addresses(domain: Domain) -> tuple[str, ...]:
    """Of libvirt's own DHCP, else as the host's neighbour table has them. The guest is not asked."""
    found: list[str] = []
    for source in (0, 2):
        try:
            told = domain.interfaceAddresses(source, 0)
        except Exception as error:
            if not code_of(error):
                raise
            continue  # it is off, or has no such network
        found += [each["addr"] for interface in told.values() for each in interface.get("addrs") or ()]
    return tuple(dict.fromkeys(found))[:64]

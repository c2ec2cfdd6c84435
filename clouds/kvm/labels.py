"""What people say of a VM, kept in its own definition: `<metadata>` of the domain's XML, in a namespace of ours.

    <novacron:labels xmlns:novacron="urn:novacron:labels:1">
      <novacron:label key="tier" value="gold"/>
    </novacron:labels>

libvirt carries it along when the VM moves, and keeps it with the definition of a persistent one.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence

from pydantic import TypeAdapter, ValidationError

from clouds.kvm.connection import Domain, Session, code_of
from clouds.kvm.errors import Refused
from models.base import Labels
from models.migration import VmRef

NAMESPACE = "urn:novacron:labels:1"
PREFIX = "novacron"
ELEMENT, LIVE, CONFIG = 2, 1, 2
"""libvirt's VIR_DOMAIN_METADATA_ELEMENT, and what a change affects."""
NO_METADATA = 80
MOST = 32
_LABELS: TypeAdapter[dict[str, str]] = TypeAdapter(Labels)
_OFF = (0, 5)
"""libvirt's states of a VM that does not run: only its definition can be changed."""


def labels_of(domain: Domain) -> dict[str, str]:
    """The VM's labels; what somebody else wrote there and is none is left out."""
    try:
        text = domain.metadata(ELEMENT, NAMESPACE, 0)
    except Exception as error:
        if code_of(error) == NO_METADATA:
            return {}
        raise
    return parse(text)


def parse(text: str) -> dict[str, str]:
    try:
        found = ET.fromstring(text)
    except ET.ParseError:
        return {}
    labels: dict[str, str] = {}
    for label in found:
        key, value = label.get("key", ""), label.get("value", "")
        if label.tag.rpartition("}")[2] == "label" and _fits({key: value}) and len(labels) < MOST:
            labels[key] = value
    return labels


def compose(labels: Mapping[str, str]) -> str:
    root = ET.Element("labels")
    for key, value in sorted(labels.items()):
        ET.SubElement(root, "label", key=key, value=value)
    return ET.tostring(root, encoding="unicode")


def change(session: Session, vm: VmRef, give: Mapping[str, str], take: Sequence[str]) -> dict[str, str]:
    """Give the VM these labels and take those; all it has then. Again is the same. Raises NotFound, Refused."""
    domain = session.get(vm)
    running = domain.state()[0] not in _OFF
    has = session.call(f"read the labels of VM {vm.vm}", lambda _: labels_of(domain))
    wanted = {key: value for key, value in {**has, **give}.items() if key not in take}
    if len(wanted) > MOST:
        raise Refused(f"{vm.vm} would have {len(wanted)} labels, and {MOST} are the most", "Take some off.")
    flags = (LIVE if running else 0) | (CONFIG if domain.isPersistent() else 0)
    session.call(
        f"label VM {vm.vm}",
        lambda _: domain.setMetadata(ELEMENT, compose(wanted) if wanted else None, PREFIX, NAMESPACE, flags),
    )
    return session.call(f"read the labels of VM {vm.vm}", lambda _: labels_of(domain))


def _fits(labels: dict[str, str]) -> bool:
    try:
        _LABELS.validate_python(labels)
    except ValidationError:
        return False
    return True

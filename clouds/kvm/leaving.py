"""A VM that leaves this host for a cloud: what it is made of, its stop for good, and its return if the move fails.

Stopped for good means: shut off, and libvirt does not start it with the host either (autostart off). A guest is asked
to shut down; only an order that says so cuts its power, and then QEMU still writes its caches out.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

from clouds.kvm import stop
from clouds.kvm.connection import Session
from clouds.kvm.errors import Ambiguous, Refused
from clouds.kvm.inventory import STATES
from models.clouds import Firmware
from models.migration import VmRef

GRACEFUL = 1
"""VIR_DOMAIN_DESTROY_GRACEFUL: QEMU ends by SIGTERM and flushes, or the call fails."""
OFF = ("shutoff", "crashed")
UNDEFINE = 2 | 4 | 16
"""With its snapshots' and checkpoints' metadata, and its NVRAM."""


def firmware(domain_xml: str) -> Firmware:
    system = ET.fromstring(domain_xml).find("os")
    if system is None:
        return "bios"
    loader = system.find("loader")
    flash = loader is not None and loader.get("type") == "pflash"
    return "uefi" if system.get("firmware") == "efi" or flash else "bios"


def kernel_from_host(domain_xml: str) -> bool:
    """The VM boots a kernel file of its host: its disk may have no boot loader."""
    return ET.fromstring(domain_xml).findtext("os/kernel", "") != ""


def is_off(session: Session, vm: VmRef) -> bool:
    domain = session.get(vm)
    return STATES[session.call(f"look at VM {vm.vm}", lambda _: domain.state())[0]] in OFF


def hold(session: Session, vm: VmRef) -> None:
    """From now on libvirt does not start it by itself."""
    domain = session.get(vm)
    if not domain.isPersistent():
        raise Refused(
            f"VM {vm.vm} is transient: this host would forget it when it stops; it was not touched",
            "Define it first (virsh dumpxml, virsh define).",
        )
    session.call(f"take autostart from VM {vm.vm}", lambda _: domain.setAutostart(0))


def ask_to_stop(session: Session, vm: VmRef) -> bool:
    """Press its power button; True once it is off."""
    return stop.press(session, vm)


def cut_power(session: Session, vm: VmRef) -> None:
    domain = session.get(vm)
    if not is_off(session, vm):
        session.call(f"stop VM {vm.vm}", lambda _: domain.destroyFlags(GRACEFUL))


def start_again(session: Session, vm: VmRef, autostart: bool, run: bool = True) -> None:
    """Let it run here again, if it is to. Raises Ambiguous when it is in a state in which that says nothing."""
    domain = session.get(vm)
    state = STATES[session.call(f"look at VM {vm.vm}", lambda _: domain.state())[0]]
    if state in OFF and run:
        session.call(f"start VM {vm.vm}", lambda _: domain.create())
    elif state not in (*OFF, "running", "blocked"):
        raise Ambiguous(f"VM {vm.vm} is {state}, neither off nor running", "Look at it with virsh.")
    session.call(f"give autostart to VM {vm.vm}", lambda _: domain.setAutostart(int(autostart)))


def remove(session: Session, vm: VmRef, images: tuple[str, ...]) -> None:
    """Undefine a VM that is off, and delete these images of it. For good."""
    domain = session.find(vm)
    if domain is not None:
        if not is_off(session, vm):
            raise Refused(f"VM {vm.vm} runs on this host; nothing of it was removed", "Find out which copy is the VM.")
        session.call(f"undefine VM {vm.vm}", lambda _: domain.undefineFlags(UNDEFINE))
    for image in images:
        Path(image).unlink(missing_ok=True)

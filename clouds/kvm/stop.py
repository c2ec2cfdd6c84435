"""Shut a guest down in order, as its power button would. It is never killed: a guest that does not follow runs on."""

from __future__ import annotations

from clouds.kvm.connection import INVALID_OPERATION, NO_DOMAIN, Session, code_of
from clouds.kvm.errors import Refused
from clouds.kvm.inventory import STATES
from models.migration import VmRef


def press(session: Session, vm: VmRef) -> bool:
    """Ask the guest to shut down; True when it has. Refuses a VM that would be forgotten with its end."""
    domain = session.find(vm)
    if domain is None:
        return True
    state = STATES[session.call(f"look at VM {vm.vm}", lambda _: domain.state())[0]]
    if state in ("shutoff", "crashed"):
        return True
    if not domain.isPersistent():
        raise Refused(
            f"VM {vm.vm} is transient: this host would forget it when it stops; it was not touched",
            "Define it first (virsh dumpxml, virsh define), or stop it by hand.",
        )
    if state not in ("running", "blocked"):
        return False  # on its way down, or it cannot hear a button
    try:
        session.call(f"shut VM {vm.vm} down", lambda _: domain.shutdown())
    except Exception as error:
        if code_of(error) not in (NO_DOMAIN, INVALID_OPERATION):  # it went down between looking and asking
            raise
    return False


def stopped(session: Session, vm: VmRef) -> bool | None:
    """True once the VM has no process any more; None while it has."""
    domain = session.find(vm)
    if domain is None:
        return True
    state = STATES[session.call(f"look at VM {vm.vm}", lambda _: domain.state())[0]]
    return True if state in ("shutoff", "crashed") else None

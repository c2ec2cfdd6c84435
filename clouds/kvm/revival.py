"""Let a guest run again that a migration left paused on its source. Nothing else.

libvirt does this itself when a migration fails, so this is for the times it could not. The caller has to be certain
that the destination holds no copy. This host adds two proofs: no job of libvirt is open, and QEMU says `paused`. A QEMU
that handed its guest over says `postmigrate` or `finish-migrate`; it is never touched, as its guest may have run
elsewhere and changed its disks since.
"""

from __future__ import annotations

from clouds.kvm.connection import Session
from clouds.kvm.errors import Refused
from clouds.kvm.inventory import STATES, job_operation
from clouds.kvm.leftover import run_status
from models.migration import VmRef


def revive(session: Session, vm: VmRef) -> None:
    """Returns when the guest runs. Raises NotFound, or Refused when it is paused for another reason."""
    domain = session.get(vm)
    number = session.call(f"look at VM {vm.vm}", lambda _: domain.state()[0])
    state = STATES[number] if number < len(STATES) else "unknown"
    if state in ("running", "blocked"):
        return
    why_not = f"its state is {state}" if state != "paused" else ""
    if not why_not and (job := session.call(f"look at VM {vm.vm}", lambda _: job_operation(domain, state))):
        why_not = f"libvirt runs job {job} on it"
    if not why_not and (status := session.call(f"ask QEMU of {vm.vm}", lambda _: run_status(domain))) != "paused":
        why_not = f"QEMU says it is {status}"
    if why_not:
        raise Refused(
            f"VM {vm.vm} on this host is not simply paused: {why_not}; it was not touched",
            "Look on both hosts with `virsh domstate --reason` before you do anything by hand.",
        )
    session.call(f"resume VM {vm.vm}", lambda _: domain.resume())

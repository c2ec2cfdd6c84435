"""What is left on a source whose guest was handed over, with all its memory, and has not run since: remove it, or take
it back. libvirt does either itself when it hears how the move ended; this is for a libvirtd that was killed just then.

It is removed when the VM runs, or stands whole, at its destination. It is taken back when no other host has it; then it
must not have run elsewhere in between, so only after a move that leaves the VM paused at its destination as long as
its source lives (VIR_MIGRATE_PAUSED). What other hosts have is the caller's knowledge, and has to be certain. This host
adds two proofs, taken just before: no job of libvirt is open, and QEMU says `postmigrate`, which it says only after all
memory was sent, and only as long as its guest has not run since.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from clouds.kvm.connection import NO_DOMAIN, Domain, Session, code_of
from clouds.kvm.errors import HostUnavailable, Refused
from clouds.kvm.inventory import STATES, job_operation
from clouds.kvm.leftover import GONE_WITHIN, run_status
from models.host import VmState
from models.migration import VmRef

GONE = ("shutoff", "crashed")
"""States of a VM that is only defined."""


def remove_handed_over(
    session: Session, vm: VmRef, before: Callable[[], None] = lambda: None, within: float = GONE_WITHIN
) -> None:
    """Returns when no QEMU of the VM is here; a definition stays. Raises Refused when it may be alive. `before` is
    called when it is certain that it goes."""
    domain = session.find(vm)
    if domain is None:
        return
    try:
        state, why_not = session.call(f"look at VM {vm.vm}", lambda _: _look(domain))
        if state in GONE:
            return
        _refuse(vm, why_not)
        before()
        session.call(f"remove the handed over VM {vm.vm}", lambda _: domain.destroy())
        deadline = time.monotonic() + within
        while session.find(vm) and session.call(f"look at VM {vm.vm}", lambda _: _state(domain)) not in GONE:
            if time.monotonic() > deadline:
                raise HostUnavailable(
                    f"VM {vm.vm} is still here {within:.0f} s after it was removed", "It is tried again."
                )
            time.sleep(0.1)
    except Exception as error:
        if code_of(error) != NO_DOMAIN:
            raise


def take_back(session: Session, vm: VmRef, ends_paused: bool) -> None:
    """Returns when the guest runs here. `ends_paused`: the move that it was handed over in does not let it run
    elsewhere as long as this QEMU lives. Raises NotFound, or Refused when it may have run elsewhere."""
    domain = session.get(vm)
    state, why_not = session.call(f"look at VM {vm.vm}", lambda _: _look(domain))
    if state in ("running", "blocked"):
        return
    _refuse(vm, why_not or ("" if ends_paused else "its destination may have run it, and its disks have changed since"))
    session.call(f"resume VM {vm.vm}", lambda _: domain.resume())


def _refuse(vm: VmRef, why_not: str) -> None:
    if why_not:
        raise Refused(
            f"VM {vm.vm} on this host is not what a move handed over and nobody has run since: {why_not}; it was not "
            f"touched",
            "Look on both hosts with `virsh domstate --reason` before you do anything by hand.",
        )


def _state(domain: Domain) -> VmState:
    return STATES[domain.state()[0]]


def _look(domain: Domain) -> tuple[VmState, str]:
    """Its state, and why it must not be removed; empty when its guest was handed over for certain."""
    state = _state(domain)
    if state != "paused":
        return state, f"its state is {state}"
    if job := job_operation(domain, state):
        return state, f"libvirt runs job {job} on it"
    status = run_status(domain)
    return state, "" if status == "postmigrate" else f"QEMU says it is {status}"

"""Remove what is left on a source whose guest was handed over: a VM that can only have run elsewhere since.

libvirt does this itself when it hears that the destination has the VM; this is for a libvirtd that was killed just
then. That the VM runs, or stands whole, at its destination is the caller's knowledge, and has to be certain. This host
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
from models.migration import VmRef


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
        if state in ("shutoff", "crashed"):
            return
        if why_not:
            raise Refused(
                f"VM {vm.vm} on this host was not handed over: {why_not}; it was not touched",
                "Look on both hosts with `virsh domstate --reason` before you do anything by hand.",
            )
        before()
        session.call(f"remove the handed over VM {vm.vm}", lambda _: domain.destroy())
        deadline = time.monotonic() + within
        while session.call(f"look at VM {vm.vm}", lambda _: STATES[domain.state()[0]]) not in ("shutoff", "crashed"):
            if time.monotonic() > deadline:
                raise HostUnavailable(
                    f"VM {vm.vm} is still here {within:.0f} s after it was removed", "It is tried again."
                )
            time.sleep(0.1)
    except Exception as error:
        if code_of(error) != NO_DOMAIN:
            raise


def _look(domain: Domain) -> tuple[str, str]:
    """Its state, and why it must not be removed; empty when its guest was handed over for certain."""
    state = STATES[domain.state()[0]]
    if state != "paused":
        return state, f"its state is {state}"
    if job := job_operation(domain, state):
        return state, f"libvirt runs job {job} on it"
    status = run_status(domain)
    return state, "" if status == "postmigrate" else f"QEMU says it is {status}"

"""Remove what a failed incoming migration left on a destination: a paused VM that never ran here. Nothing else.

Either it has arrived whole and was never let run (`clouds.kvm.arrival` proves that), or libvirt keeps the VM paused for
a migration, and either its incoming job is still open or QEMU itself says that it has not run (`inmigrate`, or `paused`
without having run; a *source* that handed its guest over says `postmigrate`, and is never touched). That the VM lives
at the source is the caller's knowledge, and has to be certain before this is called.
"""

from __future__ import annotations

import json
import time

from clouds.kvm import arrival
from clouds.kvm.connection import NO_DOMAIN, Domain, Session, ask_qemu, code_of
from clouds.kvm.errors import HostUnavailable, Refused
from clouds.kvm.inventory import MIGRATION_IN, STATES, job_operation
from models.migration import VmRef

WAITING_TO_COME_IN = (2, 11)
"""libvirt's reasons of `paused`: migration, starting up."""
NEVER_RAN = ("inmigrate", "prelaunch", "paused")
"""QEMU's run states of a VM whose guest has not run on this host."""
GONE_WITHIN = 20.0
KEEP_NVRAM = 8
"""libvirt's virDomainUndefineFlags: nothing but the definition goes."""


def discard_incoming(session: Session, vm: VmRef, within: float = GONE_WITHIN) -> None:
    """Returns when the VM is not on this host. Raises Refused when it is anything but a leftover."""
    domain = session.find(vm)
    if domain is None:
        return
    try:
        why_not = session.call(f"look at VM {vm.vm}", lambda _: reason_to_keep(domain))
        if why_not:
            raise Refused(
                f"VM {vm.vm} on this host is no leftover of an incoming migration: {why_not}; it was not touched",
                "Look at it with `virsh list --all` and `virsh domjobinfo` before you do anything by hand.",
            )
        session.call(f"remove the leftover of VM {vm.vm}", lambda _: _remove(domain))
    except Exception as error:
        if code_of(error) == NO_DOMAIN:
            return  # it went away by itself, as it does when the source's libvirt gives up
        raise
    deadline = time.monotonic() + within
    while session.find(vm) is not None:
        if time.monotonic() > deadline:
            raise HostUnavailable(f"VM {vm.vm} is still here {within:.0f} s after it was removed", "It is tried again.")
        time.sleep(0.1)  # libvirt removes it just after destroy() returns; there is nothing to wait on


def undefine(session: Session, vm: VmRef) -> None:
    """Returns when a VM that is shut off here is not defined here either. One that has a process stays as it is."""
    domain = session.find(vm)
    if domain is not None and session.call(f"look at VM {vm.vm}", lambda _: not domain.isActive()):
        session.call(f"remove the definition of VM {vm.vm}", lambda _: domain.undefineFlags(KEEP_NVRAM))


def reason_to_keep(domain: Domain) -> str:
    """Why this VM must not be removed; empty when it is certain that its guest never ran here."""
    number, reason = domain.state()[:2]
    state = STATES[number]
    if (state, reason) == ("paused", arrival.PAUSED_BY_ORDER):
        return arrival.why_no_arrival(domain)
    if state != "paused" or reason not in WAITING_TO_COME_IN:
        return f"its state is {state} (reason {reason})"
    if domain.isPersistent():
        return "it is defined on this host"
    job = job_operation(domain, state)
    if job == MIGRATION_IN:
        return ""  # asking QEMU now would wait for that job
    if job:
        return f"libvirt runs job {job} on it"
    status = run_status(domain)
    return "" if status in NEVER_RAN else f"QEMU says it is {status}"


def _remove(domain: Domain) -> None:
    """A definition that came with it goes first: what is left then disappears with its process."""
    if domain.isPersistent():
        domain.undefineFlags(KEEP_NVRAM)
    domain.destroy()


def run_status(domain: Domain) -> str:
    """QEMU's own word for what the VM does (QMP query-status)."""
    return str(json.loads(ask_qemu(domain, '{"execute":"query-status"}'))["return"]["status"])

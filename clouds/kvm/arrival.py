"""A VM that has arrived here whole and waits to be let run: so ends a move that cannot switch to post-copy.

It is let run only when its source can never run it again, which is the caller's knowledge and has to be certain. What
this host adds: libvirt has ended the incoming job and keeps the VM paused by order (an incomplete one is paused *for
the migration*), QEMU says `paused` after a completed incoming migration (`inmigrate`: memory is missing;
`postmigrate`: it was handed over to another host), and no vCPU has used more CPU time than loading its state takes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from clouds.kvm.connection import Domain, Session, ask_qemu
from clouds.kvm.errors import Refused
from clouds.kvm.inventory import STATES, job_operation
from models.migration import VmRef

PAUSED_BY_ORDER = 1
"""libvirt's reason of `paused`: user."""
LOADED_WITHIN_MS = 5.0
"""CPU time of one vCPU thread that was made and has got its state, and no more; measured 0.8 ms. A guest that ran for
20 ms had used 9.9 ms. libvirt's own figure counts in steps of 10 ms, which is too coarse."""


def let_run(session: Session, vm: VmRef) -> None:
    """Returns when the guest runs here. Raises NotFound, or Refused when it is no whole copy that never ran."""
    domain = session.get(vm)
    if session.call(f"look at VM {vm.vm}", lambda _: STATES[domain.state()[0]]) in ("running", "blocked"):
        return
    _refuse(session, vm, domain)
    session.call(f"let VM {vm.vm} run", lambda _: domain.resume())


def start_with_host(session: Session, vm: VmRef) -> None:
    """The host starts the VM when it boots. libvirt does not carry this along. Raises NotFound."""
    domain = session.get(vm)
    session.call(f"let VM {vm.vm} start with this host", lambda _: domain.setAutostart(1))


def prove(session: Session, vm: VmRef) -> None:
    """Raises NotFound, or Refused, unless the VM is here whole, and waits, and never ran."""
    _refuse(session, vm, session.get(vm))


def _refuse(session: Session, vm: VmRef, domain: Domain) -> None:
    why_not = session.call(f"look at VM {vm.vm}", lambda _: why_no_arrival(domain))
    if why_not:
        raise Refused(
            f"VM {vm.vm} on this host is no copy that arrived whole and never ran: {why_not}; it was not touched",
            "Look on both hosts with `virsh domstate --reason` before you do anything by hand.",
        )


def why_no_arrival(domain: Domain) -> str:
    """Why this is not a VM that has arrived whole and never ran here; empty when it certainly is one."""
    number, reason = domain.state()[:2]
    state = STATES[number]
    if (state, reason) != ("paused", PAUSED_BY_ORDER):
        return f"its state is {state} (reason {reason})"
    if job := job_operation(domain, state):
        return f"libvirt runs job {job} on it"
    status = _ask(domain, "query-status")["status"]
    if status != "paused":
        return f"QEMU says it is {status}"
    came_in = _ask(domain, "query-migrate").get("status", "none")
    if came_in != "completed":
        return f"it did not come here by a migration (QEMU: {came_in})"
    used = max(cpu_ms(int(vcpu["thread-id"])) for vcpu in _ask(domain, "query-cpus-fast"))
    return f"its guest may have run: a vCPU has used {used:.1f} ms of CPU time" if used > LOADED_WITHIN_MS else ""


def cpu_ms(thread: int) -> float:
    """CPU time that a thread has used, in milliseconds."""
    return int(Path(f"/proc/{thread}/schedstat").read_text(encoding="ascii").split()[0]) / 1e6


def _ask(domain: Domain, command: str) -> Any:
    return json.loads(ask_qemu(domain, json.dumps({"execute": command})))["return"]

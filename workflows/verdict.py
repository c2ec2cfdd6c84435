"""Where is the VM? Judged from what source and destination answered, and from nothing else.

Silence is not absence. Only `leftover` lets anything be removed, and it needs the source's answer that the VM runs
there. The destination is asked before the source: a VM that runs at the source with no job, after the destination
answered, can have left nothing alive at the destination. A defined but shut off VM does not count as present.

| source \\\\ destination | not there | paused | running |
| --- | --- | --- | --- |
| running, no job | stayed | leftover | two copies |
| running or paused, job | unsettled | unsettled | unsettled |
| paused, no job | stayed | two copies | two copies |
| not there | lost | stranded | moved |

A destination in a state without a meaning here, or a silent host, gives `unknown`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from models.host import VmSighting

Kind = Literal["moved", "stayed", "leftover", "two copies", "lost", "stranded", "unsettled", "unknown"]
Presence = Literal["absent", "paused", "running", "unclear"]


@dataclass(frozen=True)
class Silence:
    """A host that was asked and did not answer."""

    host: str
    why: str


Answer = VmSighting | Silence


@dataclass(frozen=True)
class Verdict:
    kind: Kind
    reason: str
    """What each host answered, and what follows from it."""
    switching: bool = False
    """The source may be waiting to hear whether the destination has started the VM: it is paused with a job, or silent.
    If it lost the data path now, libvirt would resume the VM there, whatever the destination did."""

    @property
    def worth_another_look(self) -> bool:
        """The answers may just have been given at different moments of the switch."""
        return self.kind in ("two copies", "lost", "stranded", "unsettled")


_CONCLUSION: dict[Kind, str] = {
    "moved": "the VM runs on the destination only",
    "stayed": "the VM is on the source only",
    "leftover": "the VM runs on the source; the destination holds a paused copy that never ran",
    "two copies": "both hosts hold a copy and neither can be proved dead; nothing was destroyed",
    "lost": "neither host runs the VM: the guest ended, or was stopped, during the move",
    "stranded": "the only copy is paused on the destination; nothing was destroyed",
    "unsettled": "the source's libvirt still has a job on the VM",
    "unknown": "where the VM runs is not known; nothing was destroyed",
}

_KINDS: dict[tuple[Presence, Presence], Kind] = {
    ("running", "absent"): "stayed",
    ("running", "paused"): "leftover",
    ("running", "running"): "two copies",
    ("paused", "absent"): "stayed",
    ("paused", "paused"): "two copies",
    ("paused", "running"): "two copies",
    ("absent", "absent"): "lost",
    ("absent", "paused"): "stranded",
    ("absent", "running"): "moved",
}


def judge(source: Answer, destination: Answer) -> Verdict:
    kind = _kind(source, destination)
    reason = f"{describe(source)}; {describe(destination)}: {_CONCLUSION[kind]}"
    return Verdict(kind, reason, switching=isinstance(source, Silence) or _waits(source))


def _waits(source: VmSighting) -> bool:
    return presence(source) == "paused" and source.vm is not None and source.vm.job


def describe(answer: Answer) -> str:
    """One host's answer in words."""
    if isinstance(answer, Silence):
        return f"{answer.host} did not answer ({answer.why})"
    if not answer.present:
        return f"{answer.host} does not have it"
    if answer.vm is None:
        return f"{answer.host} has it, in a state it did not tell"
    return f"{answer.host} has it {answer.vm.state}{' with a job active' if answer.vm.job else ''}"


def alive(answer: Answer) -> bool:
    """The host answered that the VM is there with its memory: running, paused, or in a state without a name."""
    return isinstance(answer, VmSighting) and presence(answer) != "absent"


def presence(answer: VmSighting) -> Presence:
    if not answer.present:
        return "absent"
    match answer.vm.state if answer.vm else "unknown":
        case "running" | "blocked" | "shutdown":  # libvirt's shutdown: still on its way down, QEMU lives
            return "running"
        case "paused" | "suspended":
            return "paused"
        case "shutoff" | "crashed":
            return "absent"
        case _:
            return "unclear"


def _kind(source: Answer, destination: Answer) -> Kind:
    if isinstance(source, Silence) or isinstance(destination, Silence):
        return "unknown"
    here = presence(source)
    if here != "absent" and source.vm is not None and source.vm.job:
        return "unsettled"
    return _KINDS.get((here, presence(destination)), "unknown")

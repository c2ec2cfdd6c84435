"""Where is the VM? Judged from what source and destination answered, and from nothing else.

Silence is not absence. Two verdicts let something be removed, each only by a host that proves it may go. `leftover`
needs the source's answer that the VM runs there. `handed over` lets the source remove what is left of a VM that runs,
or stands whole, at its destination: if its QEMU says `postmigrate`, it has not run since. The destination is asked
before the source: a VM that runs at the source with no job, after the destination answered, can have left nothing alive
at the destination. A defined but shut off VM does not count as present.

| source \\\\ destination | not there | paused | whole | running | half |
| --- | --- | --- | --- | --- | --- |
| running, no job | stayed | leftover | leftover | two copies | two copies |
| running or paused, job | unsettled | unsettled | unsettled | unsettled | unsettled |
| paused, no job | stayed | two copies | handed over | handed over | two copies |
| not there | lost | stranded | arrived | moved | torn |
| half | torn | unsettled | unsettled | unsettled | split |

*whole*: paused by order (libvirt's reason 1) with no job, as a move that cannot end in post-copy leaves the VM until
its source has ended. `arrived` is let run, if both hosts prove what they can see: that it left, and that it never ran.

*half*: libvirt says post-copy (source paused with reason 12 or 13, destination running with 10 or 11, or paused with
12 or 13). The VM runs at the destination and a part of its memory is still at the source: two halves of one VM, job or
not, and neither may ever be removed. `split` goes on, or is gone on with over a new path when it broke off (13, 11).

A destination in a state without a meaning here, or a silent host, gives `unknown`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from models.host import VmSighting, VmState

Kind = Literal[
    "moved", "stayed", "leftover", "arrived", "handed over", "split", "two copies", "lost", "torn", "stranded",
    "unsettled", "unknown",
]  # fmt: skip
Presence = Literal["absent", "paused", "running", "half", "unclear"]

# libvirt's reasons beside a state: by order, in post-copy, and after it broke off.
PAUSED_BY_ORDER = 1
RUNNING_POST_COPY, PAUSED_POST_COPY = (10, 11), (12, 13)
BROKEN_OFF = {"running": 11, "blocked": 11, "paused": 13}
WITHOUT_PROCESS = ("shutoff", "crashed")
"""States of a VM that is only defined."""


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
    If it lost the data path now, libvirt would resume the VM there, whatever the destination did. Not one torn in
    post-copy: its half is never resumed, and there is nobody left to hear from."""
    stands: bool = False
    """It is on the source only, paused and with no job."""
    arrived: bool = False
    """The destination says that the VM stands there whole."""
    defined: bool = False
    """The destination has a definition of the VM."""
    broken_off: tuple[str, ...] = ()
    """Of a split: the hosts whose libvirt says that post-copy has broken off."""

    @property
    def worth_another_look(self) -> bool:
        """The answers may just have been given at different moments of the switch."""
        return self.kind in ("two copies", "lost", "torn", "stranded", "unsettled")


_CONCLUSION: dict[Kind, str] = {
    "moved": "the VM runs on the destination only",
    "stayed": "the VM is on the source only",
    "leftover": "the VM runs on the source; the destination holds a paused copy that never ran",
    "arrived": "the VM stands whole on the destination, and its source has it no more",
    "handed over": "the source holds a paused copy beside it, which may have been handed over and not run since",
    "split": "the VM runs on the destination and a part of its memory is still on the source: both are needed",
    "two copies": "both hosts hold a copy and neither can be proved dead; nothing was destroyed",
    "lost": "neither host runs the VM: the guest ended, or was stopped, during the move",
    "torn": "post-copy lost one half of the VM: what is left cannot go on alone; nothing was destroyed",
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
    ("paused", "running"): "handed over",
    ("absent", "absent"): "lost",
    ("absent", "paused"): "stranded",
    ("absent", "running"): "moved",
    ("running", "half"): "two copies",
    ("paused", "half"): "two copies",
    ("absent", "half"): "torn",
    ("half", "absent"): "torn",
    ("half", "paused"): "unsettled",
    ("half", "running"): "unsettled",
    ("half", "half"): "split",
}

_POST_COPY: dict[VmState, tuple[int, ...]] = {
    "running": RUNNING_POST_COPY,
    "blocked": RUNNING_POST_COPY,
    "paused": PAUSED_POST_COPY,
}


def judge(source: Answer, destination: Answer) -> Verdict:
    kind = _kind(source, destination)
    reason = f"{describe(source)}; {describe(destination)}: {_CONCLUSION[kind]}"
    broken = tuple(each.host for each in (source, destination) if kind == "split" and _broken_off(each))
    whole = isinstance(destination, VmSighting) and stands_whole(destination)
    stands = kind == "stayed" and isinstance(source, VmSighting) and presence(source) == "paused"
    switching = isinstance(source, Silence) or (_waits(source) and kind != "torn")
    return Verdict(kind, reason, switching, stands, whole, defined(destination), broken)


def defined(answer: Answer) -> bool:
    return isinstance(answer, VmSighting) and answer.vm is not None and answer.vm.persistent


def stands_whole(answer: VmSighting) -> bool:
    """Paused by order and with no job: an incoming VM that is not whole is paused for its migration."""
    vm = answer.vm
    return presence(answer) == "paused" and vm is not None and vm.reason == PAUSED_BY_ORDER and not vm.job


def _waits(source: VmSighting) -> bool:
    return presence(source) in ("paused", "half") and source.vm is not None and source.vm.job


def _broken_off(answer: Answer) -> bool:
    vm = None if isinstance(answer, Silence) else answer.vm
    return vm is not None and vm.reason == BROKEN_OFF.get(vm.state)


def describe(answer: Answer) -> str:
    """One host's answer in words."""
    if isinstance(answer, Silence):
        return f"{answer.host} did not answer ({answer.why})"
    if not answer.present:
        return f"{answer.host} does not have it"
    if answer.vm is None:
        return f"{answer.host} has it, in a state it did not tell"
    half = " in post-copy" if presence(answer) == "half" else ""
    half += " that broke off" if half and _broken_off(answer) else ""
    return f"{answer.host} has it {answer.vm.state}{half}{' with a job active' if answer.vm.job else ''}"


def alive(answer: Answer) -> bool:
    """The host answered that the VM is there with its memory: running, paused, or in a state without a name."""
    return isinstance(answer, VmSighting) and presence(answer) != "absent"


def presence(answer: VmSighting) -> Presence:
    if not answer.present:
        return "absent"
    if answer.vm is not None and answer.vm.reason in _POST_COPY.get(answer.vm.state, ()):
        return "half"
    match answer.vm.state if answer.vm else "unknown":
        case "running" | "blocked" | "shutdown":  # libvirt's shutdown: still on its way down, QEMU lives
            return "running"
        case "paused" | "suspended":
            return "paused"
        case state if state in WITHOUT_PROCESS:
            return "absent"
        case _:
            return "unclear"


def _kind(source: Answer, destination: Answer) -> Kind:
    if isinstance(source, Silence) or isinstance(destination, Silence):
        return "unknown"
    here = presence(source)
    if here not in ("absent", "half") and source.vm is not None and source.vm.job:
        return "unsettled"
    if stands_whole(destination) and here in ("absent", "paused"):
        return "arrived" if here == "absent" else "handed over"
    return _KINDS.get((here, presence(destination)), "unknown")

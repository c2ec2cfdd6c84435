"""What is wrong with a VM, judged from the answers of every host of its site and from nothing else. Pure.

All hosts must have answered: one silent host could run the VM. Presence is as in workflows/site/verdict.py.

| running | paused | halves | then |
| --- | --- | --- | --- |
| 1, no job | 0 or more | 0 | well; each paused one is a leftover if its host proves that it never ran, or not since |
| 1, with a job | any | 0 | unsettled: that job belongs to nobody and is ended, then look again |
| 0 | 1, waiting for a migration | 0 | stranded, or a switch that nobody finished: refused |
| 0 | 1, otherwise | 0 | well: paused by someone; or it has arrived and was never let run, if its hosts prove that |
| 0 | 2, no job | 0 | handed over, if one proves to be whole and never ran, and the other to be spent |
| 0 | 0 | 2 that fit | split: gone on with |
| 0 | 0 | 1, or 2 that do not fit | torn: refused |
| 0 | 0 | 0 | off, where it is defined; gone, where nobody has it |
| anything else | | | two copies: alarm, nothing is touched |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from models import failures
from models.host import VmSighting
from workflows import errors
from workflows.site import verdict

Kind = Literal[
    "well", "unsettled", "handed over", "split", "off", "gone", "stranded", "torn", "two copies", "unknown",
]  # fmt: skip

WAITING = (2, 11)
"""libvirt's reasons of `paused`: migration, starting up."""
_SAID: dict[Kind, str] = {
    "well": "one copy",
    "unsettled": "libvirt still has a job on it that belongs to nobody",
    "handed over": "one of them may be the VM, whole, and the other what its source handed over",
    "split": "two halves of one VM in post-copy: both are needed",
    "off": "it runs nowhere",
    "gone": "no host has it",
    "stranded": "the only copy is paused for a migration that nobody finishes; whether it may go on is not known",
    "torn": "post-copy lost one half of the VM: what is left cannot go on alone",
    "two copies": "more than one live copy, and none can be proved dead",
    "unknown": "a state that has no meaning here",
}


@dataclass(frozen=True)
class Diagnosis:
    kind: Kind
    reason: str
    """What each host answered, and what follows."""
    host: str | None = None
    """Where the VM is; of a split, the half that has memory to send."""
    other: str | None = None
    """Of a split: where it runs. Of one that was handed over: the other copy."""
    waits: bool = False
    """It is paused by order: perhaps it has arrived, and was never let run."""
    leftovers: tuple[str, ...] = ()
    """Hosts with a paused copy beside the running one."""

    @property
    def state(self) -> str:
        return {"well": "running", "off": "off"}.get(self.kind, self.kind)


def diagnose(sightings: Sequence[VmSighting]) -> Diagnosis:
    """`sightings`: one of every host of the site."""
    by: dict[verdict.Presence, list[VmSighting]] = {}
    for each in sightings:
        by.setdefault(verdict.presence(each), []).append(each)
    running, paused, halves = (by.get(each, []) for each in ("running", "paused", "half"))
    if by.get("unclear"):
        return _tell("unknown", sightings)
    if halves:
        return _halves(sightings, halves, bool(running or paused))
    if len(running) == 1:
        if running[0].vm is not None and running[0].vm.job:
            return _tell("unsettled", sightings, running[0].host)
        return _tell("well", sightings, running[0].host, leftovers=tuple(each.host for each in paused))
    if not running and len(paused) == 2 and not any(each.vm is not None and each.vm.job for each in paused):
        return _tell("handed over", sightings, paused[0].host, paused[1].host)
    if len(running) + len(paused) > 1:
        return _tell("two copies", sightings)
    if paused:
        vm = paused[0].vm
        waits = vm is not None and (vm.reason in WAITING or vm.job)
        told = _tell("stranded" if waits else "well", sightings, paused[0].host)
        return replace(told, waits=verdict.stands_whole(paused[0]))
    defined = [each.host for each in sightings if each.present]
    return _tell("off" if defined else "gone", sightings, defined[0] if len(defined) == 1 else None)


def in_a_cloud(vm: str, owner: str, sightings: Sequence[VmSighting]) -> tuple[str, str]:
    """(where it runs, its state) of a VM whose record names a cloud. Raises TwoCopies when a host has a live copy: what
    runs in the cloud cannot be seen from here."""
    if living := [each for each in sightings if verdict.alive(each)]:
        raise errors.final(
            failures.TWO_COPIES,
            f"{vm}: its owner record names {owner}, and {'; '.join(verdict.describe(each) for each in living)}. "
            f"Nothing was destroyed. See in the cloud's console whether its instance runs, and end one of the two; if "
            f"none runs there, `novacron recover {vm} --left-cloud` lets the record follow the hosts again",
        )
    return owner, "in a cloud"


def _halves(sightings: Sequence[VmSighting], halves: list[VmSighting], more: bool) -> Diagnosis:
    if more or len(halves) > 2:
        return _tell("two copies", sightings)
    behind = [each for each in halves if each.vm is not None and each.vm.state == "paused"]
    ahead = [each for each in halves if each not in behind]
    if len(behind) == len(ahead) == 1:
        return _tell("split", sightings, behind[0].host, other=ahead[0].host)
    return _tell("torn" if len(halves) == 1 else "unknown", sightings)


def _tell(
    kind: Kind,
    sightings: Sequence[VmSighting],
    host: str | None = None,
    other: str | None = None,
    leftovers: tuple[str, ...] = (),
) -> Diagnosis:
    there = [each for each in sightings if each.present]
    absent = len(sightings) - len(there)
    said = [verdict.describe(each) for each in there] + ([f"{absent} hosts do not have it"] if absent else [])
    return Diagnosis(kind, f"{'; '.join(said)}: {_SAID[kind]}", host, other, leftovers=leftovers)

"""A guest is made ready for the cloud that it goes to: what is known of that before, and the step of the cut-over.

What is prepared is a layer over the image that the guest boots from, so its source can be started again as it was. A
layer fits one cut-over: the guest writes to its image between two of them.
"""

from __future__ import annotations

import contextlib
from typing import cast

from temporalio.exceptions import ActivityError

from models.cloud_guests import DropLayers, GuestForecast, LookAtGuest, PrepareGuest
from models.cloud_move import CloudMoveRequest, SourceFacts, cloud_of
from models.clouds import Cloud
from models.host import Finding
from models.migration import VmRef
from models.preparing import PrepareReport
from workflows.calls.guests import Guests

SECONDS = 120.0
"""Of downtime that it takes: 90 to 150 were seen for a Debian, without KVM (docs/preparing.md); with it, fewer."""
ARCHITECTURES = ("", "x86_64")
_BY_HAND = "`novacron image prepare IMAGE --for CLOUD --dry-run` says more; or prepare the guest in itself."


class Outfit:
    """Of one move."""

    def __init__(self, wanted: CloudMoveRequest, facts: SourceFacts, site: str, move: str) -> None:
        self._wanted = wanted
        self._facts = facts
        self._move = move
        self._guests = Guests(site, facts.host)
        self._begun = False
        self.report: PrepareReport | None = None
        """Of the newest attempt."""

    async def prepare(self, vm: VmRef, attempt: int) -> int:
        """The layer that is to be sent; 0: the image itself. Raises ActivityError."""
        if not self._wanted.prepare:
            return 0
        self._begun = True
        done = await self._guests.prepare(
            PrepareGuest(
                move=self._move,
                attempt=attempt,
                vm=vm,
                image=self._facts.disks[0],
                target=_target(self._wanted),
                dhcp=self._wanted.dhcp,
            )
        )
        self.report = done.report
        return done.layer

    async def drop(self, vm: VmRef) -> None:
        """The layer is of no more use. If it cannot be had now it goes with the ledgers, when the source is settled."""
        if self._begun:
            self._begun = False
            with contextlib.suppress(ActivityError):
                await self._guests.drop(DropLayers(vm=vm, image=self._facts.disks[0]))

    @property
    def seconds(self) -> float:
        """Of downtime that it takes."""
        return SECONDS if self._wanted.prepare else 0.0

    @property
    def told(self) -> str:
        """In one line; empty: nothing was prepared."""
        if self.report is None:
            return ""
        rules = dict.fromkeys(change.rule for change in self.report.changes)
        return f"prepared for {self.report.target}: {', '.join(rules) or 'nothing had to be changed'}"


async def forecast(site: str, wanted: CloudMoveRequest, facts: SourceFacts) -> GuestForecast | None:
    """None: nothing is to be prepared, or there is no disk to look at."""
    if not wanted.prepare or not facts.disks or facts.architecture not in ARCHITECTURES:
        return None
    order = LookAtGuest(vm=facts.vm, image=facts.disks[0], target=_target(wanted), dhcp=wanted.dhcp)
    return await Guests(site, facts.host).look(order)


def findings(wanted: CloudMoveRequest, facts: SourceFacts, seen: GuestForecast | None) -> tuple[Finding, ...]:
    """What speaks against preparing it, as far as it is known before it is off."""
    if not wanted.prepare:
        return ()
    if facts.architecture not in ARCHITECTURES:
        what = f"{wanted.vm} is {facts.architecture}: only guests of x86_64 are prepared"
        return (_finding("blocker", what, "Leave `prepare` out, and prepare the guest in itself."),)
    if seen is None:
        return ()
    if seen.obstacle:
        return (_finding("blocker", f"{facts.host} cannot prepare {wanted.vm}: {seen.obstacle}", _BY_HAND),)
    if seen.report is None:
        what = f"whether {wanted.vm} can be prepared is known when it is off: a cut-over that cannot is undone"
        return (_finding("warning", what, f"It is {SECONDS:.0f} s more of downtime, about. {_BY_HAND}"),)
    return tuple(_finding("blocker", f"{each.rule}: {each.why}", each.remedy) for each in seen.report.refusals[:20])


def _finding(severity: str, what: str, remedy: str) -> Finding:
    return Finding.model_validate({"id": "prepare", "severity": severity, "what": what[:4000], "remedy": remedy})


def _target(wanted: CloudMoveRequest) -> Cloud:
    return cast(Cloud, cloud_of(wanted.to))

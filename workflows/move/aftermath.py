"""The end of a move, whatever happened: where is the VM, what must go, what is left.

Every step has a deadline, and no failure of one keeps the next from being tried: what could not be done becomes a note.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from temporalio import workflow
from temporalio.exceptions import ActivityError

from models import failures
from models.disks import DiskImage
from models.migration import PathReport, VmRef
from workflows import errors
from workflows.calls import deadlines
from workflows.calls.site import Host
from workflows.calls.switch import SwitchEnd
from workflows.move import evidence
from workflows.move.chronicle import Chronicle
from workflows.site import verdict


class Aftermath:
    def __init__(self, source: Host, destination: Host, chronicle: Chronicle) -> None:
        self._source = source
        self._destination = destination
        self._chronicle = chronicle

    async def confirm(self, ref: VmRef) -> verdict.Verdict:
        """Ask both hosts until their answers fit together, or stay apart for good. Never guess. A switch that nobody
        finished is finished, where that is certain."""
        where = await self._look(ref)
        for pause in deadlines.LOOK_AGAIN:
            if not where.worth_another_look:
                break
            await workflow.sleep(pause, summary=f"look again: {where.kind}")
            where = await self._look(ref)
        if where.kind == "handed over":
            where = await self._part(ref, where)
        if where.kind == "arrived":
            where = await self._let_run(ref, where)
        return where

    async def _part(self, ref: VmRef, where: verdict.Verdict) -> verdict.Verdict:
        """Remove what the source handed over, once the VM runs at its destination or is proved to stand there whole."""
        here, there = self._ends()
        try:
            if where.arrived:
                await there.prove_arrival(ref)
            await here.remove_handed_over(ref, where.defined)
        except ActivityError as error:
            kind, why = errors.explain(error)
            settled = replace(where, kind="two copies") if kind == failures.REFUSED else where
            return replace(settled, reason=f"{where.reason}; nothing was removed: {why}")
        self._chronicle.note(f"removed what {here.name} had handed over; its libvirt had not done so")
        return await self._look(ref)

    async def _let_run(self, ref: VmRef, where: verdict.Verdict) -> verdict.Verdict:
        here, there = self._ends()
        try:
            await here.prove_departure(ref)
            await there.let_run(ref)
        except ActivityError as error:
            return replace(where, reason=f"{where.reason}; it was not let run: {errors.explain(error)[1]}")
        self._chronicle.note(f"{ref.vm} stood whole on {there.name} after {here.name} had ended; it was let run there")
        return await self._look(ref)

    def _ends(self) -> tuple[SwitchEnd, SwitchEnd]:
        here, there = self._source, self._destination
        return SwitchEnd(here.site, here.name), SwitchEnd(there.site, there.name)

    async def halves(self, ref: VmRef) -> verdict.Verdict:
        """Of a split VM: look until both hosts know that post-copy broke off. Only then can libvirt go on with it."""
        where = await self._look(ref)
        for pause in deadlines.HALVES_LOOK:
            if where.kind == "split" and len(where.broken_off) == 2:
                break
            await workflow.sleep(pause, summary=f"look again: {where.kind}")
            where = await self._look(ref)
        return where

    async def discard(self, ref: VmRef) -> bool:
        """Only for the verdict `leftover`: the source answered, later than the destination, that the VM runs there."""
        there = self._destination
        try:
            await there.discard(ref)
            self._chronicle.note(f"removed the paused leftover of {ref.vm} on {there.name}")
            return True
        except ActivityError as error:
            self._chronicle.note(
                f"a paused copy of {ref.vm} that never ran is left on {there.name} ({errors.explain(error)[1]}); "
                f"remove it there with `virsh destroy {ref.vm}` while the VM runs on {self._source.name}"
            )
            return False

    async def set_going(self, ref: VmRef, where: verdict.Verdict, allow_pause: bool) -> None:
        """The VM is on its source only, and must run there: its move may have paused it, or handed it over in vain. One
        that people paused stays so."""
        here, _ = self._ends()
        try:
            if where.stands:
                await here.take_back(ref)
                self._chronicle.note(f"{ref.vm} was let run again on {here.name}, which had handed it over in vain")
                return
        except ActivityError as error:
            if not allow_pause:
                self._chronicle.note(f"{ref.vm} stays paused on {here.name}: {errors.explain(error)[1]}")
        try:
            if allow_pause:
                await self._source.revive(ref)
        except ActivityError as error:
            self._chronicle.note(f"{ref.vm} may be left paused on {self._source.name}: {errors.explain(error)[1]}")

    async def start_with_host(self, ref: VmRef) -> None:
        """As its source did: libvirt leaves that behind."""
        _, there = self._ends()
        try:
            await there.start_with_host(ref)
        except ActivityError as error:
            self._chronicle.note(
                f"{ref.vm} does not start with {there.name} as it did with {self._source.name} "
                f"({errors.explain(error)[1]}); see to it there with `virsh autostart {ref.vm}`"
            )

    async def settle_disks(self, migration_id: str, disks: Sequence[DiskImage], keep: bool | None) -> None:
        """Keep images the VM runs on now, or remove those of a move that failed; None: nobody can say, so neither."""
        there, listed = self._destination, ", ".join(image.path for image in disks)
        if keep is None:
            self._chronicle.note(f"images made for the copied disks are left on {there.name}: {listed}")
            return
        try:
            await there.settle_disks(migration_id, disks, keep)
        except ActivityError as error:
            why = errors.explain(error)[1]
            left = "marks beside them" if keep else "images made for the copied disks"
            self._chronicle.note(f"{left} are left on {there.name} ({why}): {listed}")
        if keep:
            self._chronicle.note(f"the disks were copied; {self._source.name} keeps its old images: {listed}")

    async def close(self, opened: Sequence[Host], migration_id: str) -> evidence.Evidence:
        """Close every end that may be open, both at once, and compare what they recorded."""
        reports = await asyncio.gather(*(self._close(host, migration_id) for host in opened))
        status = {host.name: report.status for host, report in zip(opened, reports, strict=True) if report}
        return evidence.compare(status.get(self._source.name), status.get(self._destination.name))

    async def _look(self, ref: VmRef) -> verdict.Verdict:
        """Destination first: workflows/site/verdict.py says what that order proves."""
        there = await _answer(self._destination, ref)
        return verdict.judge(source=await _answer(self._source, ref), destination=there)

    async def _close(self, host: Host, migration_id: str) -> PathReport | None:
        try:
            return await host.close_path(migration_id)
        except ActivityError as error:
            self._chronicle.note(
                f"the data path of migration {migration_id} is left on {host.name} and ends by itself "
                f"({errors.explain(error)[1]})"
            )
            return None


async def _answer(host: Host, ref: VmRef) -> verdict.Answer:
    try:
        return await host.where_is(ref)
    except ActivityError as error:
        return verdict.Silence(host.name, errors.explain(error)[1])

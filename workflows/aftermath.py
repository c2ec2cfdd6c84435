"""The end of a move, whatever happened: where is the VM, what must go, what is left.

Every step has a deadline, and no failure of one keeps the next from being tried: what could not be done becomes a note.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from temporalio import workflow
from temporalio.exceptions import ActivityError

from models.migration import PathReport, VmRef
from workflows import deadlines, errors, evidence, verdict
from workflows.calls import Host
from workflows.chronicle import Chronicle


class Aftermath:
    def __init__(self, source: Host, destination: Host, migration_id: str, chronicle: Chronicle) -> None:
        self._source = source
        self._destination = destination
        self._id = migration_id
        self._chronicle = chronicle

    async def confirm(self, ref: VmRef) -> verdict.Verdict:
        """Ask both hosts until their answers fit together, or stay apart for good. Never guess."""
        where = await self._look(ref)
        for pause in deadlines.LOOK_AGAIN:
            if not where.worth_another_look:
                break
            await workflow.sleep(pause, summary=f"look again: {where.kind}")
            where = await self._look(ref)
        return where

    async def discard(self, ref: VmRef) -> None:
        """Only for the verdict `leftover`: the source answered, later than the destination, that the VM runs there."""
        there = self._destination
        try:
            await there.discard(ref)
            self._chronicle.note(f"removed the paused leftover of {ref.vm} on {there.name}")
        except ActivityError as error:
            self._chronicle.note(
                f"a paused copy of {ref.vm} that never ran is left on {there.name} ({errors.explain(error)[1]}); "
                f"remove it there with `virsh destroy {ref.vm}` while the VM runs on {self._source.name}"
            )

    async def close(self, opened: Sequence[Host]) -> evidence.Evidence:
        """Close every end that may be open, both at once, and compare what they recorded."""
        reports = await asyncio.gather(*(self._close(host) for host in opened))
        status = {host.name: report.status for host, report in zip(opened, reports, strict=True) if report}
        return evidence.compare(status.get(self._source.name), status.get(self._destination.name))

    async def _look(self, ref: VmRef) -> verdict.Verdict:
        """Destination first: workflows/verdict.py says what that order proves."""
        there = await _answer(self._destination, ref)
        return verdict.judge(source=await _answer(self._source, ref), destination=there)

    async def _close(self, host: Host) -> PathReport | None:
        try:
            return await host.close_path(self._id)
        except ActivityError as error:
            self._chronicle.note(
                f"the data path of migration {self._id} is left on {host.name} and ends by itself "
                f"({errors.explain(error)[1]})"
            )
            return None


async def _answer(host: Host, ref: VmRef) -> verdict.Answer:
    try:
        return await host.where_is(ref)
    except ActivityError as error:
        return verdict.Silence(host.name, errors.explain(error)[1])

"""novacron.RecoverVm: make certain that there is one copy of a VM, and nothing around it of operations that died.

The story: ask every host; take the VM under a new token, and let every host know it, so that nothing that was asked
before can still change anything; judge the answers; repair what is certain, refuse and explain the rest. Two copies
raise an alarm and are left alone. Its id is the VM's lock, so no move and no second recovery runs beside it.
"""

from __future__ import annotations

from typing import Any

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError

from models import failures
from models.cloud_move import OWNER_PREFIX
from models.host import VmSighting
from models.lease import Lease
from models.migration import MigrationPolicy, Progress, VmRef
from models.recovery import RecoverReport, RecoverRequest
from workflows import errors, request
from workflows.calls import deadlines
from workflows.calls.owners import Leases, Survivor
from workflows.calls.site import Host
from workflows.lasting import to_the_end
from workflows.move import ownership
from workflows.move.aftermath import Aftermath
from workflows.move.chronicle import Chronicle
from workflows.move.crossing import Crossing
from workflows.recovery.diagnosis import Diagnosis, diagnose, in_a_cloud
from workflows.recovery.repair import Repair
from workflows.site import everyone, verdict

_EXAMPLE = '{"vm": "counter"}'
_ADVICE = "Nothing was destroyed. docs/workflows/recover-vm.md says what to do"


@workflow.defn(name="novacron.RecoverVm")
class RecoverVm:
    def __init__(self) -> None:
        self._chronicle = Chronicle()
        self._lease: Lease | None = None

    @workflow.run
    async def run(self, raw: Any = None) -> RecoverReport:
        wanted = request.read_as(RecoverRequest, raw, _EXAMPLE)
        info = workflow.info()
        self._site = request.site_of(info.workflow_id, info.task_queue, wanted.vm)
        self._chronicle.begin(f"recover {wanted.vm}", wanted.vm, self._site, [])
        try:
            report = await self._recover(wanted)
        except BaseException as error:
            if not errors.handled(error):
                raise
            await to_the_end(self._let_go(), on_cancel=lambda: None)
            self._chronicle.enter("cancelled" if errors.cancelled(error) else "failed")
            if isinstance(error, ActivityError) and not errors.cancelled(error):
                kind, why = errors.explain(error)
                error = errors.final(kind, f"{wanted.vm}: {why}")
            if isinstance(error, ApplicationError) and error.type == failures.TWO_COPIES:
                workflow.logger.error("ALARM: two copies: %s", error.message)
                self._chronicle.alarm(error.message)
            self._chronicle.note(str(error))
            await to_the_end(self._chronicle.close(), on_cancel=lambda: None)
            raise error
        self._chronicle.enter("done")
        return report

    async def _recover(self, wanted: RecoverRequest) -> RecoverReport:
        hosts = await everyone.hosts_of(self._site, wanted.vm)
        named = VmRef(vm=wanted.vm)
        seen = await everyone.ask(hosts, named, lambda host: Host(self._site, host).has(named))
        ref = VmRef(vm=wanted.vm, uuid=await self._uuid(wanted.vm, seen))
        if wanted.dry_run:
            return self._foresee(ref, diagnose(seen))
        ref = await self._take(ref, seen)
        assert self._lease is not None
        if self._lease.host.startswith(OWNER_PREFIX) and not wanted.left_cloud:
            return await self._settle(ref, *in_a_cloud(ref.vm, self._lease.host, seen), Repair(self._site, hosts, ref))
        self._chronicle.enter("confirming")
        repair = Repair(self._site, hosts, ref)
        diagnosis, seen = await self._judge(hosts, ref, repair)
        self._chronicle.remark(diagnosis.reason)
        if diagnosis.kind == "split":
            runs_on: str | None = await self._join(ref, diagnosis, seen, repair)
            present = [each.host for each in seen if each.present and each.host != diagnosis.host]
        elif diagnosis.kind == "handed over":
            assert diagnosis.host
            assert diagnosis.other
            runs_on = await repair.part((diagnosis.host, diagnosis.other))
            present = [each.host for each in seen if each.present]
        elif diagnosis.kind == "stranded" and diagnosis.host:
            runs_on, present = diagnosis.host, [diagnosis.host]
            if why_not := await repair.take_back(runs_on):
                raise errors.final(failures.AMBIGUOUS, f"{ref.vm}: {diagnosis.reason}; {why_not}. {_ADVICE}")
        elif diagnosis.kind in ("well", "off", "gone"):
            runs_on, present = diagnosis.host, [each.host for each in seen if each.present]
        else:
            kind = failures.TWO_COPIES if diagnosis.kind == "two copies" else failures.AMBIGUOUS
            raise errors.final(kind, f"{ref.vm}: {diagnosis.reason}. {_ADVICE}")
        self._chronicle.enter("cleaning")
        if diagnosis.leftovers and runs_on:
            await repair.discard(diagnosis.leftovers, runs_on)
            present = [host for host in present if host not in diagnosis.leftovers]
        if diagnosis.waits and runs_on:
            assert self._lease is not None
            await repair.let_run(runs_on, self._lease.host)
        await repair.close_paths()
        if runs_on and diagnosis.kind != "off":
            await repair.settle_images(runs_on, present)
        state = "running" if diagnosis.kind in ("split", "handed over", "stranded") else diagnosis.state
        return await self._settle(ref, runs_on, state, repair)

    async def _uuid(self, vm: str, seen: list[VmSighting]) -> str:
        found = {each.vm.uuid: each.host for each in seen if each.vm is not None}
        if not found:  # it may have ended; what is left of its operations is found by its record
            records, _ = await Leases(self._site).all()
            found = {lease.uuid: lease.host for lease in records.values() if lease.vm == vm}
        if not found:
            raise errors.final(failures.NOT_FOUND, f"vm: no host of site {self._site!r} has {vm!r}; all answered")
        if len(found) > 1:
            listed = ", ".join(f"{uuid} ({host})" for uuid, host in sorted(found.items()))
            raise errors.final(failures.REFUSED, f"{vm}: different VMs have this name: {listed}. Rename all but one")
        return next(iter(found))

    async def _take(self, ref: VmRef, seen: list[VmSighting]) -> VmRef:
        diagnosis = diagnose(seen)
        above = max(each.token for each in seen)
        host = diagnosis.host or next((each.host for each in seen if each.present), seen[0].host)
        self._lease = await Leases(self._site).take(ownership.wish(self._site, ref, host, above))
        return ref.model_copy(update={"token": self._lease.token})

    async def _judge(self, hosts: list[str], ref: VmRef, repair: Repair) -> tuple[Diagnosis, list[VmSighting]]:
        """Raise the token everywhere, and look until the answers mean something. A job that is nobody's is ended."""
        seen = await everyone.ask(hosts, ref, lambda host: Survivor(self._site, host).fence(ref))
        for pause in deadlines.LOOK_AGAIN:
            diagnosis = diagnose(seen)
            if diagnosis.kind in ("well", "handed over", "split", "off"):
                break
            if diagnosis.kind == "unsettled" and diagnosis.host:
                await Survivor(self._site, diagnosis.host).abort(ref)
                repair.done.append(f"ended libvirt's job on {diagnosis.host}, which no move watched any more")
            else:
                await workflow.sleep(pause, summary=f"look again: {diagnosis.kind}")
            seen = await everyone.ask(hosts, ref, lambda host: Survivor(self._site, host).fence(ref))
        return diagnose(seen), seen

    async def _join(self, ref: VmRef, diagnosis: Diagnosis, seen: list[VmSighting], repair: Repair) -> str:
        """Go on with a post-copy whose two halves are there, as a move of it would. Where it runs then."""
        assert diagnosis.host
        assert diagnosis.other
        behind, ahead = Host(self._site, diagnosis.host), Host(self._site, diagnosis.other)
        behind.owner = ahead.owner = ref
        answers = {each.host: each for each in seen}
        aftermath = Aftermath(behind, ahead, self._chronicle)
        crossing = Crossing(behind, ahead, aftermath, self._chronicle, workflow.uuid4().hex[:16])
        crossing.ref = ref
        where = verdict.judge(answers[behind.name], answers[ahead.name])
        where, error = await crossing.come_together(where, MigrationPolicy, None)
        await crossing.close()
        if where.kind != "moved":
            why = f" {errors.explain(error)[1]}." if error else ""
            raise errors.final(failures.AMBIGUOUS, f"{ref.vm}: {where.reason}.{why} {_ADVICE}")
        repair.done.append(f"brought two halves in post-copy together on {ahead.name}")
        return ahead.name

    async def _settle(self, ref: VmRef, runs_on: str | None, state: str, repair: Repair) -> RecoverReport:
        """The record last, when everything else is as it says."""
        assert self._lease is not None
        lease, self._lease = self._lease, None
        moved = runs_on if runs_on != lease.host else None
        try:
            await Leases(self._site).release(ownership.holding(lease, moved))
            if moved:
                repair.done.append(f"the owner record named {lease.host}, and names {moved} now")
        except ActivityError as error:
            repair.notes.append(f"the owner record names {lease.host} and is held ({errors.explain(error)[1]})")
        return RecoverReport(
            vm=ref.vm, site=self._site, uuid=ref.uuid, host=runs_on, state=state, token=lease.token,
            done=tuple(repair.done[:50]), notes=tuple(repair.notes[:50]),
        )  # fmt: skip

    def _foresee(self, ref: VmRef, diagnosis: Diagnosis) -> RecoverReport:
        """Of a dry run: what would be done, as far as it can be told without raising the token."""
        plans = [f"remove the paused copy on {host}, if it never ran" for host in diagnosis.leftovers]
        if diagnosis.kind == "unsettled":
            plans.append(f"end libvirt's job on {diagnosis.host}")
        if diagnosis.waits:
            plans.append(f"let it run on {diagnosis.host}, if it has arrived there and never ran")
        if diagnosis.kind == "handed over":
            plans.append(
                f"remove the copy on {diagnosis.host} or {diagnosis.other} that was handed over; let the other run"
            )
        if diagnosis.kind == "split":
            plans.append(f"go on with the post-copy from {diagnosis.host} to {diagnosis.other}")
        return RecoverReport(
            vm=ref.vm, site=self._site, uuid=ref.uuid, host=diagnosis.host, state=diagnosis.state, done=tuple(plans),
            notes=(diagnosis.reason,), dry_run=True,
        )  # fmt: skip

    async def _let_go(self) -> None:
        """Release the lease, the record unchanged."""
        if self._lease is None:
            return
        try:
            await Leases(self._site).release(ownership.holding(self._lease))
        except ActivityError as error:
            self._chronicle.note(f"the lease is not released ({errors.explain(error)[1]}); the next taker gets it")

    @workflow.query(description="How far it is: phase and notes")
    def progress(self) -> Progress:
        return self._chronicle.progress

    @workflow.signal(name="novacron.progress", description="Report of the move step; not for people")
    def report(self, progress: Progress) -> None:
        self._chronicle.take(progress)

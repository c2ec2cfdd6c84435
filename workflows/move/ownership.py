"""A VM's owner record while an operation works on the VM: taken before anything is started, settled last of all.

What keeps two operations apart is the workflow id. The lease's expiry matters to takers only: a move whose lease could
not be renewed goes on, and hosts obey it until somebody comes with a later token. No clean-up waits for the store.
"""

from __future__ import annotations

import asyncio
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, TimeoutError

from models import failures
from models.cloud_move import OWNER_PREFIX
from models.host import VmSheet
from models.lease import HoldLease, Lease, TakeLease
from models.migration import VmRef
from workflows import errors
from workflows.calls import deadlines
from workflows.calls.owners import Leases
from workflows.calls.site import Control, Host
from workflows.move.chronicle import Chronicle
from workflows.site import verdict


def wish(site: str, ref: VmRef, host: str, above: int) -> TakeLease:
    """For this run, which has the lock that its workflow id is."""
    assert ref.uuid is not None
    run = workflow.info()
    return TakeLease(
        site=site, uuid=ref.uuid, vm=ref.vm, host=host, lock=run.workflow_id, operation=run.run_id, above=above
    )


def holding(lease: Lease, host: str | None = None) -> HoldLease:
    return HoldLease(site=lease.site, uuid=lease.uuid, operation=lease.operation, token=lease.token, host=host)


class Ownership:
    def __init__(self, chronicle: Chronicle) -> None:
        self._chronicle = chronicle
        self._lease: Lease | None = None
        self._keeping: asyncio.Task[Any] | None = None

    async def take(self, site: str, sheet: VmSheet, source: Host, destination: Host) -> VmRef:
        """The VM under a new token, which all orders to both hosts carry from now on. Raises the store's refusal, and
        Ambiguous when the record names another host that may run the VM."""
        ref = VmRef(vm=sheet.vm.name, uuid=sheet.vm.uuid)
        self._site = site
        self._lease = await Leases(site).take(wish(site, ref, source.name, sheet.token))
        if self._lease.host != source.name:
            await self._correct(ref, source.name)
        self._keeping = asyncio.create_task(self._keep())
        ref = ref.model_copy(update={"token": self._lease.token})
        source.owner = destination.owner = ref
        return ref

    async def take_from(self, site: str, ref: VmRef, owner: str, above: int) -> VmRef:
        """The VM under a new token, which runs in a cloud: `owner` says which. No host has a live copy, by their own
        answers, so a record that names one is corrected. Raises Ambiguous when it names another cloud."""
        self._site = site
        self._lease = lease = await Leases(site).take(wish(site, ref, owner, above))
        if lease.host != owner:
            if lease.host.startswith(OWNER_PREFIX):
                raise errors.final(
                    failures.AMBIGUOUS,
                    f"{ref.vm}: its owner record names {lease.host}, and not {owner}: it may run there too. Nothing "
                    f"was started. Bring it from there, or see that no instance of it runs there",
                )
            self._lease = await Leases(site).hand_over(holding(lease, owner))
            self._chronicle.note(f"the owner record named {lease.host}, which does not run {ref.vm}: now {owner}")
        self._keeping = asyncio.create_task(self._keep())
        return ref.model_copy(update={"token": self._lease.token})

    async def retake(self, site: str, ref: VmRef, above: int, *hosts: Host, owner: str = "") -> VmRef:
        """The VM under a new token, wherever its record says it is: for an operation that gives it back. `owner` is
        noted where no host has it."""
        self._site = site
        self._lease = await Leases(site).take(wish(site, ref, hosts[0].name if hosts else owner, above))
        self._keeping = asyncio.create_task(self._keep())
        ref = ref.model_copy(update={"token": self._lease.token})
        for host in hosts:
            host.owner = ref
        return ref

    async def end(self, runs_on: str | None = None) -> None:
        """The operation is over; the VM runs on that host, or where it was."""
        if self._keeping:
            self._keeping.cancel()
        if self._lease is None:
            return
        lease, self._lease = self._lease, None
        try:
            await Leases(self._site).release(holding(lease, runs_on))
        except ActivityError as error:
            stands = f"the owner record still names {lease.host}" if runs_on else "the lease is not released"
            self._chronicle.note(
                f"{stands} ({_why(error)}); the next reconciliation sets it right, or `novacron recover {lease.vm}`"
            )

    async def _correct(self, ref: VmRef, found: str) -> None:
        """The VM was found elsewhere than its record says: certain once the host of the record does not have it."""
        assert self._lease is not None
        elsewhere = self._lease.host
        if elsewhere.startswith(OWNER_PREFIX):
            raise errors.final(
                failures.AMBIGUOUS,
                f"{ref.vm}: runs on {found}, and its owner record names a cloud, {elsewhere}: it may run there too. "
                f"Nothing was started. If no instance of it runs, `novacron recover {ref.vm} --left-cloud`",
            )
        if elsewhere in (await Control(self._site).hosts()).hosts:
            seen = await Host(self._site, elsewhere).has(ref)
            if verdict.alive(seen):
                raise errors.final(
                    failures.AMBIGUOUS,
                    f"{ref.vm}: runs on {found}, and its owner record names {elsewhere}: {verdict.describe(seen)}. "
                    f"Nothing was started; `novacron recover {ref.vm}` says more",
                )
        self._lease = await Leases(self._site).hand_over(holding(self._lease, found))
        self._chronicle.note(f"the owner record named {elsewhere}, which does not have {ref.vm}: corrected to {found}")

    async def _keep(self) -> None:
        """Renew the lease for as long as the operation goes on."""
        while self._lease is not None:
            await workflow.sleep(deadlines.RENEW_EVERY, summary="before the lease is renewed")
            try:
                await Leases(self._site).renew(holding(self._lease))
            except ActivityError as error:
                kind, why = errors.explain(error)
                if kind == failures.REFUSED:
                    self._chronicle.note(f"the owner record was taken over meanwhile: {why}")
                    return
                self._chronicle.remark(f"the lease could not be renewed: {why}")


def _why(error: ActivityError) -> str:
    """The store's last words, also when asking again and again took too long."""
    cause = error.cause
    last = cause.cause if isinstance(cause, TimeoutError) else None
    return last.message if isinstance(last, ApplicationError) else errors.explain(error)[1]

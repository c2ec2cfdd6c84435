"""After the point of no return of a move from a cloud: the record names the host, the snapshots go, and the instance is
kept stopped, to be rolled back to. It is terminated only if the request says so, and the VM is seen to run."""

from __future__ import annotations

from temporalio.exceptions import ActivityError

from models.cloud_bring import CloudBringRequest, EndArrival, Hardware
from models.cloud_move import owner_of
from workflows import errors
from workflows.calls.arrivals import ArrivalHost, SourceCloud
from workflows.calls.site import Host
from workflows.cloud.fetching import Fetching
from workflows.cloud.rounds import STOP_SECONDS
from workflows.cloud.steered import Copy
from workflows.cloud.undertaking import Undertaking
from workflows.site import verdict


class Staying(Undertaking):
    """Base of MoveFromCloud, which sets these."""

    _wanted: CloudBringRequest
    _host: ArrivalHost
    _cloud: SourceCloud
    _hardware: Hardware
    _ran: bool
    _moved = "the VM runs on its host already: roll_back takes it to the cloud again"
    _gives_up = "the VM is stopped on its host"

    def __init__(self) -> None:
        super().__init__()
        self._copy: Fetching | None = None
        self._instance = ""

    def _goes_to(self) -> str:
        return self._wanted.to

    def _copied(self) -> Copy | None:
        return self._copy

    def _instance_id(self) -> str:
        return self._instance

    def _fixed(self) -> float:
        """A snapshot takes what it takes, however little changed."""
        return STOP_SECONDS + (self._copy.holding if self._copy else 0.0)

    async def _keep(self) -> None:
        """The VM runs on the host: the record says so, what the move needed goes, the instance is kept for a while."""
        assert self._copy is not None
        wanted, copy = self._wanted, self._copy
        await self._owner.end(runs_on=wanted.to)
        await self._try("ledgers, or a way back inside the images, are left", self._accept)
        await self._try("snapshots are left", self._cloud.remove, "", copy.made)
        await self._while_kept(f"runs on {wanted.to}; instance {self._instance} is kept, stopped")
        self._rolled_back = self._give_back is not None and await self._back()
        if not self._rolled_back and wanted.then == "remove" and await self._still_runs():
            self._removed = await self._try(
                f"instance {self._instance} is left, stopped",
                self._cloud.terminate,
                self._instance,
                copy.token("terminate"),
            )
        await self._over()

    async def _accept(self) -> None:
        assert self._copy is not None
        await self._copy.settle(keep=True, autostart=self._wanted.autostart)

    async def _back(self) -> bool:
        """Stop the VM, and be sure of it; then the instance runs again, and the record says so."""
        assert self._copy is not None
        wanted, copy = self._wanted, self._copy
        try:
            copy.ref = await self._owner.retake(self._site, copy.ref, copy.ref.token, Host(self._site, wanted.to))
            await self._host.end(EndArrival(vm=copy.ref, disks=copy.images, within=wanted.stop_within))
            await self._cloud.start(self._instance)
        except ActivityError as error:
            self._chronicle.note(
                f"not rolled back: {errors.explain(error)[1]}. See whether {wanted.vm} is off on {wanted.to} before "
                f"you start instance {self._instance} by hand"
            )
            return False
        self._runs_on = wanted.source
        self._chronicle.note(f"rolled back; {wanted.vm} is off on {wanted.to} and kept there with its images")
        await self._owner.end(runs_on=owner_of(wanted.source))
        return True

    async def _still_runs(self) -> bool:
        """No instance is terminated unless its VM is seen to run, by the host that has it."""
        assert self._copy is not None
        try:
            seen = await Host(self._site, self._wanted.to).where_is(self._copy.ref)
            good = verdict.alive(seen) and seen.vm is not None and seen.vm.state in ("running", "blocked")
        except ActivityError:
            good = False
        if not good:
            self._chronicle.note(
                f"instance {self._instance} was not terminated: {self._wanted.vm} is not seen to run on "
                f"{self._wanted.to}"
            )
        return good

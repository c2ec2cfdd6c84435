"""After the point of no return: the record names the cloud, what the move needed goes, and the source is kept shut off,
to be rolled back to. It is removed only if the request says so, and its instance is seen to run."""

from __future__ import annotations

from temporalio.exceptions import ActivityError

from models.cloud_cache import KeepBases
from models.cloud_move import CloudMoveRequest, StartSource, owner_of
from workflows import errors
from workflows.calls.cloud import SourceHost
from workflows.calls.site import Host
from workflows.cloud.copying import Copying
from workflows.cloud.crossing import Crossing
from workflows.cloud.launching import Launching
from workflows.cloud.trials import Trials


class Keeping(Trials):
    """Base of MoveToCloud, which sets these."""

    _wanted: CloudMoveRequest
    _host: SourceHost
    _source: str

    def __init__(self) -> None:
        super().__init__()
        self._cached = False
        self._kept_bases: tuple[str, ...] = ()
        self._copy: Copying | None = None

    def _copied(self) -> Copying | None:
        return self._copy

    def _trial(self, name: str) -> Launching:
        assert self._copy is not None
        return Crossing(self._wanted, self._host, self._cloud, self._copy, name)

    async def _keep(self) -> None:
        """The VM runs in the cloud: the record says so, what the move needed goes, the source is kept for a while."""
        assert self._copy is not None
        assert self._crossing is not None
        await self._owner.end(runs_on=owner_of(self._wanted.to))
        if self._cached and self._wanted.cache == "on":
            await self._try("its disks stay not as bases for others", self._keep_bases)
        await self._try("image and snapshots are left", self._crossing.clean, self._kept_bases)
        await self._while_kept(f"runs in {self._wanted.to} as {self._crossing.instance}; the source is kept")
        self._rolled_back = self._give_back is not None and await self._back()
        remove = (
            not self._rolled_back
            and self._wanted.then == "remove"
            and await self._still_runs("the source was not removed")
        )
        settled = await self._try("rounds, ledgers or images are left", self._copy.settle, remove=remove)
        self._removed = remove and settled
        await self._over()

    async def _keep_bases(self) -> None:
        assert self._copy is not None
        copy = self._copy
        order = KeepBases(
            move=copy.move, place=self._wanted.to, vm=copy.ref, disks=copy.facts.disks, sent=copy.disks
        )  # fmt: skip
        told = await self._host.keep_bases(order)
        self._kept_bases = told.disks
        for reason in told.reasons:
            self._chronicle.remark(f"cache: {reason}")

    async def _back(self) -> bool:
        """Stop the instance, and be sure of it; then the source runs again, and the record says so."""
        assert self._copy is not None
        assert self._crossing is not None
        copy, host = self._copy, Host(self._site, self._source)
        try:
            copy.ref = await self._owner.retake(self._site, copy.ref, copy.ref.token, host)
            await self._crossing.stop_instance()
            order = StartSource(vm=copy.ref, autostart=copy.facts.autostart, run=True)
            await self._host.start(order)
        except ActivityError as error:
            self._chronicle.note(
                f"not rolled back: {errors.explain(error)[1]}. See whether instance {self._crossing.instance} is "
                f"stopped before you start {self._wanted.vm} on {self._source} by hand"
            )
            return False
        self._runs_on = self._source
        self._chronicle.note(f"rolled back; instance {self._crossing.instance} is stopped and kept with its disks")
        await self._owner.end(runs_on=self._source)
        return True

"""What is repaired around a VM that is in one place for certain: leftovers, data paths and images of dead operations.

Who calls this holds the VM's lock and has raised its token on every host. Each step may be repeated; what could not be
done becomes a note.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from temporalio.exceptions import ActivityError

from models import failures
from models.disks import DiskImage
from models.migration import VmRef
from workflows import errors
from workflows.calls.owners import Survivor
from workflows.calls.site import Host
from workflows.calls.switch import SwitchEnd
from workflows.site import verdict


class Repair:
    def __init__(self, site: str, hosts: Sequence[str], ref: VmRef) -> None:
        self._site = site
        self._hosts = hosts
        self._ref = ref
        self.done: list[str] = []
        self.notes: list[str] = []

    async def discard(self, leftovers: Sequence[str], runs_on: str) -> None:
        """Remove paused copies that never ran, or have not run since they were handed over, on certain knowledge: their
        hosts have answered, and after that the VM is seen to run elsewhere with no job. Raises TwoCopies when a host
        can prove neither."""
        for host in leftovers:
            now = await self._host(runs_on).where_is(self._ref)
            if verdict.presence(now) != "running" or (now.vm is not None and now.vm.job):
                raise errors.final(
                    failures.AMBIGUOUS,
                    f"{self._ref.vm}: changed while it was looked at: {verdict.describe(now)}. Nothing was removed on "
                    f"{host}; recover it again",
                )
            try:
                await self._host(host).discard(self._ref)
            except ActivityError as error:
                kind, why = errors.explain(error)
                if kind != failures.REFUSED:
                    raise
                two = f"{self._ref.vm}: runs on {runs_on}, and {host} holds a copy that may have run: {why}"
                await self._remove_handed_over(host, two, verdict.defined(now))
                continue
            self.done.append(f"removed a paused copy that never ran on {host}")

    async def part(self, hosts: Sequence[str]) -> str:
        """Of two paused copies: which one has arrived whole and never ran is proved by its host, that the other has
        been handed over by its own; then it goes, and the VM is let run. Where it runs then. Raises TwoCopies."""
        two = f"{self._ref.vm}: {' and '.join(hosts)} hold paused copies, and which is the VM cannot be proved"
        whole, whys, defined = list[str](), list[str](), False
        for host in hosts:
            try:
                defined = verdict.defined(await self._end(host).prove_arrival(self._ref))
                whole.append(host)
            except ActivityError as error:
                whys.append(_refused(error))
        if len(whole) != 1:
            raise errors.final(failures.TWO_COPIES, f"{two}: {'; '.join(whys) or 'both may be'}")
        for host in hosts:
            if host not in whole:
                await self._remove_handed_over(host, two, defined)
        await self._end(whole[0]).let_run(self._ref)
        self.done.append(f"let it run on {whole[0]}, where it stood whole")
        return whole[0]

    async def let_run(self, host: str, owner: str) -> None:
        """The only copy is paused by order. If it came from `owner`, which ended with that, and never ran, it is let
        run; otherwise a person paused it, and it stays so."""
        if owner == host or owner not in self._hosts:
            return
        try:
            await self._end(owner).prove_departure(self._ref)
            await self._end(host).let_run(self._ref)
            self.done.append(f"let it run on {host}, where it stood whole")
        except ActivityError as error:
            self.notes.append(f"it stays paused on {host}: {_refused(error)}")

    async def take_back(self, host: str) -> str:
        """The only copy stands still after a switch that nobody finished; it goes on if it was handed over in vain. Why
        not, or nothing."""
        try:
            await self._end(host).take_back(self._ref)
        except ActivityError as error:
            return _refused(error)
        self.done.append(f"let it run again on {host}, which had handed it over in vain")
        return ""

    async def _remove_handed_over(self, host: str, otherwise: str, defined_there: bool) -> None:
        try:
            await self._end(host).remove_handed_over(self._ref, defined_there)
        except ActivityError as error:
            raise errors.final(failures.TWO_COPIES, f"{otherwise}; {_refused(error)}") from error
        self.done.append(f"removed what {host} had handed over, and not run since")

    def _end(self, host: str) -> SwitchEnd:
        return SwitchEnd(self._site, host)

    async def close_paths(self) -> None:
        """End the VM's data paths on all hosts: nobody's move uses them any more."""
        await asyncio.gather(*(self._close_paths(host) for host in self._hosts))

    async def _close_paths(self, host: str) -> None:
        try:
            for path in (await Survivor(self._site, host).paths()).paths:
                if path.vm == self._ref.uuid:
                    await self._host(host).close_path(path.migration_id)
                    self.done.append(f"closed the data path {path.migration_id} on {host}")
                elif path.vm is None:
                    self.notes.append(f"{host} has data path {path.migration_id}, and does not know of which VM")
        except ActivityError as error:
            self.notes.append(f"data paths on {host} are left, and end by themselves ({errors.explain(error)[1]})")

    async def settle_images(self, runs_on: str, has_it: Sequence[str]) -> None:
        """Images made for the VM's disks: the VM's own host first, whose marks go and images stay. What is marked
        elsewhere after that is on storage that the VM does not use; removed where no definition of the VM uses it."""
        try:
            sheet = await self._host(runs_on).inspect(self._ref)
            images = [disk.image for disk in sheet.disks if disk.image and not disk.readonly]
            if not images:
                return
            await self._settle(runs_on, images, keep=True)
            for host in self._hosts:
                if host != runs_on:
                    await self._settle(host, images, keep=False, spare=host in has_it)
        except ActivityError as error:
            self.notes.append(f"images of dead moves may be left: {errors.explain(error)[1]}")

    async def _settle(self, host: str, images: Sequence[DiskImage], keep: bool, spare: bool = False) -> None:
        marks = (await Survivor(self._site, host).marks(images)).marks
        for migration in sorted(set(marks.values())):
            made = [image for image in images if marks.get(image.path) == migration]
            named = ", ".join(image.path for image in made)
            if spare:
                self.notes.append(f"images of migration {migration} are left on {host}, which has the VM too: {named}")
                continue
            await self._host(host).settle_disks(migration, made, keep)
            done = "forgot the marks beside" if keep else "removed"
            self.done.append(f"{done} images of migration {migration} on {host}: {named}")

    def _host(self, name: str) -> Host:
        host = Host(self._site, name)
        host.owner = self._ref
        return host


def _refused(error: ActivityError) -> str:
    """Why a host refused; anything else is raised."""
    kind, why = errors.explain(error)
    if kind != failures.REFUSED:
        raise error
    return why

"""Activities of a host about the bases that a region keeps: what they would save, and which of its disks become some.

Only here the blocks of a disk are known: the ledger beside its image has them. A disk becomes a base when it was proved
equal to the image of the VM that was shut off, and nothing of the kind is kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from temporalio import activity

from activities import first_send
from activities.accounts import Accounts
from activities.cloud_disks import FORMATS
from activities.errors import translated
from activities.fence import Fence
from activities.heartbeat import beat
from activities.on_host import OnHost
from clouds.cache import choose, entry
from clouds.cache.index import Index
from clouds.capabilities import Adapter
from clouds.disks.content import RawFile
from clouds.disks.ledger import SUFFIX, Ledger
from clouds.errors import CloudError, SourceChanged
from clouds.kvm.connection import Connection
from models.cloud_cache import BasesKept, BasesWeighed, KeepBases, WeighBases
from models.cloud_move import DiskSent
from models.disks import DiskImage
from models.host import HostSettings

NOT_KEPT = "the settings of {place} name no cache"


class CloudBaseActivities(OnHost):
    def __init__(
        self,
        settings: HostSettings,
        fence: Fence | None = None,
        opener: Callable[[str], Connection] | None = None,
        accounts: Accounts | None = None,
    ) -> None:
        super().__init__(settings, fence, opener)
        self._accounts = accounts or Accounts(settings.clouds, f"the worker of {settings.host}")

    @activity.defn(name="novacron.weigh_bases", no_thread_cancel_exception=True)
    @translated
    def weigh_bases(self, order: WeighBases) -> BasesWeighed:
        """About what bases would save, by a few blocks of each image that may be read while its VM writes to it: an
        estimate. Such are raw ones; of a qcow2 image QEMU alone knows where its blocks are."""
        index = first_send.index_of(self._accounts.adapter(order.place))
        if index is None:
            return BasesWeighed(reason=NOT_KEPT.format(place=order.place))
        saved, reasons = 0, []
        for disk in order.disks:
            if FORMATS.get(disk.format) != "raw":
                return BasesWeighed(reason=f"{disk.target} is {disk.format}: it is compared when it is sent")
            beat(f"comparing {disk.target}")
            with RawFile(disk.path) as image:
                bases = choose.candidates(index.bases(), image.size)
                choice = choose.pick(bases, first_send.seen(image, choose.asked(bases)))
            saved += self._about(disk, choice)
            reasons.append(f"{disk.target}: {choice.reason}")
        return BasesWeighed(saved=saved, reason="; ".join(reasons)[:4000])

    @activity.defn(name="novacron.keep_bases", no_thread_cancel_exception=True)
    @translated
    def keep_bases(self, order: KeepBases) -> BasesKept:
        """Tag and list those that are to stay, then make room for them. Done again it does nothing more."""
        self._fence.check(order.vm, "keep its disks as bases")
        adapter = self._accounts.adapter(order.place)
        index = first_send.index_of(adapter)
        if index is None:
            return BasesKept(reasons=(NOT_KEPT.format(place=order.place),))
        images = {disk.target: disk for disk in order.disks}
        kept, reasons = [], []
        for sent in order.sent:
            beat(f"keeping {sent.disk}")
            verdict = self._keep(index, order, images[sent.target], sent)
            reasons.append(f"{sent.target} ({sent.disk}): {verdict.reason}"[:4000])
            if verdict.yes:
                kept.append(sent.disk)
        removed = self._make_room(adapter, index) if kept else ()
        return BasesKept(disks=tuple(kept), reasons=tuple(reasons), removed=removed)

    def _about(self, disk: DiskImage, choice: choose.Choice) -> int:
        return round(choice.share * min(disk.allocated, disk.capacity)) if choice.base is not None else 0

    def _keep(self, index: Index, order: KeepBases, image: DiskImage, sent: DiskSent) -> choose.Verdict:
        if not sent.source or sent.source != sent.content:
            return choose.Verdict(False, "it was not compared with its image while the VM was off")
        try:
            ledger = Ledger.read(Path(f"{image.path}{SUFFIX}"), order.move)
        except SourceChanged as error:
            return choose.Verdict(False, error.what)
        if ledger.disk != sent.disk or ledger.content() != sent.content:
            return choose.Verdict(False, "what is known of it here is not what was sent last")
        name, now = f"{order.vm.vm}-{sent.target}", time.time()
        fresh, stored = entry.describe(sent.disk, name, ledger.size, ledger.digests, now)
        bases = index.bases()
        verdict = choose.keep(fresh, ledger.saved, bases, index.worths(now), index.bounds, now)
        if verdict.yes:
            index.add(fresh, stored)
        return verdict

    def _make_room(self, adapter: Adapter, index: Index) -> tuple[str, ...]:
        assert adapter.image_import is not None
        try:
            gone, _ = index.prune(
                adapter.image_import.delete_disk,
                lambda base: first_send.usable(adapter, base.disk, base.content),
                time.time(),
            )
        except CloudError:  # the next move tries again, or `novacron cloud cache prune`
            return ()
        return tuple(each.base.disk for each in gone)[:500]

"""Activities of a control worker about what a place keeps: what there is, and its removal."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from temporalio import activity

from activities import errors, first_send
from activities.accounts import Accounts
from activities.cloud import beating
from clouds.cache.choose import Worth
from clouds.cache.entry import Base
from clouds.cache.index import Index
from clouds.capabilities import Adapter
from clouds.errors import NotOffered
from models.cloud_cache import MOST_BASES, CachedBase, CacheReport, CacheRequest
from models.host import SiteSettings


class CloudCacheActivities:
    def __init__(self, settings: SiteSettings, accounts: Accounts | None = None) -> None:
        self._accounts = accounts or Accounts(settings.clouds, f"the control worker of {settings.site}")

    @activity.defn(name="novacron.look_at_cache")
    async def look_at_cache(self, wanted: CacheRequest) -> CacheReport:
        """What is kept; with `prune`, after what has to go went. Raises NotOffered where the settings name no cache."""

        def work() -> CacheReport:
            adapter = self._accounts.adapter(wanted.place)
            index = first_send.index_of(adapter)
            if index is None:
                adapter.require("RegionalCache")
                raise NotOffered(
                    f"the settings of {wanted.place} name no cache", "Name a bucket: docs/cloud-cache.md says how."
                )
            return _report(adapter, index, wanted)

        try:
            return await beating(work)
        except Exception as error:
            raise errors.of(error) from error


def _report(adapter: Adapter, index: Index, wanted: CacheRequest) -> CacheReport:
    now = time.time()
    worths = index.worths(now)
    removed: tuple[CachedBase, ...] = ()
    if wanted.action == "prune":
        assert adapter.image_import is not None
        gone, left = index.prune(
            adapter.image_import.delete_disk,
            lambda base: first_send.usable(adapter, base.disk, base.content),
            now,
            everything=wanted.everything,
        )
        removed = tuple(_told(each.base, worths.get(each.base.disk, Worth()), each.reason) for each in gone)
    else:
        left = index.bases()
    return CacheReport(
        place=wanted.place,
        scope=index.bounds.scope,
        most_gib=index.bounds.most_gib,
        days=index.bounds.days,
        bases=tuple(_told(base, worths.get(base.disk, Worth())) for base in left[:MOST_BASES]),
        removed=removed[:MOST_BASES],
        held=sum(base.held for base in left),
    )


def _told(base: Base, worth: Worth, gone: str = "") -> CachedBase:
    return CachedBase(
        disk=base.disk,
        name=base.name[:128],
        size=base.size,
        held=base.held,
        made=datetime.fromtimestamp(base.made, UTC),
        used=datetime.fromtimestamp(worth.used, UTC) if worth.used else None,
        uses=worth.uses,
        saved=worth.saved,
        in_use=worth.open,
        gone=gone,
    )

"""novacron.CloudCache: what a place keeps of VMs that moved there, as bases for the next ones; and its removal."""

from __future__ import annotations

from typing import Any

from temporalio import workflow
from temporalio.exceptions import ActivityError

from models import queues
from models.cloud_cache import CacheReport, CacheRequest
from workflows import errors, request
from workflows.calls.cloud import CloudSite

_EXAMPLE = '{"place": "aws:eu-west-1", "action": "prune"}'


@workflow.defn(name="novacron.CloudCache")
class CloudCache:
    @workflow.run
    async def run(self, raw: Any = None) -> CacheReport:
        wanted = request.read_as(CacheRequest, raw, _EXAMPLE)
        site = queues.site_of(workflow.info().task_queue)
        try:
            return await CloudSite(site, wanted.place).cache(wanted)
        except ActivityError as error:
            raise errors.final(*errors.explain(error)) from error

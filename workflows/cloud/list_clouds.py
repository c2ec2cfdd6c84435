"""novacron.ListClouds: the clouds that a site may move VMs to; with a place, the sizes there. Input may be left out."""

from __future__ import annotations

from typing import Any

from temporalio import workflow
from temporalio.exceptions import ActivityError

from models import queues
from models.cloud_move import CloudsAnswer, CloudsRequest
from workflows import errors, request
from workflows.calls.cloud import CloudSite

_EXAMPLE = '{"place": "aws:eu-west-1"}'


@workflow.defn(name="novacron.ListClouds")
class ListClouds:
    @workflow.run
    async def run(self, raw: Any = None) -> CloudsAnswer:
        wanted = request.read_as(CloudsRequest, {} if raw is None else raw, _EXAMPLE)
        site = queues.site_of(workflow.info().task_queue)
        try:
            if wanted.place is None:
                return CloudsAnswer(places=(await CloudSite(site).places()).places)
            return CloudsAnswer(sizes=await CloudSite(site, wanted.place).sizes())
        except ActivityError as error:
            raise errors.final(*errors.explain(error)) from error

"""novacron.Owners: one page of the site's owner records."""

from __future__ import annotations

from typing import Any

from temporalio import workflow
from temporalio.exceptions import ActivityError

from models import queues
from models.lease import LeasePage
from workflows import errors
from workflows.calls.owners import Leases


@workflow.defn(name="novacron.Owners")
class Owners:
    @workflow.run
    async def run(self, after: Any = "") -> LeasePage:
        """`after`: the UUID the page before ended with."""
        site = queues.site_of(workflow.info().task_queue)
        try:
            return await Leases(site).page(after=str(after or "")[:36])
        except ActivityError as error:
            if errors.cancelled(error):
                raise
            raise errors.final(*errors.explain(error)) from error

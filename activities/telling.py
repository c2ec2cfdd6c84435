"""The activity that hands a run's events over to the workflow that delivers them, and starts that one if need be."""

from __future__ import annotations

from collections.abc import Sequence

from temporalio import activity
from temporalio.client import Client
from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError

from models import ids, queues
from models.events import EventBatch, Told

_SITE = SearchAttributeKey.for_keyword("Site")
_VM_ID = SearchAttributeKey.for_keyword("VmId")
_HOST_IDS = SearchAttributeKey.for_keyword_list("HostIds")


class TellActivities:
    def __init__(self, client: Client | None) -> None:
        self._client = client

    @activity.defn(name="novacron.tell_events")
    async def tell_events(self, batch: EventBatch) -> Told:
        """Done again it changes nothing: the delivery knows an event by its id, and one that is complete stays so."""
        if self._client is None:
            raise RuntimeError("TellActivities.tell_events needs the Temporal client it was made without")
        await hand_over(self._client, batch)
        return Told(events=len(batch.events))


async def hand_over(client: Client, batch: EventBatch) -> None:
    try:
        await client.start_workflow(
            "novacron.DeliverEvents",
            batch.model_copy(update={"events": (), "last": False}),
            id=ids.events(batch.teller.workflow_id, batch.teller.run_id),
            task_queue=queues.events(batch.site),
            start_signal="more",
            start_signal_args=[batch],
            # a delivery that was ended from outside starts again; one that is complete does not
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY,
            search_attributes=TypedSearchAttributes([SearchAttributePair(_SITE, batch.site), _named(batch)]),
            static_summary=f"events of {batch.subject}",
        )
    except WorkflowAlreadyStartedError:
        return  # an attempt before this one, of which the answer was lost


def _named(batch: EventBatch) -> SearchAttributePair[str] | SearchAttributePair[Sequence[str]]:
    if ids.parse_migrate_vm(batch.teller.workflow_id):
        return SearchAttributePair(_VM_ID, batch.subject)
    return SearchAttributePair(_HOST_IDS, [batch.subject])

"""Telling and delivering events at a site without webhooks: what was told, and what a webhook took, are lists."""

from __future__ import annotations

from typing import TYPE_CHECKING

from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.telling import hand_over
from models.events import TYPES, Delivered, Delivery, EventBatch, Teller, Told, WebhookNames

if TYPE_CHECKING:
    from tests.workflow.fake_site import FakeSite


class FakeTell:
    """TellActivities of the site. Events are kept; only where there are webhooks they are delivered too."""

    def __init__(self, site: FakeSite) -> None:
        self._site = site

    @activity.defn(name="novacron.tell_events")
    async def tell_events(self, batch: EventBatch) -> Told:
        self._site.told += batch.events
        if self._site.received:
            await hand_over(self._site.client, batch)
        return Told(events=len(batch.events))


class FakeEvents:
    """EventActivities of the site: webhooks are lists."""

    def __init__(self, site: FakeSite) -> None:
        self._site = site

    @activity.defn(name="novacron.list_webhooks")
    async def list_webhooks(self) -> WebhookNames:
        return WebhookNames(wants=dict.fromkeys(self._site.received, tuple(TYPES)))

    @activity.defn(name="novacron.deliver_event")
    async def deliver_event(self, order: Delivery) -> Delivered:
        if order.webhook in self._site.webhooks_gone:
            raise ApplicationError(f"webhook {order.webhook}: no longer there", type="NotFound", non_retryable=True)
        if order.webhook in self._site.webhooks_down:
            self._site.webhooks_down[order.webhook].set()
            raise ApplicationError(f"webhook {order.webhook} answered 503", type="WebhookFailed")
        self._site.received[order.webhook].append(order.event)
        return Delivered(status=204)

    @activity.defn(name="novacron.teller_runs")
    async def teller_runs(self, teller: Teller) -> bool:
        return self._site.teller_runs

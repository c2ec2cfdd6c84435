"""Activities that deliver events: which webhooks a site has, and one attempt to give one event to one of them.

What is known only here, and never enters a workflow's history: URLs and secrets.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from temporalio import activity
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from activities import errors, signing
from activities.meters import count
from activities.post import PostFailed, post
from models import failures, metrics
from models.events import TYPES, Delivered, Delivery, Teller, Webhook, WebhookNames
from models.host import SiteSettings

logger = logging.getLogger(__name__)


class EventActivities:
    def __init__(self, settings: SiteSettings, client: Client | None, clock: Callable[[], float] = time.time) -> None:
        self._webhooks = {webhook.name: webhook for webhook in settings.webhooks}
        self._client = client
        self._clock = clock

    @activity.defn(name="novacron.list_webhooks")
    async def list_webhooks(self) -> WebhookNames:
        """Who wants which events."""
        return WebhookNames(
            wants={name: tuple(filter(webhook.wants, TYPES)) for name, webhook in self._webhooks.items()}
        )

    @activity.defn(name="novacron.deliver_event")
    async def deliver_event(self, order: Delivery) -> Delivered:
        """One attempt. Any answer but 2xx is worth another: receivers are repaired."""
        webhook = self._webhooks.get(order.webhook)
        if webhook is None:
            raise errors.final(
                failures.NOT_FOUND, f"webhook {order.webhook}: no longer in the control worker's settings"
            )
        try:
            done = await self._attempt(webhook, order)
        except BaseException:
            count(activity.metric_meter(), metrics.POSTS, webhook=webhook.name, outcome="failed")
            raise
        count(activity.metric_meter(), metrics.POSTS, webhook=webhook.name, outcome="delivered")
        return done

    async def _attempt(self, webhook: Webhook, order: Delivery) -> Delivered:
        body = order.event.model_dump_json().encode()
        now = int(self._clock())
        try:
            headers = {
                "content-type": "application/cloudevents+json",
                "user-agent": "novacron",
                "webhook-id": order.event.id,
                "webhook-timestamp": str(now),
                "webhook-signature": signing.signature(signing.secrets_of(webhook), order.event.id, now, body),
            }
            answer = await post(webhook.url, headers, body, webhook.timeout, webhook.authority)
        except signing.BadSecret as error:
            raise errors.retryable(failures.WEBHOOK_FAILED, str(error)) from error
        except PostFailed as error:
            raise errors.retryable(
                failures.WEBHOOK_FAILED, f"webhook {webhook.name} took no {order.event.type}: {error}"
            ) from error
        if 200 <= answer.status < 300:
            return Delivered(status=answer.status)
        remedy = ": redirects are not followed, name the final URL" if 300 <= answer.status < 400 else ""
        raise errors.retryable(
            failures.WEBHOOK_FAILED,
            f"webhook {webhook.name} answered {answer.status} to {order.event.type}{remedy} {answer.body}".rstrip(),
        )

    @activity.defn(name="novacron.teller_runs")
    async def teller_runs(self, teller: Teller) -> bool:
        """Is the run that tells these events still open? A run that was terminated tells nothing more."""
        if self._client is None:
            raise RuntimeError("EventActivities.teller_runs needs the Temporal client it was made without")
        try:
            handle = self._client.get_workflow_handle(teller.workflow_id, run_id=teller.run_id)
            return (await handle.describe()).status == WorkflowExecutionStatus.RUNNING
        except RPCError as error:
            if error.status == RPCStatusCode.NOT_FOUND:
                return False
            raise

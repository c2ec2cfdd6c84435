"""novacron.DeliverEvents: the events of one run, each to every webhook that wants it, at least once and in order.

Started and fed by the run that tells (workflows/events/telling.py), and independent of it. Its history is the log
that `novacron events` reads. Each webhook is served by itself: one that is down delays no other. An event that a
webhook has not taken a day after it happened is given up, and is a dead letter in the result.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError

from models import metrics
from models.events import CloudEvent, DeadLetter, Deliveries, Delivery, EventBatch, Teller
from workflows import errors
from workflows.calls.site import Courier

with workflow.unsafe.imports_passed_through():
    from activities import meters

GIVE_UP_AFTER = timedelta(hours=24)
LAST_CHANCE = timedelta(minutes=1)
"""What an event gets at least, when those before it have used up its day."""
LOOK_AFTER = timedelta(hours=1)
"""Silence after which the teller is looked for: one that was terminated says no goodbye."""
_MOST_DEAD = 100


@workflow.defn(name="novacron.DeliverEvents")
class DeliverEvents:
    def __init__(self) -> None:
        self._events: list[CloudEvent] = []
        self._complete = False
        self._delivered: Counter[str] = Counter()
        self._dead: list[DeadLetter] = []

    @workflow.run
    async def run(self, first: EventBatch) -> Deliveries:
        self.more(first)
        courier = Courier(first.site)
        wants = (await courier.webhooks()).wants
        serving = (self._serve(courier, webhook, types) for webhook, types in sorted(wants.items()))
        await asyncio.gather(self._listen(courier, first.teller), *serving)
        return Deliveries(events=len(self._events), delivered=dict(self._delivered), dead=tuple(self._dead))

    @workflow.signal(description="The next events of the run that tells; not for people")
    def more(self, batch: EventBatch) -> None:
        known = {event.id for event in self._events}
        self._events += [event for event in batch.events if event.id not in known]
        self._complete = self._complete or batch.last

    async def _listen(self, courier: Courier, teller: Teller) -> None:
        while not self._complete:
            heard = len(self._events)
            try:
                await self._more_than(heard, LOOK_AFTER)
            except TimeoutError:
                self._complete = self._complete or not await courier.teller_runs(teller)

    async def _more_than(self, known: int, within: timedelta | None = None) -> None:
        """Returns when there are more events, or there never will be. Raises TimeoutError."""
        await workflow.wait_condition(
            lambda: self._complete or len(self._events) > known, timeout=within, timeout_summary="more events"
        )

    async def _serve(self, courier: Courier, webhook: str, types: tuple[str, ...]) -> None:
        """One after the other: a receiver sees a run's events in order."""
        place = 0
        while True:
            await self._more_than(place)
            if place == len(self._events):
                return
            event, place = self._events[place], place + 1
            if event.type in types:
                await self._deliver(courier, webhook, event)

    async def _deliver(self, courier: Courier, webhook: str, event: CloudEvent) -> None:
        left = event.time + GIVE_UP_AFTER - workflow.now()
        try:
            await courier.deliver(Delivery(webhook=webhook, event=event), max(left, LAST_CHANCE))
            self._delivered[webhook] += 1
        except ActivityError as error:
            if errors.cancelled(error):
                raise
            self._give_up(webhook, event, errors.explain(error)[1])

    def _give_up(self, webhook: str, event: CloudEvent, why: str) -> None:
        workflow.logger.error("dead letter: %s did not take %s %s: %s", webhook, event.type, event.id, why)
        meters.count(workflow.metric_meter(), metrics.DEAD_LETTERS, webhook=webhook)
        if len(self._dead) < _MOST_DEAD:
            letter = DeadLetter(webhook=webhook, event_id=event.id, type=event.type, why=why[:1000])
            self._dead.append(letter)

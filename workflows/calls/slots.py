"""What moves and the keeper of the site's slots ask of the control worker."""

from __future__ import annotations

from datetime import timedelta

from temporalio import workflow
from temporalio.workflow import ActivityConfig

from models import queues
from models.slots import GiveBack, SlotAnswer, SlotWish, SlotWishes
from workflows.calls import deadlines

with workflow.unsafe.imports_passed_through():
    from activities.slots import SlotActivities

_call = workflow.execute_activity_method

_BACK_WITHIN = timedelta(seconds=20)
"""Seconds a move that ends tries to give its slots back. Then the keeper's look finds it out."""
_COUNTED_WITHIN = timedelta(minutes=5)


class SlotKeeper:
    """The workflow novacron.Slots of a site, reached through the control worker."""

    def __init__(self, site: str) -> None:
        self._site = site

    async def ask(self, wish: SlotWish) -> SlotAnswer:
        return await _call(SlotActivities.ask_slot, wish, **self._to("may the move begin?"))

    async def give_back(self, order: GiveBack) -> None:
        config = self._to("give the slots back")
        config["schedule_to_close_timeout"] = _BACK_WITHIN
        await _call(SlotActivities.give_slot_back, order, **config)

    async def count(self) -> SlotWishes:
        config = self._to("which moves run?")
        config["start_to_close_timeout"] = config["schedule_to_close_timeout"] = _COUNTED_WITHIN
        config["heartbeat_timeout"] = timedelta(seconds=30)
        return await _call(SlotActivities.count_moves, **config)

    def _to(self, what: str) -> ActivityConfig:
        return ActivityConfig(
            task_queue=queues.control(self._site), summary=f"{self._site}: {what}", **deadlines.CONTROL
        )

"""A move's part in the site's slots: it asks, waits until it is called or it is time to ask again, and gives back.

Nothing begins without the keeper's answer: one that cannot be reached is waited for too.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import chain, repeat

from temporalio import workflow
from temporalio.exceptions import ActivityError

from models.slots import GiveBack, SlotAnswer, SlotWish
from workflows import errors
from workflows.calls.slots import SlotKeeper

_ASK_AGAIN: tuple[float, ...] = (15, 30, 60, 120, 300)
"""Seconds until it asks again though nobody called, since the keeper may have been lost. The last one goes on."""


class TooLate(Exception):
    """The time given for the wait is over; the message is what it waited for."""


class Slot:
    def __init__(self) -> None:
        self._site: str | None = None
        """Of the keeper that was asked; None: none was."""
        self._wish: SlotWish | None = None
        self._held = False
        self._asking = False
        self._called = False
        self.waits = False

    @property
    def since(self) -> datetime | None:
        """When it asked first."""
        return self._wish.since if self._wish else None

    def wish(self) -> SlotWish | None:
        """For a keeper that counts; None: it neither holds a slot nor waits for one. An answer may be on its way, so
        who is asking counts as moving, until it asks again."""
        if self._wish is None or not (self._site or self._held):
            return None
        held = self._held or self._asking
        return self._wish.model_copy(update={"held": held, "asking": self._asking})

    def has(self, wish: SlotWish) -> bool:
        return self._held and self._wish == wish

    def called(self) -> None:
        self._called = True

    def moves_anyway(self, wish: SlotWish) -> None:
        """It asks nobody, but is counted, should limits be set while it moves."""
        self._wish, self._held = wish, True

    async def take(self, site: str, wish: SlotWish, until: Callable[[], datetime], tell: Callable[[str], None]) -> bool:
        """Returns with a slot of everything on the way; True: it had to be waited for. `until` may change meanwhile.
        Raises TooLate."""
        self._site, self._wish, self._held = site, wish, False
        for pause in chain(_ASK_AGAIN, repeat(_ASK_AGAIN[-1])):
            self._called = False
            answer = await self._ask(site, wish)
            if answer.granted:
                break
            self.waits = True
            tell(answer.why)
            await self._pause(pause, until, answer.why)
        self._held = True
        waited, self.waits = self.waits, False
        return waited

    async def give_back(self) -> None:
        """The slot, or the place in the line. What could not be told is found out by the keeper's next look."""
        site, self._site, self._held, self.waits = self._site, None, False, False
        if site is None or self._wish is None:
            return
        try:
            order = GiveBack(workflow_id=self._wish.workflow_id, run_id=self._wish.run_id)
            await SlotKeeper(site).give_back(order)
        except ActivityError as error:
            if errors.cancelled(error):
                raise

    async def _ask(self, site: str, wish: SlotWish) -> SlotAnswer:
        self._asking = True
        try:
            return await SlotKeeper(site).ask(wish)
        except ActivityError as error:
            if errors.cancelled(error):
                raise
            return SlotAnswer(
                granted=False, why=f"nobody could say whether one is free ({errors.explain(error)[1]})"[:500]
            )
        finally:
            self._asking = False

    async def _pause(self, seconds: float, until: Callable[[], datetime], why: str) -> None:
        end = until()
        left = (end - workflow.now()).total_seconds()
        if left <= 0:
            raise TooLate(why)
        try:
            await workflow.wait_condition(
                lambda: self._called or until() != end,
                timeout=timedelta(seconds=min(seconds, left)),
                timeout_summary="until a slot is free",
            )
        except TimeoutError:
            return

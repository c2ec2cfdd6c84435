"""When a move may start, by a policy's windows. An activity, so that the history keeps the answer: the time zone
database of a worker may change while a move waits.
"""

from __future__ import annotations

from temporalio import activity

from activities import errors
from models import failures
from models.planning import Opening, OpeningQuery
from models.windows import next_opening


class OpeningActivities:
    @activity.defn(name="novacron.next_opening")
    async def next_opening(self, query: OpeningQuery) -> Opening:
        try:
            return Opening(at=next_opening(query.windows, query.at))
        except ValueError as error:
            raise errors.final(failures.INVALID_INPUT, f"policy.{error}") from None

"""The decisions of one move on its host's disk: an attempt that comes later knows what was done, and tells it again.

One line of JSON each, in the migration's folder, flushed before anyone hears of it. A line that a crash cut off is the
last one and is left out: what it says was done, and is done again, which changes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from pydantic import ValidationError

from activities.folder import Folder
from clouds.kvm.controller import Step
from models.decisions import MOST_DECISIONS, Decision

TOLD_AGAIN = 16
"""So many of the newest are told again by a later attempt; the move's result has them all."""


class Journal:
    def __init__(self, folder: Folder, tell: Callable[[Decision], None]) -> None:
        self._path = folder.path / "decisions.jsonl"
        self._tell = tell
        self.decisions = self._read()
        for decision in self.decisions[-TOLD_AGAIN:]:
            tell(decision)

    def add(self, step: Step, at: float) -> None:
        number = self.decisions[-1].number + 1 if self.decisions else 1
        decision = Decision(
            number=number,
            at=max(0.0, at),
            action=step.action,
            value=step.value,
            reason=step.reason[:500],
            inputs=dict(step.inputs),
        )
        with self._path.open("a") as file:
            file.write(decision.model_dump_json() + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.decisions = [*self.decisions, decision][-MOST_DECISIONS:]
        self._tell(decision)

    def _read(self) -> list[Decision]:
        try:
            lines = self._path.read_text().splitlines()
        except FileNotFoundError:
            return []
        found = []
        for line in lines:
            try:
                found.append(Decision.model_validate_json(line))
            except ValidationError:
                continue
        return found[-MOST_DECISIONS:]

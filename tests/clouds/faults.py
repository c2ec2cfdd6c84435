"""A fault plan for the cloud fakes: what goes wrong with which call, and how often."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from threading import Lock
from typing import Literal

Kind = Literal["throttle", "quota", "permission", "expired", "unavailable", "drop", "lose", "damage", "fail"]
"""drop: the connection ends before the call has an effect. lose: after it, without an answer. damage: a bit of the
bytes flips on the way. fail: the long operation that the call begins ends badly."""


@dataclass
class Fault:
    kind: Kind
    times: int
    after: int
    """Calls that go well first."""


@dataclass
class FaultPlan:
    """`plan.on("PutSnapshotBlock", "lose", after=3)`: the fourth call's answer is lost, later ones go well."""

    calls: list[str] = field(default_factory=list)
    """Operations as they came, those that failed too."""
    _faults: dict[str, list[Fault]] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def on(self, operation: str, kind: Kind, times: int = 1, after: int = 0) -> None:
        self._faults.setdefault(operation, []).append(Fault(kind, times, after))

    def clear(self) -> None:
        """All goes well from now on."""
        with self._lock:
            self._faults.clear()

    def next(self, operation: str) -> Kind | None:
        """Counts the call, and says what is to happen to it."""
        with self._lock:
            self.calls.append(operation)
            for fault in self._faults.get(operation, []):
                if fault.after:
                    fault.after -= 1
                elif fault.times:
                    fault.times -= 1
                    return fault.kind
            return None

    def count(self, operation: str) -> int:
        return Counter(self.calls)[operation]

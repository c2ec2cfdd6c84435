"""The cloud accounts of a worker's settings, by place. Connected on first use, and kept: an SDK loads for a second."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock

from clouds.adapters import connect
from clouds.capabilities import Adapter
from clouds.errors import NotOffered
from models.clouds import CloudAccounts, CloudSettings, place_of


class Accounts:
    def __init__(
        self, settings: CloudAccounts, worker: str, opener: Callable[[CloudSettings], Adapter] = connect
    ) -> None:
        """`worker` names whose settings these are. `opener` replaces the SDKs in tests."""
        self._settings = {place_of(each): each for each in settings}
        self._worker = worker
        self._opener = opener
        self._adapters: dict[str, Adapter] = {}
        self._lock = Lock()

    @property
    def places(self) -> tuple[str, ...]:
        return tuple(sorted(self._settings))

    def adapter(self, place: str) -> Adapter:
        """Raises NotOffered, with the places there are."""
        if place not in self._settings:
            there = ", ".join(self.places) or "none"
            raise NotOffered(
                f"{self._worker} has no cloud account for {place} in its settings (clouds: {there})",
                "Add it there, restart the worker, and give it credentials as the provider's SDK finds them.",
            )
        with self._lock:
            if place not in self._adapters:
                self._adapters[place] = self._opener(self._settings[place])
            return self._adapters[place]

    def poll(self, place: str) -> float:
        """Seconds between two looks at a long operation there."""
        return self._settings[place].calls.poll

    def parallel(self, place: str) -> int:
        """Blocks in flight in one transfer there."""
        return self._settings[place].calls.parallel

"""libvirt, as little of it as is used: a connection, a domain, and an error with a number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


class libvirtError(Exception):  # it is told apart by this very name
    def __init__(self, code: int, domain: int = 10, text: str = "libvirt's words") -> None:
        super().__init__(text)
        self._of = (code, domain, text)

    def get_error_code(self) -> int:
        return self._of[0]

    def get_error_domain(self) -> int:
        return self._of[1]

    def get_error_message(self) -> str:
        return self._of[2]


class PlayedDomain:
    def __init__(self, name: str = "web", uuid: str = "u" * 36) -> None:
        self._name, self._uuid = name, uuid
        self.now: list[int] = [1, 1]
        self.stats: dict[str, Any] | Exception = {"type": 0}
        self.persistent = 0
        self.auto = 0
        self.calls: list[tuple[Any, ...]] = []
        self.fails: dict[str, Exception] = {}
        self.connection: PlayedConnection | None = None
        self.labels: str | None = None
        """The XML of its labels."""

    def _do(self, *call: Any) -> int:
        self.calls.append(call)
        if call[0] in self.fails:
            raise self.fails[call[0]]
        return 0

    def name(self) -> str:
        return self._name

    def UUIDString(self) -> str:
        return self._uuid

    def state(self) -> list[int]:
        if "state" in self.fails:
            raise self.fails["state"]
        return self.now

    def info(self) -> list[int]:
        return [self.now[0], 524288, 524288, 2, 0]

    def isPersistent(self) -> int:
        return self.persistent

    def isActive(self) -> int:
        return int(self.now[0] not in (5, 6))

    def autostart(self) -> int:
        return self.auto

    def setAutostart(self, autostart: int) -> int:
        self.auto = autostart
        return self._do("autostart", autostart)

    def jobStats(self, flags: int = 0) -> dict[str, Any]:
        if isinstance(self.stats, Exception):
            raise self.stats
        return self.stats

    def abortJob(self) -> int:
        return self._do("abort")

    def destroy(self) -> int:
        done = self._do("destroy")
        if self.connection:
            self.connection.domains.remove(self)
        return done

    def undefineFlags(self, flags: int = 0) -> int:
        self.persistent = 0
        return self._do("undefine", flags)

    def shutdown(self) -> int:
        return self._do("shutdown")

    def blockInfo(self, path: str, flags: int = 0) -> list[int]:
        return [1 << 30, 1 << 20, 1 << 20]

    def metadata(self, type: int, uri: str | None, flags: int = 0) -> str:
        if self.labels is None:
            raise libvirtError(80)
        return self.labels

    def setMetadata(self, type: int, metadata: str | None, key: str | None, uri: str, flags: int = 0) -> int:
        self.labels = metadata
        return self._do("metadata", metadata, flags)

    def snapshotNum(self, flags: int = 0) -> int:
        return 0

    def startDirtyRateCalc(self, seconds: int, flags: int = 0) -> int:
        return self._do("dirty rate", seconds, flags)

    def migrateStartPostCopy(self, flags: int = 0) -> int:
        return self._do("post-copy", flags)

    def migrateSetMaxDowntime(self, downtime: int, flags: int = 0) -> int:
        return self._do("downtime", downtime)

    def migrateSetMaxSpeed(self, bandwidth: int, flags: int = 0) -> int:
        return self._do("speed", bandwidth)

    def suspend(self) -> int:
        return self._do("suspend")

    def resume(self) -> int:
        self.now = [1, 5]
        return self._do("resume")

    def migrateToURI3(self, uri: str, params: dict[str, Any], flags: int = 0) -> int:
        return self._do("migrate", uri, params, flags)


class PlayedConnection:
    def __init__(self, *domains: PlayedDomain) -> None:
        self.domains = list(domains)
        self.alive = 1
        self.closed = 0
        self.listeners: list[Callable[..., None]] = []
        self.figures: list[dict[str, Any]] = [{}]
        """Statistics of a domain, one answer after another; the last one stays."""
        for domain in domains:
            domain.connection = self

    def isAlive(self) -> int:
        return self.alive

    def close(self) -> int:
        self.closed += 1
        return 0

    def lookupByName(self, name: str) -> PlayedDomain:
        return self._the(lambda domain: domain.name() == name)

    def lookupByUUIDString(self, uuid: str) -> PlayedDomain:
        return self._the(lambda domain: domain.UUIDString() == uuid)

    def _the(self, wanted: Callable[[PlayedDomain], bool]) -> PlayedDomain:
        for domain in self.domains:
            if wanted(domain):
                return domain
        raise libvirtError(42)

    def domainListGetStats(
        self, doms: list[PlayedDomain], stats: int = 0, flags: int = 0
    ) -> list[tuple[PlayedDomain, dict[str, Any]]]:
        figures = self.figures.pop(0) if len(self.figures) > 1 else self.figures[0]
        return [(domain, figures) for domain in doms]

    def domainEventRegisterAny(self, domain: None, event: int, callback: Callable[..., None], opaque: object) -> int:
        self.listeners.append(callback)
        return 0


@pytest.fixture
def failure() -> type[libvirtError]:
    return libvirtError


@pytest.fixture
def domain() -> PlayedDomain:
    return PlayedDomain()


@pytest.fixture
def connection(domain: PlayedDomain) -> PlayedConnection:
    return PlayedConnection(domain)

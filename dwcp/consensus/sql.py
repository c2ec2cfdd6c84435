"""The store in SQL, for every database that can serialise: read the record, let the rules decide, write it, commit."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from dwcp.consensus import rules
from models.lease import HoldLease, Lease, LeasePage, LeaseQuery, TakeLease

SCHEMA = (
    """CREATE TABLE IF NOT EXISTS novacron_leases (
        site TEXT NOT NULL, uuid TEXT NOT NULL, vm TEXT NOT NULL, host TEXT NOT NULL, token BIGINT NOT NULL,
        lock TEXT NOT NULL, operation TEXT NOT NULL, expires DOUBLE PRECISION NOT NULL, PRIMARY KEY (site, uuid))""",
    "CREATE TABLE IF NOT EXISTS novacron_tokens (one INTEGER PRIMARY KEY CHECK (one = 1), last BIGINT NOT NULL)",
    "INSERT INTO novacron_tokens VALUES (1, 0) ON CONFLICT DO NOTHING",
)
_FIELDS = ("site", "uuid", "vm", "host", "token", "lock", "operation", "expires")
_COLUMNS = ", ".join(_FIELDS)
_LOOK = f"SELECT {_COLUMNS} FROM novacron_leases WHERE site = ? AND uuid = ?"
_LIST = f"SELECT {_COLUMNS} FROM novacron_leases WHERE site = ? AND uuid > ? ORDER BY uuid LIMIT ?"
_PUT = (
    f"INSERT INTO novacron_leases ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (site, uuid) DO UPDATE SET "
    + ", ".join(f"{field} = excluded.{field}" for field in _FIELDS[2:])
)
_LAST = "SELECT last FROM novacron_tokens"
_NEXT = "UPDATE novacron_tokens SET last = ? WHERE last < ?"

Row = Sequence[Any]


class Transaction(Protocol):
    def run(self, statement: str, *values: object) -> list[Row]:
        """The rows of one statement, whose parameters are written `?`."""

    def now(self) -> float:
        """The store's own clock."""


class SqlLeases(ABC):
    @abstractmethod
    def _transaction(self, write: bool) -> AbstractContextManager[Transaction]:
        """One transaction; of those that write, one at a time from its first statement on. Commits at its end, rolls
        back on an error, and raises StoreUnavailable for what the database could not do."""

    def take(self, wish: TakeLease) -> Lease:
        with self._transaction(write=True) as now:
            found = _read(now, wish.site, wish.uuid)
            if found and rules.again(found, wish):
                return found
            time = now.now()
            rules.may_take(found, wish, time)
            token = max(int(now.run(_LAST)[0][0]), wish.above, found.token if found else 0) + 1
            now.run(_NEXT, token, token)
            lease = rules.taken(found, wish, token, time)
            _write(now, lease)
            return lease

    def renew(self, held: HoldLease) -> Lease:
        return self._change(held, rules.renewed)

    def hand_over(self, held: HoldLease) -> Lease:
        return self._change(held, lambda found, held, _: rules.handed_over(found, held))

    def release(self, held: HoldLease) -> Lease | None:
        with self._transaction(write=True) as now:
            lease = rules.released(_read(now, held.site, held.uuid), held)
            if lease:
                _write(now, lease)
            return lease

    def look(self, site: str, uuid: str) -> Lease | None:
        with self._transaction(write=False) as now:
            return _read(now, site, uuid)

    def list(self, query: LeaseQuery) -> LeasePage:
        with self._transaction(write=False) as now:
            rows = now.run(_LIST, query.site, query.after, query.limit + 1)
            leases = tuple(_lease(row) for row in rows[: query.limit])
            return LeasePage(leases=leases, more=len(rows) > query.limit, highest=int(now.run(_LAST)[0][0]))

    def _change(self, held: HoldLease, change: Callable[[Lease | None, HoldLease, float], Lease]) -> Lease:
        with self._transaction(write=True) as now:
            lease = change(_read(now, held.site, held.uuid), held, now.now())
            _write(now, lease)
            return lease


def _read(now: Transaction, site: str, uuid: str) -> Lease | None:
    rows = now.run(_LOOK, site, uuid)
    return _lease(rows[0]) if rows else None


def _write(now: Transaction, lease: Lease) -> None:
    now.run(_PUT, *(getattr(lease, field) for field in _FIELDS))


def _lease(row: Row) -> Lease:
    return Lease.model_validate(dict(zip(_FIELDS, row, strict=True)))

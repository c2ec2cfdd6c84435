"""The store of a site with several control workers: PostgreSQL, through psycopg 3 (the extra `postgres`).

The server's clock is the only clock. Writers go one at a time by an advisory lock, held for one short transaction.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, cast

from dwcp.consensus.port import StoreUnavailable
from dwcp.consensus.sql import SCHEMA, Row, SqlLeases

if TYPE_CHECKING:
    import psycopg

CONNECT_SECONDS: Final = 5
STATEMENT_MS: Final = 10_000
_LOCK: Final = 0x4E6F7661  # any number that nobody else uses in this database


class PostgresLeases(SqlLeases):
    """`dsn` is a connection string of libpq."""

    def __init__(self, dsn: str) -> None:
        try:
            import psycopg
        except ImportError as error:
            raise StoreUnavailable(
                "owner records are in PostgreSQL, and psycopg is not installed: pip install 'novacron[postgres]'"
            ) from error
        self._psycopg = psycopg
        self._dsn = dsn
        self._made = False
        self._making = threading.Lock()

    @contextlib.contextmanager
    def _transaction(self, write: bool) -> Iterator[_Now]:
        try:
            self._make()
            with self._connect() as connection:
                if write:
                    connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
                yield _Now(connection)
        except self._psycopg.Error as error:
            raise self._unavailable(error) from error

    def _make(self) -> None:
        with self._making:
            if self._made:
                return
            with self._connect() as connection:
                connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
                for statement in SCHEMA:
                    connection.execute(cast(Any, statement))
            self._made = True

    def _connect(self) -> psycopg.Connection[Any]:
        """Commits, or rolls back, and closes with its `with`. Durable whatever the server's default is."""
        return self._psycopg.connect(
            self._dsn,
            connect_timeout=CONNECT_SECONDS,
            options=f"-c statement_timeout={STATEMENT_MS} -c synchronous_commit=on",
        )

    def _unavailable(self, error: Exception) -> StoreUnavailable:
        """The connection string is left out: it may hold a password."""
        self._made = False  # another database may stand behind the same address next time
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return StoreUnavailable(
            f"the owner records in PostgreSQL cannot be used: {reason}. Check the server and the DSN"
        )


class _Now:
    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def run(self, statement: str, *values: object) -> list[Row]:
        cursor = self._connection.execute(cast(Any, statement.replace("?", "%s")), values)
        return cursor.fetchall() if cursor.description else []

    def now(self) -> float:
        return float(self.run("SELECT extract(epoch FROM clock_timestamp())")[0][0])

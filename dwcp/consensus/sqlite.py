"""The embedded store: one SQLite file, safe between threads and processes of one machine, and through kill -9 and power
loss (WAL, synchronous FULL: what was answered is on disk). Not for network file systems."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from dwcp.consensus.port import StoreUnavailable
from dwcp.consensus.sql import SCHEMA, Row, SqlLeases

BUSY_SECONDS: Final = 10.0
"""How long one call waits for the others."""


class SqliteLeases(SqlLeases):
    def __init__(self, file: Path) -> None:
        self._file = file

    @contextlib.contextmanager
    def _transaction(self, write: bool) -> Iterator[_Now]:
        """A connection of its own each time: nothing is shared, and nothing to mend when the file is replaced."""
        try:
            with contextlib.closing(self._open()) as connection:
                connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")
                try:
                    yield _Now(connection)
                except BaseException:
                    connection.execute("ROLLBACK")
                    raise
                connection.execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            raise StoreUnavailable(
                f"the owner records in {self._file} cannot be used: {error}. Check the folder, its room and its "
                f"permissions"
            ) from error

    def _open(self) -> sqlite3.Connection:
        fresh = not self._file.exists()
        if fresh:
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        connection = sqlite3.connect(self._file, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            connection.execute("PRAGMA synchronous = FULL")
            if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'novacron_tokens'").fetchall():
                self._make(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    @staticmethod
    def _make(connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("BEGIN IMMEDIATE")
        for statement in SCHEMA:
            connection.execute(statement)
        connection.execute("COMMIT")


class _Now:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def run(self, statement: str, *values: object) -> list[Row]:
        return self._connection.execute(statement, values).fetchall()

    @staticmethod
    def now() -> float:
        return time.time()

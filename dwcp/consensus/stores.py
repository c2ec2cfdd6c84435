"""The store that the settings name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dwcp.consensus.port import LeaseStore, StoreUnavailable
from dwcp.consensus.postgres import PostgresLeases
from dwcp.consensus.sqlite import SqliteLeases
from models.lease import LeaseSettings


def open_store(settings: LeaseSettings, environment: Mapping[str, str]) -> LeaseStore:
    """Connects to nothing yet. Raises StoreUnavailable when something is missing here."""
    if settings.store == "sqlite":
        return SqliteLeases(Path(settings.file))
    if not (dsn := environment.get(settings.dsn_variable)):
        raise StoreUnavailable(
            f"owner records are in PostgreSQL, and {settings.dsn_variable} is not set: give the control worker a "
            f"connection string there, such as postgresql://novacron@db.example.net/novacron"
        )
    return PostgresLeases(dsn)

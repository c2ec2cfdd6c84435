"""Floor 5: the faces. Other people's code imports only this package.

async with NovaCron.connect() as nova:
    outcome = await nova.migrate("counter", to="host-b")
"""

from novacron.client import Migration, NovaCron
from novacron.errors import (
    AlreadyMoving,
    Ambiguous,
    Cancelled,
    InvalidInput,
    MigrationFailed,
    NotFound,
    NovaCronError,
    Refused,
    Unreachable,
)

__all__ = [
    "AlreadyMoving",
    "Ambiguous",
    "Cancelled",
    "InvalidInput",
    "Migration",
    "MigrationFailed",
    "NotFound",
    "NovaCron",
    "NovaCronError",
    "Refused",
    "Unreachable",
]

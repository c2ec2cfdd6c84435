"""Types of the errors a move may end with. Activities and workflows raise them, faces act on them."""

from __future__ import annotations

INVALID_INPUT = "InvalidInput"
"""The request does not fit; the message names the field."""
NOT_FOUND = "NotFound"
"""No such VM where it was looked for."""
REFUSED = "Refused"
"""Pre-flight: nothing was started, the findings say why."""
MIGRATION_FAILED = "MigrationFailed"
DATA_PATH_FAILED = "DataPathFailed"
HOST_UNAVAILABLE = "HostUnavailable"
"""A host did not answer; asking again may help."""
AMBIGUOUS = "Ambiguous"
"""Where the VM runs is not certain. Nothing was destroyed; people must look."""
CANCELLED = "Cancelled"
WEBHOOK_FAILED = "WebhookFailed"
"""A webhook did not take an event; it is tried again. Never how a move ends."""

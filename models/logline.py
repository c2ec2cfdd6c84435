"""One line of log as JSON: the form all our processes share, so that one query finds a move in all of their logs.

Keys: time (RFC 3339, UTC), level, logger, message, `error` with the traceback if there is one, and what the process
knows of the context: process, site, host, migration_id, vm, workflow_id, run_id, activity, attempt.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

Context = Mapping[str, str | int]


class BadFormat(ValueError):
    """NOVACRON_LOG_FORMAT is neither json nor text."""


class JsonLines(logging.Formatter):
    """`context` is asked for each line, in the thread that logs it."""

    def __init__(self, context: Callable[[], Context]) -> None:
        super().__init__()
        self._context = context

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: value for name, value in self._context().items() if value != ""}
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def chosen(text: str, context: Callable[[], Context]) -> logging.Formatter:
    """By NOVACRON_LOG_FORMAT: JSON lines, or `text` as logging has it (the default). Raises BadFormat."""
    match os.environ.get("NOVACRON_LOG_FORMAT") or "text":
        case "json":
            return JsonLines(context)
        case "text":
            return logging.Formatter(text)
        case other:
            raise BadFormat(f"NOVACRON_LOG_FORMAT: got {other!r}. Use json or text")

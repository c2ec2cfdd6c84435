"""The one logger set-up of our processes: one line per event on stderr, with a time; the service manager keeps it.

NOVACRON_LOG_FORMAT=json makes each line JSON, with the move it belongs to (models/logline.py lists the keys).
"""

from __future__ import annotations

import logging
import sys

from temporalio import workflow

from activities import context
from models import logline

_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def to_stderr(level: str = "INFO", **process: str) -> None:
    """`process`: what every line says, such as host and site. Raises logline.BadFormat."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logline.chosen(_TEXT, lambda: {**process, **context.current()}))
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    # JSON lines have it in keys of their own
    workflow.logger.workflow_info_on_message = not isinstance(handler.formatter, logline.JsonLines)
    # Temporal's SDK tells of every attempt that fails; the workflow's history and our own lines say the same.
    logging.getLogger("temporalio.activity").setLevel(logging.ERROR)

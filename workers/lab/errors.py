"""The one error of the lab, and its two ways to deal with the machine: run a command, wait for a condition."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


SEARCH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:/usr/bin:/bin"
"""Where programs are looked for: `su` leaves out the folders of tc, bridge and libvirtd."""


class LabError(Exception):
    """The lab cannot do what was asked. The message says what happened, to what, and what to do next."""


def run(*command: str, within: float = 20) -> str:
    """Run a command to its end; return what it printed, or raise LabError with its own words."""
    environment = {**os.environ, "PATH": SEARCH}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=within, check=False, env=environment)
    except FileNotFoundError as error:
        raise LabError(f"`{command[0]}` is not installed: run `make setup`") from error
    except subprocess.TimeoutExpired as error:
        raise LabError(f"`{' '.join(command)}` did not end within {within:g} s") from error
    if done.returncode:
        raise LabError(f"`{' '.join(command)}` failed: {done.stderr.strip() or f'exit code {done.returncode}'}")
    return done.stdout


def wait_until(ready: Callable[[], T | None], within: float, otherwise: Callable[[], str]) -> T:
    """Ask `ready` until it answers something true; LabError with the words of `otherwise` at the deadline."""
    deadline = time.monotonic() + within
    while True:
        if answer := ready():
            return answer
        if time.monotonic() > deadline:
            raise LabError(otherwise())
        time.sleep(0.03)

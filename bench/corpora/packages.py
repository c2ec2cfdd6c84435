"""Debian packages that a corpus needs: installed when they are missing, their services not started."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from workers.lab.errors import LabError

_POLICY: Final = Path("/usr/sbin/policy-rc.d")
"""Where Debian asks whether a package may start its services."""
_APT: Final = ("apt-get", "-y", "--no-install-recommends", "install")


def need(program: str, package: str) -> str:
    """The path of `program`, installing `package` if it is not there. Raises LabError."""
    if found := shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"):
        return found
    install(package)
    if found := shutil.which(program):
        return found
    raise LabError(f"package {package} is installed but brings no {program}: see `dpkg -L {package}`")


def install(package: str) -> None:
    """Say it, and do it."""
    print(f"installing the package {package}", file=sys.stderr)
    ours = not _POLICY.exists()
    try:
        if ours:
            _POLICY.write_text("#!/bin/sh\nexit 101\n")
            _POLICY.chmod(0o755)
        done = subprocess.run(
            [*_APT, package],
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
        )
    except OSError as error:
        raise LabError(f"cannot install {package}: {error}; run as root on Debian") from error
    finally:
        if ours:
            _POLICY.unlink(missing_ok=True)
    if done.returncode:
        raise LabError(f"apt-get cannot install {package}: {done.stderr.strip()[-400:]}")

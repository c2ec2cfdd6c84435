"""Calls to the host's libvirt: made again while it does not answer, with errors that all clouds have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from clouds import errors
from clouds.attempts import attempt
from clouds.kvm.connection import Connection, Session, code_of
from clouds.kvm.connection import translate as of_libvirt
from clouds.kvm.errors import HostUnavailable, KvmError, NotFound
from models.clouds import KvmSettings

T = TypeVar("T")
DENIED = (29, 45, 88)
"""libvirt's codes: operation denied, authentication failed, access denied."""


class Libvirt:
    def __init__(self, settings: KvmSettings, opener: Callable[[str], Connection] | None = None) -> None:
        """Connects to nothing yet."""
        self.settings = settings
        self._opener = opener

    def call(self, what: str, act: Callable[[Session], T]) -> T:
        """`act` with a connection of its own, which costs milliseconds; again when libvirtd was not there or went away,
        so it has to be one that may be repeated."""

        def once() -> T:
            with Session(self.settings.libvirt_socket, opener=self._opener) as session:
                return act(session)

        return attempt(what, once, self.settings.calls, translate, lambda _: 0.0)


def translate(error: Exception, what: str) -> Exception:
    """Ours for one of libvirt's, or for one that this package made of it. Any other is a bug and passes unchanged."""
    told = of_libvirt(error, what)
    if not isinstance(told, KvmError):
        return told
    code = code_of(error)
    if code in DENIED:
        return errors.NotPermitted(
            told.what, "Let this process use libvirt's read-write socket; docs/clouds.md has the whole list.", str(code)
        )
    if isinstance(told, HostUnavailable):
        return errors.Unavailable(told.what, f"It is tried again. {told.remedy}")
    if isinstance(told, NotFound):
        return errors.NotFound(told.what, "Check the id and the region.")
    return told

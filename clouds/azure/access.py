"""Leave to a disk's or snapshot's bytes: a signed address (SAS) of its page blob, for a time.

BeginGetAccess gives one, EndGetAccess takes all of them back. For a disk in the state of an upload the first write
address makes it ActiveUpload, and taking it back makes it a disk like any other, for good: that is done once, when all
is there. Such an address is as good as the disk itself: it stays in this process's memory, in no cursor and no log.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any, Literal, TypeVar

from clouds.azure.ids import ResourceId
from clouds.azure.session import AzureSession, Told
from clouds.errors import CloudError, CredentialsExpired, OperationFailed

T = TypeVar("T")
SECONDS = 86_400
"""An address is good for a day. A transfer that takes longer asks for another one."""


class Leave:
    """A blob client that is replaced when its address has expired. For several threads."""

    def __init__(self, azure: AzureSession, thing: ResourceId, access: Literal["Read", "Write"]) -> None:
        self._azure, self._thing, self._access = azure, thing, access
        self._lock = Lock()
        self._blobs: list[Any] = []
        self.address = ""
        self.renew(seen="")

    def do(self, what: str, use: Callable[[Any], T]) -> T:
        """`use(client)`, twice when its address is not good any more. Raises clouds.errors."""
        address = self.address
        try:
            with Told(what):
                return use(self._blobs[-1])
        except CredentialsExpired:
            self.renew(address)
        with Told(what):
            return use(self._blobs[-1])

    def close(self) -> None:
        for blob in self._blobs:
            blob.close()

    def renew(self, seen: str) -> None:
        """Another address, unless somebody has asked for one since `seen` was used."""
        with self._lock:
            if self.address != seen:
                return
            told = self._azure.run(
                f"get access to {self._thing.name}",
                self._thing.kind,
                "begin_grant_access",
                *self._thing.path,
                {"access": self._access, "durationInSeconds": SECONDS},
            )
            if not told.access_sas:
                raise OperationFailed(
                    f"Azure gave no address for {self._thing.name}", "See its state and network access in the portal."
                )
            self.address = told.access_sas
            self._blobs.append(self._azure.blob(self.address))


@contextmanager
def writing(azure: AzureSession, thing: ResourceId) -> Iterator[Leave]:
    """The address stays good afterwards: an upload goes on with it."""
    leave = Leave(azure, thing, "Write")
    try:
        yield leave
    finally:
        leave.close()


@contextmanager
def reading(azure: AzureSession, thing: ResourceId) -> Iterator[Leave]:
    """Taken back afterwards, so that the disk can be attached or deleted; an address that is left by a crash goes when
    its day is over, or with `delete_disk`."""
    leave = Leave(azure, thing, "Read")
    try:
        yield leave
    finally:
        leave.close()
        with contextlib.suppress(CloudError):
            revoke(azure, thing)


def revoke(azure: AzureSession, thing: ResourceId, beat: Callable[[], None] | None = None) -> None:
    azure.run(f"end access to {thing.name}", thing.kind, "begin_revoke_access", *thing.path, beat=beat)

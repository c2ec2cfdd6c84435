"""RegionalCache on Azure: the index in a blob container, finished disks as the bases.

A kept disk is billed by its whole size, as any managed disk. One that is made from it has its pages copied inside Azure
and needs it no more once it is complete.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from clouds.azure.session import AzureSession, Told
from clouds.cache import OBJECT_LIMIT, TAG
from clouds.errors import Damaged, NotFound, NotOffered
from models.clouds import AzureCache, StoredObject

T = TypeVar("T")


class AzureCacheStore:
    def __init__(self, session: AzureSession) -> None:
        self._azure = session

    @property
    def bounds(self) -> AzureCache | None:
        return self._azure.settings.cache

    def put_object(self, name: str, data: bytes) -> None:
        self._do(f"write {name}", lambda at: at.upload_blob(name, data, overwrite=True, validate_content="md5"))

    def get_object(self, name: str) -> bytes:
        def ask(at: Any) -> bytes:
            stream = at.download_blob(name)
            if stream.size > OBJECT_LIMIT:
                raise Damaged(f"{name} has {stream.size} bytes", "No part of an index is so large.")
            return bytes(stream.readall())

        return self._do(f"read {name}", ask)

    def list_objects(self, prefix: str) -> Iterator[StoredObject]:
        listed = self._do(f"list {prefix}", lambda at: at.list_blobs(name_starts_with=prefix).by_page())
        while True:
            with Told(f"list {prefix}"):
                page = next(listed, None)
                told = list(page) if page is not None else None
            if told is None:
                return
            for each in told:
                yield StoredObject(name=each.name, size=each.size, modified=each.last_modified)

    def delete_object(self, name: str) -> None:
        with contextlib.suppress(NotFound):
            self._do(f"delete {name}", lambda at: at.delete_blob(name))

    def keep_disk(self, disk: str, content: str) -> None:
        thing = self._azure.find(disk, "disks")
        there = self._azure.call(f"find {thing.name}", "disks", "get", *thing.path)
        body = {"tags": {**(there.tags or {}), TAG: content}}
        self._azure.run(f"tag {thing.name}", "disks", "begin_update", *thing.path, body)

    def _do(self, what: str, use: Callable[[Any], T]) -> T:
        if self.bounds is None:
            raise NotOffered("the settings of this account name no cache", "Name a container: cache.container.")
        with Told(what):
            return use(self._azure.container(self.bounds.container))

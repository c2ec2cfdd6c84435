"""RegionalCache on AWS: the index in S3, finished snapshots as the bases.

A snapshot that is kept costs what it holds. One that is started from it (StartSnapshot with a parent) needs it no more
once it is complete: EBS keeps the blocks that a snapshot shows as long as any needs them.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
from collections.abc import Iterator
from typing import Any

from clouds.aws.session import AwsSession, tag_list
from clouds.cache import OBJECT_LIMIT, TAG
from clouds.errors import Damaged, NotFound, NotOffered
from models.clouds import AwsCache, StoredObject


class AwsCacheStore:
    def __init__(self, session: AwsSession) -> None:
        self._aws = session

    @property
    def bounds(self) -> AwsCache | None:
        return self._aws.settings.cache

    def put_object(self, name: str, data: bytes) -> None:
        checksum = base64.b64encode(hashlib.sha256(data).digest()).decode()
        self._aws.call(
            f"write {name}", "s3", "put_object", Bucket=self._bucket, Key=name, Body=data, ChecksumSHA256=checksum
        )

    def get_object(self, name: str) -> bytes:
        what = f"read {name}"
        answer = self._aws.call(what, "s3", "get_object", Bucket=self._bucket, Key=name)
        if answer["ContentLength"] > OBJECT_LIMIT:
            raise Damaged(f"{name} has {answer['ContentLength']} bytes", "No part of an index is so large.")
        data = self._aws.read(what, answer["Body"], OBJECT_LIMIT)
        if len(data) != answer["ContentLength"]:
            raise Damaged(f"{name} came with {len(data)} of {answer['ContentLength']} bytes", "It is read again.")
        return data

    def list_objects(self, prefix: str) -> Iterator[StoredObject]:
        page: dict[str, Any] = {}
        while True:
            answer = self._aws.call(
                f"list {prefix}", "s3", "list_objects_v2", Bucket=self._bucket, Prefix=prefix, **page
            )
            for told in answer.get("Contents", ()):
                yield StoredObject(name=told["Key"], size=told["Size"], modified=told["LastModified"])
            if not answer.get("IsTruncated"):
                return
            page = {"ContinuationToken": answer["NextContinuationToken"]}

    def delete_object(self, name: str) -> None:
        with contextlib.suppress(NotFound):
            self._aws.call(f"delete {name}", "s3", "delete_object", Bucket=self._bucket, Key=name)

    def keep_disk(self, disk: str, content: str) -> None:
        self._aws.call(f"tag {disk}", "ec2", "create_tags", Resources=[disk], Tags=tag_list({TAG: content}))

    @property
    def _bucket(self) -> str:
        if self.bounds is None:
            raise NotOffered("the settings of this account name no cache", "Name a bucket: cache.bucket.")
        return self.bounds.bucket

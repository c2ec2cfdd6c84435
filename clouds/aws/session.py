"""boto3's clients for one account and region, with every error told in our words.

Nothing is imported or connected before the first call. Clients are thread-safe and kept. Retries are one rule for all
services (`standard`: lost connections, 5xx and throttling, with jitter), because botocore's own defaults differ.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Lock
from typing import Any, Literal

from clouds.aws.errors import translate
from clouds.errors import MissingPackage, Unavailable
from models.clouds import AwsSettings

Service = Literal["ec2", "ebs", "service-quotas", "pricing", "s3"]


class AwsSession:
    def __init__(self, settings: AwsSettings) -> None:
        self.settings = settings
        self._clients: dict[Service, Any] = {}
        self._lock = Lock()  # boto3.Session is not thread-safe

    def call(self, what: str, service: Service, operation: str, **arguments: Any) -> Any:
        """The answer of one operation, named as boto3 does; `what` completes "cannot ..."."""
        try:
            return getattr(self._client(service), operation)(**arguments)
        except Exception as error:
            told = translate(error, what)
            if told is error:
                raise
            raise told from error

    def read(self, what: str, body: Any, limit: int) -> bytes:
        """At most `limit` bytes of an answer that comes as a stream: the SDK does not retry those."""
        try:
            return bytes(body.read(limit))
        except Exception as error:
            told = translate(error, what)
            if told is error:
                raise
            raise Unavailable(f"cannot {what}: {error}", "It is tried again; check the network.") from error

    def wait(self, what: str, ready: Callable[[], bool], beat: Callable[[], None]) -> None:
        """Until `ready()`; `beat()` before each pause. Raises Unavailable after calls.finish_within."""
        until = time.monotonic() + self.settings.calls.finish_within
        while not ready():
            if time.monotonic() > until:
                raise Unavailable(
                    f"AWS did not {what} within {self.settings.calls.finish_within:.0f} s",
                    "It is looked at again; see its state in the AWS console.",
                )
            beat()
            time.sleep(self.settings.calls.poll)

    def _client(self, service: Service) -> Any:
        with self._lock:
            if service not in self._clients:
                self._clients[service] = self._connect(service)
            return self._clients[service]

    def _connect(self, service: Service) -> Any:
        try:
            import boto3
            from botocore.config import Config
        except ImportError as error:
            raise MissingPackage(
                f"boto3 is not installed ({error})", "Install novacron[aws] on this worker."
            ) from error
        settings, calls = self.settings, self.settings.calls
        config = Config(
            retries={"total_max_attempts": calls.attempts, "mode": "standard"},
            connect_timeout=calls.connect_timeout,
            read_timeout=calls.read_timeout,
            max_pool_connections=max(10, calls.parallel),
            user_agent_extra="novacron",
        )
        session = boto3.Session(profile_name=settings.profile, region_name=settings.region)
        return session.client(
            service, endpoint_url=settings.endpoints.get(service, settings.endpoint_url), config=config
        )


def tag_list(tags: dict[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in sorted(tags.items())]


def tag_dict(tags: list[dict[str, str]] | None) -> dict[str, str]:
    return {tag["Key"]: tag.get("Value", "") for tag in tags or ()}

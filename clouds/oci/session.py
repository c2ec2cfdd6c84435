"""Oracle's clients for one compartment and region, with every error told in our words.

Nothing is imported or connected before the first call. The SDK retries some calls and others not at all; so each is
made without, and one rule of ours (clouds.attempts) holds for all.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from threading import RLock
from typing import Any, Literal, TypeVar

from clouds.attempts import attempt, wait
from clouds.errors import MissingPackage
from clouds.oci.errors import retry_after, translate
from models.clouds import OciSettings

T = TypeVar("T")
Service = Literal["compute", "network", "volumes", "requests", "storage", "limits"]
_CLIENTS: dict[Service, tuple[str, str, Literal["core", "storage", "limits"]]] = {
    "compute": ("oci.core", "ComputeClient", "core"),
    "network": ("oci.core", "VirtualNetworkClient", "core"),
    "volumes": ("oci.core", "BlockstorageClient", "core"),
    "requests": ("oci.work_requests", "WorkRequestClient", "core"),
    "storage": ("oci.object_storage", "ObjectStorageClient", "storage"),
    "limits": ("oci.limits", "LimitsClient", "limits"),
}
"""Module, class and key of the settings' endpoints."""


class OciSession:
    def __init__(self, settings: OciSettings) -> None:
        self.settings = settings
        self._clients: dict[Service, Any] = {}
        self._lock = RLock()

    def call(self, what: str, service: Service, method: str, *arguments: Any, **more: Any) -> Any:
        """oci's Response of one method; `what` completes "cannot ..."."""
        act = getattr(self.client(service), method)
        return self.attempt(what, lambda: act(*arguments, **more))

    def attempt(self, what: str, act: Callable[[], T]) -> T:
        return attempt(what, act, self.settings.calls, translate, retry_after)

    def wait(self, what: str, ready: Callable[[], bool], beat: Callable[[], None] = lambda: None) -> None:
        """Until `ready()`; `beat()` before each pause. Raises Unavailable after calls.finish_within."""
        wait("Oracle", what, ready, self.settings.calls, beat)

    def model(self, service: Service, name: str, **fields: Any) -> Any:
        """One of the service's models. Raises MissingPackage."""
        self.client(service)
        return getattr(importlib.import_module(f"{_CLIENTS[service][0]}.models"), name)(**fields)

    def client(self, service: Service) -> Any:
        with self._lock:
            if service not in self._clients:
                try:
                    self._clients[service] = self.attempt("connect to Oracle Cloud", lambda: self._connect(service))
                except ImportError as error:
                    raise MissingPackage(
                        f"oci is not installed ({error})", "Install novacron[oci] on this worker."
                    ) from error
            return self._clients[service]

    def _connect(self, service: Service) -> Any:
        import oci

        settings, calls = self.settings, self.settings.calls
        module, client, key = _CLIENTS[service]
        arguments: dict[str, Any] = {
            "timeout": (calls.connect_timeout, calls.read_timeout),
            "retry_strategy": oci.retry.NoneRetryStrategy(),
        }
        if key in settings.endpoints:
            arguments["service_endpoint"] = settings.endpoints[key]
        if settings.credentials == "instance":
            config: dict[str, Any] = {"region": settings.region}
            arguments["signer"] = oci.auth.signers.InstancePrincipalsSecurityTokenSigner()
        else:
            path = os.environ.get("OCI_CONFIG_FILE", oci.config.DEFAULT_LOCATION)  # the SDK's default would win
            config = {**oci.config.from_file(path, settings.profile), "region": settings.region}
        return getattr(importlib.import_module(module), client)(config, **arguments)

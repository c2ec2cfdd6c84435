"""Google's clients for one project and region, with every error told in our words.

Nothing is imported or connected before the first call. Retries are one rule for all services, ours: the SDKs' own
differ from call to call, leave throttling out (403 rateLimitExceeded) and do not heed Retry-After. So each call is made
with theirs off. Credentials are found once by google.auth; its sessions renew them.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import RLock
from typing import Any, TypeVar

from clouds.attempts import attempt, wait
from clouds.errors import MissingPackage
from clouds.gcp.errors import of_operation, retry_after, translate
from clouds.tokens import token
from models.clouds import GcpSettings

T = TypeVar("T")
SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
EARLIER = 10
"""Failed attempts of one step within an hour that `begin` looks past."""


class GcpSession:
    def __init__(self, settings: GcpSettings) -> None:
        self.settings = settings
        self._made: dict[str, Any] = {}
        self._lock = RLock()

    def compute(self, what: str, service: str, method: str, **fields: Any) -> Any:
        """The answer of one method of compute_v1's `<service>Client`; `project` is filled in. `what` completes
        "cannot ..."."""
        call = getattr(self._once(service, lambda: self._compute_client(service)), method)
        request = {"project": self.settings.project, **fields}
        return self.attempt(what, lambda: call(request=request, retry=None, timeout=self.settings.calls.read_timeout))

    def bucket(self) -> Any:
        """google.cloud.storage's Bucket; its calls go through `attempt`, with `**self.storage_call`."""
        client = self._once("storage", self._storage_client)
        return client.bucket(self.settings.bucket)

    @property
    def storage_call(self) -> dict[str, Any]:
        calls = self.settings.calls
        return {"timeout": (calls.connect_timeout, calls.read_timeout), "retry": None}

    def http(self) -> Any:
        """A requests.Session that signs in: for the one protocol that the SDKs have no public call for."""
        return self._once("http", self._http)

    def attempt(self, what: str, act: Callable[[], T]) -> T:
        """`act()`, again after throttling and where nobody knows how it went: it has to be one that may be repeated."""
        return attempt(what, act, self.settings.calls, translate, retry_after)

    def begin(self, what: str, step: str, service: str, method: str, **fields: Any) -> Any:
        """An operation under a request id that the step's token gives: two calls begin one, for an hour at least. After
        that, names do. One that has failed already is an earlier attempt's: the next one is begun under an id of its
        own, which any process finds the same way."""
        request_id = step
        for _ in range(EARLIER):
            operation = self.compute(what, service, method, request_id=request_id, **fields)
            if operation.status.name != "DONE" or of_operation(operation, what) is None:
                break
            request_id = token(step, operation.name)
        return operation

    def finish(self, what: str, operation: Any, beat: Callable[[], None] = lambda: None) -> None:
        """Until an operation (zonal, regional or global) is done. Raises what it failed of."""

        def done() -> bool:
            nonlocal operation
            if operation.status.name != "DONE":
                operation = self._look(what, operation)
            return bool(operation.status.name == "DONE")

        self.wait(what, done, beat)
        failure = of_operation(operation, what)
        if failure is not None:
            raise failure

    def wait(self, what: str, ready: Callable[[], bool], beat: Callable[[], None] = lambda: None) -> None:
        """Until `ready()`; `beat()` before each pause. Raises Unavailable after calls.finish_within."""
        wait("Google", what, ready, self.settings.calls, beat)

    def _look(self, what: str, operation: Any) -> Any:
        name = operation.name
        if operation.zone:
            zone = operation.zone.rsplit("/", 1)[-1]
            return self.compute(what, "ZoneOperations", "get", zone=zone, operation=name)
        if operation.region:
            region = operation.region.rsplit("/", 1)[-1]
            return self.compute(what, "RegionOperations", "get", region=region, operation=name)
        return self.compute(what, "GlobalOperations", "get", operation=name)

    def _once(self, key: str, make: Callable[[], Any]) -> Any:
        with self._lock:
            if key not in self._made:
                try:
                    self._made[key] = self.attempt("connect to Google Cloud", make)
                except ImportError as error:
                    raise MissingPackage(
                        f"Google's packages are not installed ({error})", "Install novacron[gcp] on this worker."
                    ) from error
            return self._made[key]

    def _credentials(self) -> Any:
        import google.auth

        return google.auth.default(scopes=SCOPES)[0]

    def _options(self, service: str) -> Any:
        from google.api_core.client_options import ClientOptions

        endpoint = self.settings.endpoints.get(service)  # type: ignore[call-overload]  # one of its keys
        return ClientOptions(api_endpoint=endpoint)

    def _compute_client(self, service: str) -> Any:
        credentials = self._once("credentials", self._credentials)
        return getattr(_imported(), f"{service}Client")(
            credentials=credentials, client_options=self._options("compute")
        )

    def _storage_client(self) -> Any:
        from google.cloud import storage

        credentials = self._once("credentials", self._credentials)
        return storage.Client(
            project=self.settings.project, credentials=credentials, client_options=self._options("storage")
        )

    def _http(self) -> Any:
        from google.auth.transport.requests import AuthorizedSession

        return AuthorizedSession(self._once("credentials", self._credentials))


def _imported() -> Any:
    from google.cloud import compute_v1

    return compute_v1

"""Azure's clients for one subscription, with every error told in our words.

Nothing is imported or connected before the first call. Clients are thread-safe and kept. Retries are one rule for all
calls: those that change something too, because all that this adapter sends has the effect of once (a reboot is not sent
twice); azure-core alone would not repeat a POST whose answer was lost. A `Retry-After` of Azure is kept to.

Long operations end in a state that the thing itself tells: a new process looks at that and goes on, so nothing about an
operation has to be kept.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from threading import Event, Lock
from typing import Any
from urllib.parse import urlsplit

from clouds.azure.errors import translate
from clouds.azure.ids import ResourceId, find
from clouds.cache import OBJECT_LIMIT
from clouds.errors import Invalid, MissingPackage, NotFound, Unavailable
from models.clouds import AzureSettings

PUBLIC = "https://management.azure.com"
NETWORK_PARTS = ("network_interfaces",)
"""Groups of operations that azure-mgmt-network has; the others are azure-mgmt-compute's."""
RETRIED = frozenset({"GET", "HEAD", "PUT", "PATCH", "DELETE", "POST"})
ONCE = frozenset[str]()
LONGEST_PAUSE = 60.0
STORAGE_SCOPE = "https://storage.azure.com/.default"


class AzureSession:
    def __init__(self, settings: AzureSettings) -> None:
        self.settings = settings
        self._clients: dict[str, Any] = {}
        self._credential: Any = None
        self._lock = Lock()

    # Names.

    def id(self, kind: str, *names: str) -> ResourceId:
        """Of a thing in the settings' resource group."""
        return ResourceId(self.settings.subscription, self.settings.resource_group, kind, names)

    def find(self, text: str, *kinds: str) -> ResourceId:
        """Raises NotFound when `text` cannot be the id of one."""
        return find(text, self.settings.subscription, self.settings.resource_group, *kinds)

    # Calls.

    def call(self, what: str, part: str, operation: str, *arguments: Any, **options: Any) -> Any:
        """The answer of one operation, named as the SDK does; `what` completes "cannot ...". One that only begins
        something (`begin_...`) returns when Azure has accepted it."""
        options.setdefault("retry_on_methods", RETRIED)
        if operation.startswith("begin_"):
            options.setdefault("polling", False)
        with Told(what):
            return getattr(getattr(self._client(part), part), operation)(*arguments, **options)

    def seek(self, what: str, part: str, *path: str, **options: Any) -> Any | None:
        """The thing, or None."""
        try:
            return self.call(what, part, "get", *path, **options)
        except NotFound:
            return None

    def run(
        self,
        what: str,
        part: str,
        operation: str,
        *arguments: Any,
        beat: Callable[[], None] | None = None,
        methods: frozenset[str] = RETRIED,
    ) -> Any:
        """As `call`, to the operation's end and result. Raises OperationFailed, and Unavailable after
        calls.finish_within; `beat()` about every calls.poll seconds."""
        calls, left = self.settings.calls, Event()
        polling = _polling(left, calls.poll)
        poller = self.call(what, part, operation, *arguments, polling=polling, retry_on_methods=methods)
        until = time.monotonic() + calls.finish_within
        try:
            while not poller.done():
                if time.monotonic() > until:
                    raise self._late(what)
                if beat:
                    beat()
                with Told(what):
                    poller.wait(max(calls.poll, 0.01))
        finally:
            left.set()
            with suppress(Exception):  # nothing goes on behind the caller's back; its error is told below
                poller.wait()
        with Told(what):
            return poller.result()

    def cut(
        self, what: str, part: str, operation: str, *arguments: Any, page: str, limit: int, **options: Any
    ) -> tuple[list[Any], str]:
        """At most `limit` (to 1000) items of a list, and where it goes on (""). Azure sets the size of its pages
        itself: `page` is how many items of one were told already, and its address."""
        skip, _, link = page.partition(" ")
        if not (skip or "0").isdecimal() or not (link or "/").startswith("/"):
            raise Invalid(f"cannot {what}: {page[:100]!r} is no page of a list", "Begin again with an empty page.")
        found, after = self._page(what, part, operation, *arguments, link=link, **options)
        start = int(skip or 0)
        items = found[start : start + max(1, min(limit, 1000))]
        if start + len(items) < len(found):
            return items, f"{start + len(items)} {link}"
        return items, f"0 {after}" if after else ""

    def pages(self, what: str, part: str, operation: str, *arguments: Any, **options: Any) -> Iterator[Any]:
        """All items of a list."""
        link = ""
        while True:
            items, link = self._page(what, part, operation, *arguments, link=link, **options)
            yield from items
            if not link:
                return

    def _page(
        self, what: str, part: str, operation: str, *arguments: Any, link: str, **options: Any
    ) -> tuple[list[Any], str]:
        """One of Azure's pages and the path of the next one's address. Only its path is kept: wherever a caller has a
        page from, the credentials go to no other host."""
        listed = self.call(what, part, operation, *arguments, **options)
        with Told(what):
            pages = listed.by_page((self.settings.endpoint_url or PUBLIC).rstrip("/") + link if link else None)
            items = list(next(pages, ()))
        told = urlsplit(pages.continuation_token or "")
        return items, f"{told.path}?{told.query}" if told.path else ""

    def wait(self, what: str, ready: Callable[[], bool], beat: Callable[[], None]) -> None:
        """Until `ready()`; `beat()` before each pause. Raises Unavailable after calls.finish_within."""
        until = time.monotonic() + self.settings.calls.finish_within
        while not ready():
            if time.monotonic() > until:
                raise self._late(what)
            beat()
            time.sleep(self.settings.calls.poll)

    def blob(self, address: str) -> Any:
        """A client of the page blob behind a signed address. Its connections are its own: `close()` it."""
        options = self._storage_options()
        from azure.storage.blob import BlobClient

        return BlobClient.from_blob_url(address, **options)

    def container(self, address: str) -> Any:
        """A client of a blob container, with the worker's own credentials. Kept."""
        with self._lock:
            if address not in self._clients:
                self._clients[address] = self._open_container(address)
            return self._clients[address]

    def _open_container(self, address: str) -> Any:
        options = self._storage_options()
        from azure.identity import DefaultAzureCredential
        from azure.storage.blob import ContainerClient

        self._credential = self._credential or DefaultAzureCredential()
        if address.startswith("http://"):  # a loopback address, by the settings; the SDK itself refuses any
            options["_additional_pipeline_policies"] = [_loopback_bearer(self._credential, STORAGE_SCOPE)]
        else:
            options["credential"] = self._credential
        return ContainerClient.from_container_url(address, max_single_put_size=OBJECT_LIMIT, **options)

    def _storage_options(self) -> dict[str, Any]:
        """Retries and connections of a storage client. Raises MissingPackage."""
        try:
            import azure.identity  # noqa: F401
            import requests
            from azure.core.pipeline.transport import RequestsTransport
            from azure.storage.blob import ExponentialRetry
            from requests.adapters import HTTPAdapter
        except ImportError as error:
            raise _missing(error) from error
        calls = self.settings.calls

        class Backoff(ExponentialRetry):  # type: ignore[misc]  # mypy does not read azure's types
            """The SDK's own first pause is 15 s."""

            def get_backoff_time(self, settings: dict[str, Any]) -> float:
                return random.uniform(0, min(LONGEST_PAUSE, 0.5 * 2 ** settings["count"]))

        session = requests.Session()
        session.mount("https://", HTTPAdapter(pool_maxsize=calls.parallel))
        session.mount("http://", HTTPAdapter(pool_maxsize=calls.parallel))
        again = calls.attempts - 1
        return {
            "retry_policy": Backoff(retry_total=again, retry_connect=again, retry_read=again, retry_status=again),
            "transport": RequestsTransport(
                session=session, connection_timeout=calls.connect_timeout, read_timeout=calls.read_timeout
            ),
        }

    def _late(self, what: str) -> Unavailable:
        return Unavailable(
            f"Azure did not {what} within {self.settings.calls.finish_within:.0f} s",
            "It is looked at again; see its state in the Azure portal.",
        )

    def _client(self, part: str) -> Any:
        package = "network" if part in NETWORK_PARTS else "compute"
        with self._lock:
            if package not in self._clients:
                self._clients[package] = self._connect(package)
            return self._clients[package]

    def _connect(self, package: str) -> Any:
        try:
            from azure.core.pipeline.policies import RetryPolicy, UserAgentPolicy
            from azure.identity import DefaultAzureCredential

            if package == "network":
                from azure.mgmt.network import NetworkManagementClient as Client
            else:
                from azure.mgmt.compute import ComputeManagementClient as Client
        except ImportError as error:
            raise _missing(error) from error
        settings, calls = self.settings, self.settings.calls
        base = settings.endpoint_url or PUBLIC
        local = base.startswith("http://")
        scope = f"{PUBLIC if local else base.rstrip('/')}/.default"
        again = calls.attempts - 1
        self._credential = self._credential or DefaultAzureCredential()
        return Client(
            self._credential,
            settings.subscription,
            base_url=base,
            authentication_policy=_loopback_bearer(self._credential, scope) if local else None,
            credential_scopes=[scope],
            retry_policy=RetryPolicy(retry_total=again, retry_connect=again, retry_read=again, retry_status=again),
            user_agent_policy=UserAgentPolicy(base_user_agent="novacron"),
            connection_timeout=calls.connect_timeout,
            read_timeout=calls.read_timeout,
            polling_interval=calls.poll,
        )


class Told:
    """Errors of the SDK leave this block in our words."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, Exception):
            told = translate(error, self._what)
            if told is not error:
                raise told from error


def _polling(left: Event, pause: float) -> Any:
    """The SDK's polling, whose thread ends when the caller has left."""
    from azure.mgmt.core.polling.arm_polling import ARMPolling

    class Polling(ARMPolling):  # type: ignore[misc]
        def _sleep(self, delay: float) -> None:
            if left.wait(delay):
                raise Unavailable("nobody waits for the operation any more", "Look at the thing's state.")

    return Polling(pause)


def _loopback_bearer(credential: Any, scope: str) -> Any:
    """Tokens go unencrypted to this machine's own loopback only: the settings allow http for no other host."""
    from azure.core.pipeline.policies import BearerTokenCredentialPolicy

    class Bearer(BearerTokenCredentialPolicy):  # type: ignore[misc]
        def on_request(self, request: Any) -> None:
            request.context.options["enforce_https"] = False
            super().on_request(request)

    return Bearer(credential, scope)


def _missing(error: ImportError) -> MissingPackage:
    return MissingPackage(f"Azure's SDK is not installed ({error})", "Install novacron[azure] on this worker.")

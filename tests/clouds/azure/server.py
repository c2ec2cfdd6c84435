"""Azure over HTTP for the real SDK: tokens, resource manager and page blobs on one port, faults between.

Every request and answer of the resource manager is held to the SDK's models. The SDK itself refuses a status that an
operation does not have.
"""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from azure.mgmt.compute import models as compute
from azure.mgmt.network import models as network

from tests.clouds.azure.arm import (
    REGION,
    ROOT,
    SKU_PAGE,
    VM_PAGE,
    Operation,
    StrictArm,
    Thing,
    skus,
    told,
    usages,
)
from tests.clouds.azure.blobs import Answer, Asked, Blobs
from tests.clouds.azure.container import PATH, Container
from tests.clouds.azure.wire import AzureFault, Drift, judge_answer, judge_request
from tests.clouds.faults import FaultPlan, Kind

MODELS: dict[str, Any] = {
    "disks": compute.Disk,
    "snapshots": compute.Snapshot,
    "galleries": compute.Gallery,
    "galleries/images": compute.GalleryImage,
    "galleries/images/versions": compute.GalleryImageVersion,
    "virtualMachines": compute.VirtualMachine,
    "networkInterfaces": network.NetworkInterface,
}
BODIES: dict[str, Any] = {
    "PATCH disks": compute.DiskUpdate,
    "PATCH snapshots": compute.SnapshotUpdate,
    "PATCH virtualMachines": compute.VirtualMachineUpdate,
    "POST disks/beginGetAccess": compute.GrantAccessData,
    "POST snapshots/beginGetAccess": compute.GrantAccessData,
}
CREATED = {"virtualMachines": 201, "networkInterfaces": 201}
"""Status of a PUT that makes something; of the others it is 202. What is there already: 200."""
PATCHED = {"disks": 202}
IDENTITY = "secret of the machine"
FAULTS: dict[Kind, AzureFault] = {
    "throttle": AzureFault("TooManyRequests", "The request is being throttled.", 429),
    "quota": AzureFault(
        "OperationNotAllowed",
        "Operation could not be completed as it results in exceeding approved Total Regional Cores quota.",
        409,
    ),
    "permission": AzureFault("AuthorizationFailed", "The client does not have authorization to perform action.", 403),
    "expired": AzureFault("ExpiredAuthenticationToken", "The access token expiry UTC time is earlier than now.", 401),
    "unavailable": AzureFault("ServiceUnavailable", "The service is unavailable.", 503),
}
BLOB_FAULTS: dict[Kind, AzureFault] = {
    "throttle": AzureFault("ServerBusy", "The server is busy.", 503),
    "permission": AzureFault("AuthorizationPermissionMismatch", "This request is not authorized.", 403),
    "expired": AzureFault("AuthenticationFailed", "Signature not valid in the specified time frame", 403),
    "unavailable": AzureFault("InternalError", "The server encountered an internal error.", 500),
}
_BELOW = re.compile(rf"{ROOT}/Microsoft\.(Compute|Network)/(.+)")
_ACTIONS = ("beginGetAccess", "endGetAccess", "start", "deallocate", "restart")


class AzureServer:
    """`drift` collects what did not fit a model: tests want it empty."""

    def __init__(self) -> None:
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self._lock = threading.Lock()
        self.reset()
        self._thread = threading.Thread(target=self._http.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def reset(self) -> None:
        """A fresh resource group."""
        self.arm, self.faults, self.drift = StrictArm(self.url), FaultPlan(), list[str]()
        self.container = Container()
        self.pause = 0.0
        """Seconds of Retry-After in throttled answers and of operations; who comes earlier is drift."""
        self._not_before: dict[str, float] = {}

    def answer(self, asked: Asked) -> Answer | None:
        """None: hang up."""
        try:
            if urlsplit(asked.url).path == "/identity":
                return self._token(asked)
            if urlsplit(asked.url).path.startswith("/md-impexp"):
                return self._of_storage(asked, self.arm.blobs)
            if urlsplit(asked.url).path.startswith(PATH):
                return self._of_storage(asked, self.container)
            return self._of_arm(asked)
        except Exception as error:  # a bug of the fake is a failure of the test as well
            self.drift.append(f"{type(error).__name__}: {error}")
            return 400, {}, str(error).encode()

    def _token(self, asked: Asked) -> Answer:
        if asked.headers.get("x-identity-header") != IDENTITY:
            raise Drift("somebody else asks for tokens")
        if asked.query.get("resource") not in ("https://management.azure.com", "https://storage.azure.com"):
            raise Drift(f"a token for {asked.query.get('resource')}")
        body = {"access_token": "good", "expires_on": str(int(time.time()) + 86400), "token_type": "Bearer"}
        return _json(200, {**body, "resource": asked.query["resource"]})

    def _of_storage(self, asked: Asked, store: Blobs | Container) -> Answer | None:
        name = store.name(asked)
        with self._lock:
            kind = self.faults.next(name)
            if kind == "drop":
                return None
            try:
                if kind in BLOB_FAULTS:
                    raise BLOB_FAULTS[kind]
                status, headers, body = store.answer(asked)
            except AzureFault as fault:
                return self.arm.blobs.fault(asked, fault)
        if kind == "lose":
            return None
        if kind == "damage":
            body = bytes([body[0] ^ 1]) + body[1:]
        return status, headers, body

    def _of_arm(self, asked: Asked) -> Answer | None:
        if asked.headers.get("authorization") != "Bearer good":
            raise Drift("a call of the resource manager without its token")
        path = urlsplit(asked.url).path
        if path.startswith("/operations/"):
            return self._operation(path)
        if "api-version" not in asked.query:
            raise Drift(f"{path} without api-version")
        name, kind, place = _route(asked.method, path)
        with self._lock:
            self._early(asked.method + path)
            planned = self.faults.next(name)
            if planned == "drop":
                return None
            try:
                if planned in FAULTS:
                    raise FAULTS[planned]
                self.arm.fail_next = planned == "fail"
                answer = self._do(asked, name, kind, place)
            except AzureFault as fault:
                answer = _json(fault.status, {"error": {"code": fault.code, "message": fault.message}})
                if fault.status == 429 and self.pause:
                    answer[1]["Retry-After"] = self._later(asked.method + path)
        return None if planned == "lose" else answer

    def _do(self, asked: Asked, name: str, kind: str, place: str) -> Answer:
        body = json.loads(asked.body) if asked.body else None
        if asked.method == "GET":
            return self._look(asked, kind, place)
        if (body is not None) != (asked.method in ("PUT", "PATCH") or name in BODIES):
            raise Drift(f"{name} with body {body}")
        if body is not None:
            judge_request(body, BODIES.get(name, MODELS[kind]), name)
        method = getattr(self.arm, name.replace(" ", "_").replace("/", "_").replace(asked.method, asked.method.lower()))
        done = method(place, body)
        if isinstance(done, Thing):
            return self._told(200, kind, done)
        if done is None:
            return 204, {}, b""
        (number,) = [number for number, operation in self.arm.operations.items() if operation is done]
        headers = {f: f"{self.url}/operations/{number}/{f.lower()}" for f in ("Azure-AsyncOperation", "Location")}
        headers["Retry-After"] = str(int(self.pause))  # the SDK looks once at once
        status = 202
        if asked.method == "PUT":
            status = CREATED.get(kind, 202)
        if asked.method in ("PUT", "PATCH"):
            answer = self._told(status, kind, done.thing)
            return status, {**answer[1], **headers}, answer[2]
        return status, headers, b""

    def _look(self, asked: Asked, kind: str, place: str) -> Answer:
        if kind == "skus":
            if asked.query.get("$filter") != f"location eq '{REGION}'":
                raise Drift(f"skus by {asked.query.get('$filter')}")
            return self._page(asked, skus(), compute.ResourceSku, SKU_PAGE)
        if kind == "usages":
            return self._page(asked, usages(), compute.Usage, 100)
        view = asked.query.get("$expand") == "instanceView"
        if place.count("/") % 2 == 0:  # no name at its end: a list
            below, depth = f"{place.lower()}/", place.count("/") + 1
            there = list(self.arm.things.items())
            things = [thing for path, thing in there if path.startswith(below) and path.count("/") == depth]
            for thing in things:
                self.arm.look(thing)
            return self._page(asked, [told(thing, view) for thing in things], MODELS[kind], VM_PAGE)
        return self._told(200, kind, self.arm.get(place), view)

    def _told(self, status: int, kind: str, thing: Thing, view: bool = False) -> Answer:
        body = told(thing, view)
        judge_answer(body, MODELS[kind], f"answer of {kind}")
        return _json(status, body)

    def _page(self, asked: Asked, rows: list[dict[str, Any]], model: Any, size: int) -> Answer:
        for row in rows:
            judge_answer(row, model, "a row")
        start = int(asked.query.get("$skiptoken", "0"))
        body: dict[str, Any] = {"value": rows[start : start + size]}
        if start + size < len(rows):
            plain = re.sub(r"&%24skiptoken=\d+", "", asked.url)
            body["nextLink"] = f"{self.url}{plain}&%24skiptoken={start + size}"
        return _json(200, body)

    def _operation(self, path: str) -> Answer:
        _, _, number, form = path.split("/")
        with self._lock:
            operation = self.arm.operations[number]
            self._early(path)
            self.faults.next("GET operations")
            thing = operation.thing
            self.arm.look(thing)
            if form == "location":
                judge_answer(operation.result or {}, compute.AccessUri, "result")
                return _json(200, operation.result or {})
            return self._status(operation, thing, path)

    def _status(self, operation: Operation, thing: Thing, path: str) -> Answer:
        if thing.looks:
            headers = {"Retry-After": self._later(path)} if self.pause else {"Retry-After": "0"}
            return _json(200, {"status": "InProgress"}, headers)
        if operation.code:
            return _json(200, {"status": "Failed", "error": {"code": operation.code, "message": "It went wrong."}})
        return _json(200, {"status": "Succeeded"})

    def _later(self, key: str) -> str:
        self._not_before[key] = time.monotonic() + 0.9 * self.pause
        return str(int(self.pause))

    def _early(self, key: str) -> None:
        if time.monotonic() < self._not_before.get(key, 0):
            raise Drift(f"{key} again before Retry-After")


def _route(method: str, path: str) -> tuple[str, str, str]:
    """Name of the operation, kind, and path below the resource group."""
    if path.endswith("/providers/Microsoft.Compute/skus"):
        return "GET skus", "skus", "skus"
    if path.endswith(f"/providers/Microsoft.Compute/locations/{REGION}/usages"):
        return "GET usages", "usages", "usages"
    found = _BELOW.fullmatch(path)
    if found is None:
        raise Drift(f"nothing is at {path}")
    place, action = found[2], ""
    if place.rpartition("/")[2] in _ACTIONS:
        place, _, action = place.rpartition("/")
    kind = "/".join(place.split("/")[::2])
    if kind not in MODELS or (kind == "networkInterfaces") != (found[1] == "Network"):
        raise Drift(f"nothing is at {path}")
    return f"{method} {kind}{'/' if action else ''}{action}", kind, place


def _json(status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> Answer:
    return status, {"Content-Type": "application/json", **(headers or {})}, json.dumps(body).encode()


def _handler(server: AzureServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, format: str, *_: Any) -> None:
            pass

        def serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            answer = server.answer(Asked(self.command, self.path, headers, body))
            if answer is None:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            status, told_headers, data = answer
            self.send_response(status)
            for name, value in told_headers.items():
                self.send_header(name, value)
            if "Content-Length" not in told_headers:
                self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = do_HEAD = serve

    return Handler

"""AWS over HTTP for the real SDK: our strict snapshots and images in front, moto's EC2 behind, faults between.

What the strict part does itself is listed in `OWN`; the rest goes to moto, whose answers are held to the model too.
moto forgets the ClientToken of RunInstances and takes any image and size, so these are checked here as well.
"""

from __future__ import annotations

import io
import os
import re
import socket
import threading
from collections.abc import Callable, Iterable
from typing import Any

os.environ.setdefault("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")  # 14 s, for images that nobody uses here

from moto.ec2.models import ec2_backends
from moto.ec2.models.instance_types import INSTANCE_TYPES
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response

from tests.clouds.aws.ebs import StrictEbs
from tests.clouds.aws.objects import StrictS3
from tests.clouds.aws.pricing import Prices
from tests.clouds.aws.wire import AwsFault, Call, Drift, read, scope_of, strays, write, write_fault
from tests.clouds.faults import FaultPlan, Kind

OWN = {name for name in vars(StrictEbs) if name[0].isupper()}
FAULTS: dict[tuple[str, Kind], AwsFault] = {
    ("ec2", "throttle"): AwsFault("RequestLimitExceeded", "Request limit exceeded.", 503),
    ("ebs", "throttle"): AwsFault("RequestThrottledException", "Rate exceeded.", 400, "ACCOUNT_THROTTLED"),
    ("servicequotas", "throttle"): AwsFault("ThrottlingException", "Rate exceeded.", 400),
    ("pricing", "throttle"): AwsFault("ThrottlingException", "Rate exceeded.", 400),
    ("pricing", "permission"): AwsFault("AccessDeniedException", "Not authorized.", 400),
    ("ec2", "quota"): AwsFault("VcpuLimitExceeded", "You have requested more vCPU capacity than your limit of 5."),
    ("ebs", "quota"): AwsFault(
        "ServiceQuotaExceededException", "Quota exceeded.", 402, "DEPENDENCY_SERVICE_QUOTA_EXCEEDED"
    ),
    ("ec2", "permission"): AwsFault("UnauthorizedOperation", "You are not authorized to perform this operation.", 403),
    ("ebs", "permission"): AwsFault("AccessDeniedException", "Not authorized.", 403, "UNAUTHORIZED_ACCOUNT"),
    ("s3", "throttle"): AwsFault("SlowDown", "Please reduce your request rate.", 503),
    ("s3", "permission"): AwsFault("AccessDenied", "Access Denied", 403),
    ("s3", "unavailable"): AwsFault("InternalError", "We encountered an internal error.", 500),
    ("ec2", "expired"): AwsFault("RequestExpired", "Request has expired."),
    ("ebs", "expired"): AwsFault("ExpiredTokenException", "The security token included in the request is expired", 403),
    ("ec2", "unavailable"): AwsFault("Unavailable", "The server is overloaded.", 503),
    ("ebs", "unavailable"): AwsFault("InternalServerException", "Internal error.", 500),
}
QUOTAS = {
    ("ec2", "L-1216C47A"): ("Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances", 5.0),
    ("ebs", "L-7A658B76"): ("Storage for General Purpose SSD (gp3) volumes, in TiB", 50.0),
    ("ebs", "L-309BACF6"): ("Snapshots per Region", 100000.0),
}
CHANGED = {("ec2", "L-1216C47A")}
"""Quotas that were ever raised: others have only a default."""


class AwsServer:
    """Listens on a free port of the loopback. `drift` collects what did not fit the model: tests want it empty."""

    def __init__(self) -> None:
        self.strict, self.objects, self.prices = StrictEbs(), StrictS3(), Prices()
        self.faults = FaultPlan()
        self.drift: list[str] = []
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._runs: dict[str, tuple[str, bytes]] = {}
        self._lock = threading.Lock()
        self._server: BaseWSGIServer = make_server("127.0.0.1", 0, self._app, threaded=True, request_handler=_Quiet)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def reset(self) -> None:
        """A fresh account."""
        for backend in _backends():
            backend.reset()
        self.strict, self.faults, self.drift, self._runs = StrictEbs(), FaultPlan(), [], {}
        self.objects, self.prices = StrictS3(), Prices()

    def instances(self) -> list[str]:
        """Ids of those that are not terminated."""
        return [i.id for backend in _backends() for i in backend.all_instances() if i.state != "terminated"]

    def _app(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        request = Request(environ)
        request.get_data(cache=True, parse_form_data=False)
        body = request.get_data()
        try:
            fresh = _again(environ, body)
            call = self.objects.read(fresh) if scope_of(fresh)[3:4] == ["s3"] else read(fresh)
            kind = self.faults.next(call.name)
            if kind == "drop":
                return _hang_up(environ)
            answer = self._answer(call, kind, environ, body)
            if kind == "lose":
                return _hang_up(environ)
            return answer(environ, start_response)
        except _HungUp:
            raise
        except Exception as error:  # a bug of the fake is a failure of the test as well
            self.drift.append(f"{type(error).__name__}: {error}")
            return Response(str(error), 500)(environ, start_response)

    def _answer(self, call: Call, kind: Kind | None, environ: dict[str, Any], body: bytes) -> Response:
        try:
            if (call.service, kind) in FAULTS:
                raise FAULTS[call.service, kind]  # type: ignore[index]
            if kind == "fail":
                self.strict.fail_next.add(call.name)
            if call.service == "s3":
                with self._lock:
                    answer = self.objects.answer(call)
            elif call.name in OWN and not (call.name == "CreateTags" and call.params["Resources"][0].startswith("i-")):
                with self._lock:
                    answer = write(call, getattr(self.strict, call.name)(call.params))
            elif call.service == "servicequotas":
                answer = write(call, _quota(call))
            elif call.service == "pricing":
                answer = write(call, self.prices.get_products(call.params))
            else:
                answer = self._of_moto(call, environ, body)
        except AwsFault as fault:
            return self.objects.fault(fault) if call.service == "s3" else write_fault(call, fault)
        if kind == "damage":
            data = answer.get_data()
            answer.set_data(bytes([data[0] ^ 1]) + data[1:])
        return answer

    def _of_moto(self, call: Call, environ: dict[str, Any], body: bytes) -> Response:
        with self._lock:
            token = call.params.get("ClientToken", "") if call.name == "RunInstances" else ""
            if token in self._runs and token:
                asked, told = self._runs[token]
                if asked != _without_signature(call):
                    raise AwsFault("IdempotentParameterMismatch", "The token was used with other parameters.")
                return Response(told, 200, content_type="text/xml")
            if call.name == "RunInstances":
                self._check_run(call)
            answer = Response.from_app(self._moto, _again(environ, body).environ, buffered=True)
            if answer.status_code < 300:
                for stray in strays(call, answer.get_data()):
                    raise Drift(f"moto's answer has {stray}, which the model does not know")
                if call.name == "RunInstances":
                    self._runs[token] = (_without_signature(call), answer.get_data())
                    self._fill_volumes(call, answer.get_data())
            return answer

    def _check_run(self, call: Call) -> None:
        image = self.strict.images.get(call.params["ImageId"])
        if image is None:
            raise AwsFault("InvalidAMIID.NotFound", f"The image id '[{call.params['ImageId']}]' does not exist")
        if call.params["InstanceType"] not in INSTANCE_TYPES:
            raise AwsFault("InvalidParameterValue", f"Invalid value '{call.params['InstanceType']}' for InstanceType.")

    def _fill_volumes(self, call: Call, body: bytes) -> None:
        """The new instance's boot volume holds what its image's first snapshot holds."""
        image = self.strict.images[call.params["ImageId"]]
        disks = [self.strict.snapshots[m["Ebs"]["SnapshotId"]] for m in image["BlockDeviceMappings"]]
        (instance,) = re.findall(rb"<instanceId>(i-[0-9a-f]+)<", body)
        for volume in (volume for backend in _backends() for volume in list(backend.volumes.values())):
            if volume.attachment and volume.attachment.instance.id == instance.decode():
                self.strict.volumes[volume.id] = dict(disks[0].blocks)


def _backends() -> list[Any]:
    return [backend for regions in ec2_backends.values() for backend in regions.values()]


class _HungUp(ConnectionResetError):
    """werkzeug writes nothing more to a connection that was reset."""


class _Quiet(WSGIRequestHandler):
    def log_request(self, *_: Any) -> None:
        pass

    def make_environ(self) -> dict[str, Any]:
        environ = super().make_environ()
        environ["tests.socket"] = self.connection
        return environ


def _again(environ: dict[str, Any], body: bytes) -> Request:
    """The same request with its body still to be read."""
    fresh = {k: v for k, v in environ.items() if not k.startswith("werkzeug.")}
    return Request({**fresh, "wsgi.input": io.BytesIO(body)})


def _hang_up(environ: dict[str, Any]) -> Iterable[bytes]:
    environ["tests.socket"].shutdown(socket.SHUT_RDWR)
    raise _HungUp("the fault plan says so")


def _without_signature(call: Call) -> str:
    return repr(call.params)


def _quota(call: Call) -> dict[str, Any]:
    key = (call.params["ServiceCode"], call.params["QuotaCode"])
    if key not in QUOTAS or (call.name == "GetServiceQuota" and key not in CHANGED):
        raise AwsFault("NoSuchResourceException", "The request failed because the quota does not exist.", 400)
    name, value = QUOTAS[key]
    return {"Quota": {"ServiceCode": key[0], "QuotaCode": key[1], "QuotaName": name, "Value": value}}

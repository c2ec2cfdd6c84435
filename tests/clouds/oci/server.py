"""Oracle Cloud over HTTP for the real SDK: signatures are verified, models are checked, faults come between."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.clouds.faults import FaultPlan, Kind
from tests.clouds.loopback import Answer, HungUp, Loopback
from tests.clouds.oci.fake import TENANCY, StrictOci
from tests.clouds.oci.wire import Drift, Fault, judge, verify

USER = "ocid1.user.oc1..test"
CORE, STORAGE, LIMITS, REQUESTS = "oci.core", "oci.object_storage", "oci.limits", "oci.work_requests"
RANGE = "GetObject of a range"
"""Our name for a part of an object that is read."""
_OBJECT = r"/n/(?P<namespace>[^/]+)/b/(?P<bucket>[^/]+)"
_PAGED = {"limit", "page"}
ROUTES: tuple[tuple[str, str, str, str, str, str, set[str]], ...] = (
    ("HEAD", f"{_OBJECT}/o/(?P<object>.+)", "HeadObject", STORAGE, "", "", set()),
    ("GET", f"{_OBJECT}/o/(?P<object>.+)", "GetObject", STORAGE, "", "", set()),
    ("PUT", f"{_OBJECT}/o/(?P<object>.+)", "PutObject", STORAGE, "", "", set()),
    ("DELETE", f"{_OBJECT}/o/(?P<object>.+)", "DeleteObject", STORAGE, "", "", set()),
    ("POST", f"{_OBJECT}/u", "CreateMultipartUpload", STORAGE, "CreateMultipartUploadDetails", "MultipartUpload",
     set()),
    ("GET", f"{_OBJECT}/u", "ListMultipartUploads", STORAGE, "", "list[MultipartUpload]", _PAGED),
    ("PUT", f"{_OBJECT}/u/(?P<object>.+)", "UploadPart", STORAGE, "", "", {"uploadId", "uploadPartNum"}),
    ("GET", f"{_OBJECT}/u/(?P<object>.+)", "ListMultipartUploadParts", STORAGE, "", "list[MultipartUploadPartSummary]",
     _PAGED | {"uploadId"}),
    ("POST", f"{_OBJECT}/u/(?P<object>.+)", "CommitMultipartUpload", STORAGE, "CommitMultipartUploadDetails", "",
     {"uploadId"}),
    ("DELETE", f"{_OBJECT}/u/(?P<object>.+)", "AbortMultipartUpload", STORAGE, "", "", {"uploadId"}),
    ("POST", "/20160918/images", "CreateImage", CORE, "CreateImageDetails", "Image", set()),
    ("GET", "/20160918/images", "ListImages", CORE, "", "list[Image]", _PAGED | {"compartmentId", "displayName"}),
    ("POST", "/20160918/images/(?P<id>[^/]+)/actions/export", "ExportImage", CORE, "ExportImageDetails", "Image",
     set()),
    ("GET", "/20160918/bootVolumes/(?P<id>[^/]+)", "GetBootVolume", CORE, "", "BootVolume", set()),
    ("GET", "/20160918/workRequests", "ListWorkRequests", REQUESTS, "", "list[WorkRequestSummary]",
     _PAGED | {"compartmentId", "resourceId"}),
    ("GET", "/20160918/workRequests/(?P<id>[^/]+)", "GetWorkRequest", REQUESTS, "", "WorkRequest", set()),
    ("GET", "/20160918/workRequests/(?P<id>[^/]+)/errors", "ListWorkRequestErrors", REQUESTS, "",
     "list[WorkRequestError]", _PAGED),
    ("GET", "/20160918/images/(?P<id>[^/]+)", "GetImage", CORE, "", "Image", set()),
    ("DELETE", "/20160918/images/(?P<id>[^/]+)", "DeleteImage", CORE, "", "", set()),
    ("POST", "/20160918/instances/?", "LaunchInstance", CORE, "LaunchInstanceDetails", "Instance", set()),
    ("GET", "/20160918/instances/?", "ListInstances", CORE, "", "list[Instance]",
     _PAGED | {"compartmentId", "displayName"}),
    ("GET", "/20160918/instances/(?P<id>[^/]+)", "GetInstance", CORE, "", "Instance", set()),
    ("PUT", "/20160918/instances/(?P<id>[^/]+)", "UpdateInstance", CORE, "UpdateInstanceDetails", "Instance", set()),
    ("POST", "/20160918/instances/(?P<id>[^/]+)", "InstanceAction", CORE, "", "Instance", {"action"}),
    ("DELETE", "/20160918/instances/(?P<id>[^/]+)", "TerminateInstance", CORE, "", "", {"preserveBootVolume"}),
    ("GET", "/20160918/vnicAttachments/?", "ListVnicAttachments", CORE, "", "list[VnicAttachment]",
     _PAGED | {"compartmentId", "instanceId"}),
    ("GET", "/20160918/bootVolumeAttachments/?", "ListBootVolumeAttachments", CORE, "", "list[BootVolumeAttachment]",
     _PAGED | {"compartmentId", "instanceId", "availabilityDomain", "bootVolumeId"}),
    ("GET", "/20160918/volumeAttachments/?", "ListVolumeAttachments", CORE, "", "list[VolumeAttachment]",
     _PAGED | {"compartmentId", "instanceId"}),
    ("GET", "/20160918/vnics/(?P<id>[^/]+)", "GetVnic", CORE, "", "Vnic", set()),
    ("GET", "/20160918/shapes", "ListShapes", CORE, "", "list[Shape]",
     _PAGED | {"compartmentId", "availabilityDomain"}),
    ("GET", "/20190729/services/(?P<service>[^/]+)/limits/(?P<limit>[^/]+)/resourceAvailability",
     "GetResourceAvailability", LIMITS, "", "ResourceAvailability", {"compartmentId", "availabilityDomain"}),
)  # fmt: skip
"""Method, path, operation, package of the models, models of request and answer, parameters of the query."""
FAULTS: dict[Kind, Fault] = {
    "throttle": Fault(429, "TooManyRequests", "User-rate limit exceeded."),
    "quota": Fault(400, "LimitExceeded", "The following service limits were exceeded: standard-e5-core-count."),
    "permission": Fault(404, "NotAuthorizedOrNotFound", "Authorization failed or requested resource not found."),
    "expired": Fault(401, "NotAuthenticated", "The required information to complete authentication was incorrect."),
    "unavailable": Fault(503, "ServiceUnavailable", "The service is currently unavailable."),
}


class OciServer:
    """Listens on a free port of the loopback. `drift` collects what the models do not know: tests want it empty."""

    def __init__(self) -> None:
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        public = self._key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        digest = hashlib.md5(public, usedforsecurity=False).hexdigest()
        self.fingerprint = ":".join(digest[at : at + 2] for at in range(0, 32, 2))
        self._lock = threading.Lock()
        self.reset()
        self._server = Loopback(self.answer)
        self.url = self._server.url
        self.close = self._server.close

    def reset(self) -> None:
        """A fresh compartment."""
        self.cloud, self.faults, self.drift = StrictOci(), FaultPlan(), list[str]()
        self.headers_of_faults: dict[str, str] = {}

    def write_credentials(self, folder: Path) -> Path:
        """The configuration file, as `oci setup config` writes it."""
        pem = self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (folder / "key.pem").write_bytes(pem)
        (folder / "key.pem").chmod(0o600)
        (folder / "config").write_text(
            f"[DEFAULT]\nuser={USER}\nfingerprint={self.fingerprint}\ntenancy={TENANCY}\nregion=us-ashburn-1\n"
            f"key_file={folder / 'key.pem'}\n"
        )
        (folder / "config").chmod(0o600)
        return folder / "config"

    def answer(self, verb: str, target: str, headers: dict[str, str], body: bytes) -> Answer:
        try:
            key_id = f"{TENANCY}/{USER}/{self.fingerprint}"
            verify(self._key.public_key(), key_id, verb, target, headers, body)
            name, package, model, answers, params = self._route(verb, target)
            kind = self.faults.next(RANGE if name == "GetObject" and "range" in headers else name)
            if kind == "drop":
                raise HungUp
            if kind in FAULTS:
                fault = FAULTS[kind]
                raise Fault(fault.status, fault.code, fault.message, self.headers_of_faults)
            asked: Any = body
            if model:
                asked = json.loads(body)
                judge(package, asked, model, f"request of {name}")
            with self._lock:
                if kind == "fail":
                    self.cloud.fail_next.add(name)
                if kind == "damage" and body:
                    asked = bytes([body[0] ^ 1]) + body[1:]
                status, more, told = getattr(self.cloud, name)(params, headers, asked)
                if answers:
                    judge(package, told, answers, f"answer of {name}")
                    told = json.dumps(told).encode()
                if kind == "damage" and not body:
                    told = told[:-1] + bytes([told[-1] ^ 1])
            if kind == "lose":
                raise HungUp
            return status, more, told
        except Fault as fault:
            return fault.status, {"Content-Type": "application/json", **fault.headers}, fault.body()
        except HungUp:
            raise
        except Exception as error:  # a bug of the fake is a failure of the test as well
            self.drift.append(f"{type(error).__name__}: {error}")
            return 500, {}, b"{}"

    def _route(self, verb: str, target: str) -> tuple[str, str, str, str, dict[str, str]]:
        parts = urlsplit(target)
        query = {key: values[-1] for key, values in parse_qs(parts.query, keep_blank_values=True).items()}
        for method, pattern, name, package, model, answers, known in ROUTES:
            found = re.fullmatch(pattern, parts.path)
            if method != verb or not found:
                continue
            if not query.keys() <= known:
                raise Drift(f"{name} has {sorted(query.keys() - known)} in its query")
            params = {key: unquote(value) for key, value in found.groupdict().items()} | query
            return name, package, model, answers, params
        raise Drift(f"this fake has no {verb} {parts.path}")

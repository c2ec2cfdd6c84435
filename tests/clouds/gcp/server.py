"""Google Cloud over HTTP for the real SDKs: who calls is checked by his signature, faults come between.

Credentials are a service account of the test's own: google.auth's chain finds its file, signs with its key, and what it
signs is verified here by the public key, at the token's address as well as in each call.
"""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import google.auth.jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.clouds.faults import FaultPlan, Kind
from tests.clouds.gcp.billing import Catalogue
from tests.clouds.gcp.compute import PROJECT, StrictCompute
from tests.clouds.gcp.storage import StrictStorage
from tests.clouds.gcp.wire import Fault, read
from tests.clouds.loopback import HungUp, Loopback

BUCKET = "novacron-test-bucket"
AUDIENCE = "https://oauth2.googleapis.com/token"
"""Of what a service account signs, wherever it is sent."""
PART = "part"
"""Our name for a request to an upload's own address."""
FAULTS: dict[Kind, Fault] = {
    "throttle": Fault(403, "rateLimitExceeded", "Rate Limit Exceeded"),
    "quota": Fault(403, "quotaExceeded", "Quota exceeded."),
    "permission": Fault(403, "forbidden", "Required 'compute.instances.list' permission."),
    "expired": Fault(401, "authError", "Request had invalid authentication credentials."),
    "unavailable": Fault(503, "backendError", "Backend Error"),
}
FAILURE = ("INVALID_USAGE", "The tar archive cannot be read.", 400)


class GcpServer:
    """Listens on a free port of the loopback. `drift` collects what Google does not know: tests want it empty."""

    def __init__(self) -> None:
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._public = self._key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self._lock = threading.Lock()
        self._server = Loopback(self.answer)
        self.url = self._server.url
        self.close = self._server.close
        self.reset()

    def reset(self) -> None:
        """A fresh project."""
        self.storage = StrictStorage(BUCKET)
        self.storage.url = self.url
        self.compute = StrictCompute(self.storage)
        self.catalogue = Catalogue()
        self.faults = FaultPlan()
        self.drift: list[str] = []
        self.headers_of_faults: dict[str, str] = {}

    def write_credentials(self, path: Path) -> None:
        pem = self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        told = {
            "type": "service_account", "project_id": PROJECT, "private_key_id": "1", "private_key": pem.decode(),
            "client_email": f"mover@{PROJECT}.iam.gserviceaccount.com", "token_uri": f"{self.url}/token",
        }  # fmt: skip
        path.write_text(json.dumps(told))

    def answer(self, verb: str, target: str, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        """Raises HungUp when there is to be none."""
        try:
            if target == "/token":
                return self._token(body)
            self._check(headers)
            session = target.removeprefix("/session/") if target.startswith("/session/") else None
            call = None if session else read(verb, target, headers, body)
            kind = self.faults.next(PART if call is None else _name(call))
            if kind == "drop":
                raise HungUp
            if kind in FAULTS:
                fault = FAULTS[kind]
                raise Fault(fault.status, fault.reason, fault.message, self.headers_of_faults)
            with self._lock:
                if kind == "damage":
                    body = bytes([body[0] ^ 1]) + body[1:]
                if call is None:
                    answer = self.storage.part(verb, str(session), headers, body)
                elif call.service == "storage":
                    answer = self.storage.answer(call)
                elif call.service == "cloudbilling":
                    answer = 200, {}, self.catalogue.answer(call)
                else:
                    if kind == "fail":
                        self.compute.fail_next[call.name] = FAILURE
                    answer = 200, {}, self.compute.answer(call)
            if kind == "lose":
                raise HungUp
            return answer
        except Fault as fault:
            return fault.status, {"Content-Type": "application/json", **fault.headers}, fault.body()
        except HungUp:
            raise
        except Exception as error:  # a bug of the fake is a failure of the test as well
            self.drift.append(f"{type(error).__name__}: {error}")
            return 500, {}, str(error).encode()

    def _token(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        asked = {key: values[0] for key, values in parse_qs(body.decode()).items()}
        assert asked["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer", asked
        claims = google.auth.jwt.decode(asked["assertion"], certs=self._public, audience=AUDIENCE)
        assert claims["scope"] == "https://www.googleapis.com/auth/cloud-platform", claims
        told = {"access_token": "by-the-token-server", "expires_in": 3600, "token_type": "Bearer"}
        return 200, {"Content-Type": "application/json"}, json.dumps(told).encode()

    def _check(self, headers: dict[str, str]) -> None:
        token = headers.get("authorization", "").removeprefix("Bearer ")
        if token == "by-the-token-server":
            return
        try:
            google.auth.jwt.decode(token, certs=self._public)
        except Exception as error:
            raise Fault(401, "authError", f"Request had invalid authentication credentials: {error}") from error


def _name(call: Any) -> str:
    return f"{call.name}.resumable" if call.params.get("uploadType") == "resumable" else str(call.name)

"""Oracle's protocol at the server's end: signatures are verified, and what comes in and goes out is held to the SDK's
own models: names of members, their types, and the values of those that have a fixed set.
"""

from __future__ import annotations

import base64
import hashlib
import importlib
import json
import re
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

_PLAIN: dict[str, Any] = {
    "str": str,
    "int": int,
    "float": (int, float),
    "bool": bool,
    "datetime": str,
    "object": object,
}
UNDOCUMENTED = {("CreateImageDetails", "launchOptions"): "LaunchOptions"}
"""Taken by Oracle's API, as people report, though the SDK's model has it in Image only."""


class Drift(AssertionError):
    """A request or an answer that Oracle's models do not know."""


@dataclass(frozen=True)
class Fault(Exception):
    """An answer that is an error, as Oracle words it."""

    status: int
    code: str
    message: str = "The fault plan says so."
    headers: dict[str, str] = field(default_factory=dict)

    def body(self) -> bytes:
        return json.dumps({"code": self.code, "message": self.message}).encode()


def verify(key: rsa.RSAPublicKey, key_id: str, verb: str, target: str, headers: dict[str, str], body: bytes) -> None:
    """Raises Fault 401 for anything but a good signature of all that Oracle wants signed."""
    found = dict(re.findall(r'(\w+)="([^"]*)"', headers.get("authorization", "")))
    names = found.get("headers", "").split()
    wanted = {"date", "(request-target)", "host"}
    if verb in ("POST", "PUT") and not _is_content(verb, target):
        wanted |= {"content-length", "content-type", "x-content-sha256"}
    told = {**headers, "(request-target)": f"{verb.lower()} {target}"}
    try:
        if found["keyId"] != key_id or found["algorithm"] != "rsa-sha256" or not wanted <= set(names):
            raise ValueError(f"signed by {found.get('keyId')}: {names}")
        text = "\n".join(f"{name}: {told[name]}" for name in names).encode()
        key.verify(base64.b64decode(found["signature"]), text, padding.PKCS1v15(), hashes.SHA256())
        if "x-content-sha256" in names:
            digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
            if headers["x-content-sha256"] != digest:
                raise ValueError("the body is not the one that was signed")
        parsedate_to_datetime(headers["date"])
    except (KeyError, ValueError, InvalidSignature) as error:
        raise Fault(401, "NotAuthenticated", f"The signature is not good: {error!r}") from error


def _is_content(verb: str, target: str) -> bool:
    """The bytes of an object or of a part are not signed."""
    return verb == "PUT" and re.match(r"/n/[^/]+/b/[^/]+/[ou]/", target) is not None


def judge(package: str, value: Any, kind: str, what: str) -> None:
    """`kind` as the models write it: `str`, `list[Image]`, `dict(str, str)`. Raises Drift."""
    if value is None:
        return
    if found := re.fullmatch(r"list\[(.+)\]", kind):
        _typed(value, list, what)
        for item in value:
            judge(package, item, found[1], f"{what}[]")
    elif found := re.fullmatch(r"dict\(str, (.+)\)", kind):
        _typed(value, dict, what)
        for key, item in value.items():
            judge(package, item, found[1], f"{what}.{key}")
    elif kind in _PLAIN:
        _typed(value, _PLAIN[kind], what)
    else:
        _typed(value, dict, what)
        models = importlib.import_module(f"{package}.models")
        known = getattr(models, kind)
        if hasattr(known, "get_subtype"):
            known = getattr(models, known.get_subtype(value))
        empty = known()
        attributes = {theirs: ours for ours, theirs in empty.attribute_map.items()}
        for key, item in value.items():
            extra = UNDOCUMENTED.get((kind, key))
            if key not in attributes and not extra:
                raise Drift(f"{what} has {key}, which {kind} does not know")
            judge(package, item, extra or empty.swagger_types[attributes[key]], f"{what}.{key}")
            if not extra and isinstance(item, str):
                _enumerated(empty, attributes[key], item, what)


def _typed(value: Any, kind: Any, what: str) -> None:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind not in (bool, object)):
        raise Drift(f"{what} is {value!r}, not {kind}")


def _enumerated(empty: Any, attribute: str, value: str, what: str) -> None:
    try:
        setattr(empty, attribute, value)
    except ValueError as error:
        raise Drift(f"{what}: {error}") from error
    if getattr(empty, attribute) == "UNKNOWN_ENUM_VALUE":
        raise Drift(f"{what}.{attribute} is {value!r}, which is none of its values")

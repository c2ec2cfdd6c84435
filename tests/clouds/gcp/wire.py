"""Google's APIs at the server's end, held to Google's own description of them: the discovery documents, which ship in
google-api-python-client. Paths, parameters and bodies that come in, and answers that go out, are checked by them.

A member, type, enum or path that Google does not have is Drift: a failure of the test. So is a member of a request that
only Google sets.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

Schema = dict[str, Any]
_TYPES: dict[str, Any] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "array": list,
    "object": dict,
}


class Drift(AssertionError):
    """A request or an answer that Google's description does not know."""


@dataclass(frozen=True)
class Fault(Exception):
    """An answer that is an error, as Google words it."""

    status: int
    reason: str
    message: str = "The fault plan says so."
    headers: dict[str, str] = field(default_factory=dict)

    def body(self) -> bytes:
        told = {"message": self.message, "domain": "global", "reason": self.reason}
        return json.dumps({"error": {"code": self.status, "message": self.message, "errors": [told]}}).encode()


@dataclass(frozen=True)
class Call:
    service: str
    name: str
    """Such as `images.insert`."""
    params: dict[str, str]
    body: bytes
    headers: dict[str, str]
    method: Schema
    upload: bool = False

    def json(self) -> dict[str, Any]:
        """The body, judged."""
        told = json.loads(self.body)
        judge(self.service, told, self.method["request"], f"request of {self.name}", request=True)
        assert isinstance(told, dict)
        return told


@dataclass(frozen=True)
class _Route:
    service: str
    verb: str
    pattern: re.Pattern[str]
    method: Schema
    upload: bool


@cache
def document(service: str) -> Schema:
    file = resources.files("googleapiclient.discovery_cache") / "documents" / f"{service}.v1.json"
    told: Schema = json.loads(file.read_text(encoding="utf-8"))
    return told


def read(verb: str, target: str, headers: dict[str, str], body: bytes) -> Call:
    """Raises Drift when no method of Google's has this path, or not these parameters."""
    parts = urlsplit(target)
    for route in _routes():
        found = route.pattern.fullmatch(parts.path)
        if route.verb != verb or not found:
            continue
        query = {key: values[-1] for key, values in parse_qs(parts.query, keep_blank_values=True).items()}
        params = {key: unquote(value) for key, value in found.groupdict().items()} | query
        known = route.method.get("parameters", {}) | document(route.service)["parameters"]
        for key, value in query.items():
            if key not in known:
                raise Drift(f"{route.method['id']} has the parameter {key}, which Google does not know")
            _judge_parameter(f"{route.method['id']}: {key}", value, known[key])
        name = route.method["id"].partition(".")[2]
        return Call(route.service, name, params, body, headers, route.method, route.upload)
    raise Drift(f"Google has no {verb} {parts.path}")


def write(call: Call, told: dict[str, Any]) -> bytes:
    """Raises Drift when the answer does not fit."""
    judge(call.service, told, call.method["response"], f"answer of {call.name}", request=False)
    return json.dumps(told).encode()


def judge(service: str, value: Any, schema: Schema, what: str, *, request: bool) -> None:
    if "$ref" in schema:
        schema = document(service)["schemas"][schema["$ref"]]
    kind = schema.get("type", "any")
    if kind == "any":
        return
    if not isinstance(value, _TYPES[kind]) or (kind in ("integer", "number") and isinstance(value, bool)):
        raise Drift(f"{what} is {value!r}, not of the type {kind}")
    if kind == "string":
        if "enum" in schema and value not in schema["enum"]:
            raise Drift(f"{what} is {value!r}, not one of {schema['enum']}")
        if schema.get("format") in ("int64", "uint64") and not re.fullmatch(r"-?\d+", value):
            raise Drift(f"{what} is {value!r}, not a number")
    elif kind == "array":
        for item in value:
            judge(service, item, schema["items"], f"{what}[]", request=request)
    elif kind == "object":
        properties, rest = schema.get("properties", {}), schema.get("additionalProperties")
        for key, item in value.items():
            inner = properties.get(key, rest)
            if inner is None:
                raise Drift(f"{what} has {key}, which Google does not know")
            if request and inner.get("readOnly"):
                raise Drift(f"{what} has {key}, which only Google sets")
            judge(service, item, inner, f"{what}.{key}", request=request)


def _judge_parameter(what: str, value: str, schema: Schema) -> None:
    if schema.get("type") in ("integer", "number") and not re.fullmatch(r"-?\d+", value):
        raise Drift(f"{what} is {value!r}, not a number")
    if schema.get("type") == "boolean" and value not in ("true", "false", "True", "False"):
        raise Drift(f"{what} is {value!r}, neither true nor false")
    if "enum" in schema and value not in schema["enum"]:
        raise Drift(f"{what} is {value!r}, not one of {schema['enum']}")


@cache
def _routes() -> tuple[_Route, ...]:
    found = []
    for service in ("compute", "storage", "cloudbilling"):
        told = document(service)
        for method in _methods(told):
            path = method.get("flatPath", method["path"])
            paths = [("/" + told["servicePath"] + path, False)]
            if "mediaUpload" in method:
                paths.append((method["mediaUpload"]["protocols"]["simple"]["path"], True))
            if method.get("supportsMediaDownload"):
                paths.append(("/download/" + told["servicePath"] + path, False))
            for address, upload in paths:
                pattern = re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(address)))
                found.append(_Route(service, method["httpMethod"], pattern, method, upload))
    return tuple(found)


def _methods(told: Schema) -> Iterator[Schema]:
    yield from told.get("methods", {}).values()
    for inner in told.get("resources", {}).values():
        yield from _methods(inner)

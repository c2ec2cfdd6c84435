"""AWS's protocols at the server's end, held to botocore's own model: what comes in and what goes out is checked by it.

Requests are read with moto's parsers and judged by botocore's validator. Answers of ours are judged the same way before
they are written, so a member that AWS does not have is a failure of the test; answers of moto's are read back and
walked through for anything the model does not know.
"""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

from botocore.model import OperationModel, Shape
from botocore.validate import ParamValidator
from moto.core.parse import PROTOCOL_PARSERS
from moto.core.responses import BaseResponse
from moto.core.serialize import get_serializer_class
from moto.core.utils import get_service_model
from werkzeug.wrappers import Request, Response

SERVICES = {
    "ec2": ("ec2", "ec2"),
    "ebs": ("ebs", "rest-json"),
    "servicequotas": ("service-quotas", "json"),
    "pricing": ("pricing", "json"),
}
"""By signing name: botocore's name and the protocol that boto3 speaks to it."""
COMMON = {
    "ExpiredTokenException", "UnrecognizedClientException", "ThrottlingException", "AccessDeniedException",
    "ServiceUnavailable", "RequestThrottledException",
}  # fmt: skip
"""Errors that any service may answer with, beside those of the operation's model."""


class Drift(AssertionError):
    """A request or an answer that the provider's model does not know."""


@dataclass(frozen=True)
class AwsFault(Exception):
    """An answer that is an error, as AWS words it."""

    code: str
    message: str
    status: int = 400
    reason: str = ""


@dataclass(frozen=True)
class Call:
    service: str
    """Signing name."""
    operation: OperationModel
    params: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.operation.name)


def read(request: Request) -> Call:
    """Raises Drift when the request does not fit the model or is not signed."""
    scope = scope_of(request)
    if len(scope) != 5 or "Signature=" not in request.headers["Authorization"] or scope[3] not in SERVICES:
        raise Drift(f"not signed for a known service: {request.headers.get('Authorization')!r}")
    name, protocol = SERVICES[scope[3]]
    model = get_service_model(name)
    finder = BaseResponse(name)
    if protocol == "ec2":
        operation = request.values["Action"]
    elif protocol == "json":
        operation = request.headers["X-Amz-Target"].split(".")[-1]
    else:
        request.raw_path = request.path  # type: ignore[attr-defined]  # moto's own requests have it
        operation = finder._get_action_from_method_and_request_uri(request)  # type: ignore[arg-type]  # reads what both have
    operation_model = model.operation_model(operation)
    params = PROTOCOL_PARSERS[protocol](operation_model, map_type=dict).parse(
        {
            "method": request.method,
            "values": request.values,
            "headers": request.headers,
            "body": request.get_data(),
            "url_path": request.path,
            "url_params": getattr(finder, "uri_match", {}),
        }
    )
    judge(params, operation_model.input_shape, f"request of {operation}")
    if protocol == "ec2":
        known = {_ec2_key(m, s) for m, s in operation_model.input_shape.members.items()} | {"Action", "Version"}
        for key in request.values:
            if key.split(".")[0] not in known:
                raise Drift(f"request of {operation} has {key}, which the model does not know")
    return Call(scope[3], operation_model, params)


def scope_of(request: Request) -> list[str]:
    """Of its signature: key, day, region, service, version."""
    return request.headers.get("Authorization", "").partition("Credential=")[2].split(",")[0].split("/")


def write(call: Call, result: dict[str, Any]) -> Response:
    """Raises Drift when the result does not fit the model."""
    shape = call.operation.output_shape
    payload = shape.serialization.get("payload") if shape else None
    judge({k: v for k, v in result.items() if k != payload}, shape, f"answer of {call.name}")
    name, protocol = SERVICES[call.service]
    told = get_serializer_class(name, protocol)(operation_model=call.operation).serialize(result)
    status = call.operation.http.get("responseCode", 200)
    return Response(told["body"], status, {k: str(v) for k, v in told["headers"].items()})


def write_fault(call: Call, fault: AwsFault) -> Response:
    if call.service == "ec2":
        body = (
            f"<Response><Errors><Error><Code>{fault.code}</Code><Message>{escape(fault.message)}</Message></Error>"
            "</Errors><RequestID>r-1</RequestID></Response>"
        )
        return Response(body, fault.status, content_type="text/xml")
    known = {shape.error_code for shape in call.operation.error_shapes} | COMMON
    if fault.code not in known:
        raise Drift(f"{call.name} cannot answer with {fault.code}: its model knows {sorted(known)}")
    told = {"message": fault.message, "Message": fault.message} | ({"Reason": fault.reason} if fault.reason else {})
    if call.service in ("servicequotas", "pricing"):
        told["__type"] = fault.code
    headers = {"x-amzn-ErrorType": fault.code}
    return Response(json.dumps(told), fault.status, headers, content_type="application/x-amz-json-1.1")


def strays(call: Call, body: bytes) -> list[str]:
    """Elements of an EC2 answer that the model does not know."""
    root = ET.fromstring(body)
    return _strays(call.operation.output_shape, root, call.name, {"requestId"}) if call.operation.output_shape else []


def _strays(shape: Shape, element: ET.Element, path: str, more: set[str] = frozenset()) -> list[str]:  # type: ignore[assignment]
    if shape.type_name == "list":
        return [found for child in element for found in _strays(shape.member, child, f"{path}[]")]
    if shape.type_name != "structure":
        return [f"{path}/{_tag(child)}" for child in element]
    members = {member.serialization.get("name", name): member for name, member in shape.members.items()}
    found = []
    for child in element:
        if _tag(child) in members:
            found += _strays(members[_tag(child)], child, f"{path}/{_tag(child)}")
        elif _tag(child) not in more:
            found.append(f"{path}/{_tag(child)}")
    return found


def _tag(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]


def _ec2_key(name: str, shape: Shape) -> str:
    """As botocore's EC2 serialiser names it."""
    if "queryName" in shape.serialization:
        return str(shape.serialization["queryName"])
    told = str(shape.serialization.get("name", name))
    return told[0].upper() + told[1:]


def judge(value: dict[str, Any], shape: Shape | None, what: str) -> None:
    if shape is None:
        if value:
            raise Drift(f"{what} has {sorted(value)}, and the model has nothing there")
        return
    report = ParamValidator().validate(value, shape)
    if report.has_errors():
        raise Drift(f"{what} does not fit botocore's model: {report.generate_report()}")

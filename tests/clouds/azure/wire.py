"""Azure's JSON held to the SDK's own models: names, types, enumerations, what is required and what is read-only.

The models tell the JSON name of each attribute and whether a client may send it; their annotations tell the types.
"""

from __future__ import annotations

import datetime
import enum
import types
import typing
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, Union

from azure.mgmt.compute import models as compute
from azure.mgmt.network import models as network
from azure.storage.blob import StorageErrorCode

OPEN = {"VirtualMachineSizeTypes"}
"""Enumerations that the service outgrew: its own words are to ask the resource SKUs."""
STORAGE_CODES = {code.value for code in StorageErrorCode}


class Drift(AssertionError):
    """A request or an answer that the SDK's model does not know."""


@dataclass(frozen=True)
class AzureFault(Exception):
    """An answer that is an error, as Azure words it."""

    code: str
    message: str
    status: int = 400


def judge_request(value: Any, model: type, what: str) -> None:
    _judge(value, model, what, sent=True)


def judge_answer(value: Any, model: type, what: str) -> None:
    _judge(value, model, what, sent=False)


def _judge(value: Any, hint: Any, where: str, sent: bool) -> None:
    if hint is Any:
        return
    if hasattr(hint, "_is_model"):
        _judge_model(value, hint, where, sent)
        return
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        _judge_choice(value, [each for each in arguments if each is not types.NoneType], where, sent)
    elif origin is list:
        if not isinstance(value, list):
            raise Drift(f"{where} is {value!r}, not a list")
        for number, each in enumerate(value):
            _judge(each, arguments[0], f"{where}[{number}]", sent)
    elif origin is dict:
        if not isinstance(value, dict):
            raise Drift(f"{where} is {value!r}, not an object")
        for key, each in value.items():
            _judge(each, arguments[1], f"{where}/{key}", sent)
    elif origin is Literal:
        if value not in arguments:
            raise Drift(f"{where} is {value!r}, not one of {arguments}")
    else:
        _judge_plain(value, hint, where)


def _judge_choice(value: Any, hints: list[Any], where: str, sent: bool) -> None:
    named = [hint for hint in hints if isinstance(hint, type) and issubclass(hint, enum.Enum)]
    if named and named[0].__name__ in OPEN and isinstance(value, str):
        return None
    if named:  # the SDK takes any string there; the service does not
        known = {str(member.value).lower() for hint in named for member in hint}
        if str(value).lower() not in known:
            raise Drift(f"{where} is {value!r}, not one of {sorted(known)}")
        return None
    problems = []
    for hint in hints:
        try:
            return _judge(value, hint, where, sent)
        except Drift as drift:
            problems.append(drift)
    raise problems[-1]


def _judge_plain(value: Any, hint: Any, where: str) -> None:
    if hint is datetime.datetime:
        datetime.datetime.fromisoformat(value)
    elif hint is float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise Drift(f"{where} is {value!r}, not a number")
    elif not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise Drift(f"{where} is {value!r}, not {hint}")


def _judge_model(value: Any, model: type, where: str, sent: bool) -> None:
    if not isinstance(value, dict):
        raise Drift(f"{where} is {value!r}, not an object")
    fields, hints = _fields(model)
    for key, each in value.items():
        if key not in fields:
            raise Drift(f"{where} has {key}, which {model.__name__} does not know")
        attribute, read_only = fields[key]
        if sent and read_only:
            raise Drift(f"{where} sends {key}, which is read-only in {model.__name__}")
        _judge(each, hints[attribute], f"{where}/{key}", sent)
    for key, (attribute, read_only) in fields.items():
        optional = types.NoneType in typing.get_args(hints[attribute])
        if key not in value and not optional and not (sent and read_only):
            raise Drift(f"{where} has no {key}, which {model.__name__} requires")


@cache
def _fields(model: Any) -> tuple[dict[str, tuple[str, bool]], dict[str, Any]]:
    """JSON name to (attribute, read-only), and the attributes' types."""
    model({})  # fills in what follows
    package = network if model.__module__.startswith(network.__name__) else compute
    module = vars(__import__(model.__module__, fromlist=["_"]))
    hints = typing.get_type_hints(model, {**module, "_models": package})
    told = model._attr_to_rest_field
    return {rest._rest_name: (name, rest._visibility == ["read"]) for name, rest in told.items()}, hints

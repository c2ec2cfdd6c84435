"""Reads a request that came from anywhere (Temporal's CLI, its UI, our client) and says what is wrong with it.

Every complaint names the field, the value given, and what to write instead. Pure: the faces use it before they start
anything, the workflow uses it again because not every start comes through them.
"""

from __future__ import annotations

import difflib
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from models import failures, ids, queues
from models.host import SiteSettings
from models.migration import MigrateRequest
from models.planning import LabelRequest, PlanRequest
from workflows import errors

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T", MigrateRequest, PlanRequest)

_EXAMPLE = '{"vm": "counter", "to": "host-b"}'
_MOST_LISTED = 20
_LABEL_EXAMPLE = '{"vm": "counter", "give": {"tier": "gold"}}'


def read(raw: object) -> MigrateRequest:
    """The request, or ApplicationError InvalidInput."""
    return _two_hosts(read_as(MigrateRequest, raw, _EXAMPLE))


def read_plan(raw: object) -> PlanRequest:
    """The same for a plan."""
    return _two_hosts(read_as(PlanRequest, raw, _EXAMPLE))


def read_label(raw: object) -> LabelRequest:
    """The same for labels."""
    request = read_as(LabelRequest, raw, _LABEL_EXAMPLE)
    if both := sorted(set(request.give) & set(request.take)):
        raise errors.final(
            failures.INVALID_INPUT, f"take: {both[0]!r} is also in give. Give a label, or take it off, not both"
        )
    return request


def _two_hosts(request: T) -> T:
    if request.source == request.to:
        raise errors.final(
            failures.INVALID_INPUT,
            f"to: {request.to!r} is also the source. Name another host, or leave source out to have it found",
        )
    return request


def read_as(model: type[M], raw: object, example: str) -> M:
    """A request of this kind, or ApplicationError InvalidInput."""
    if isinstance(raw, model):
        raw = raw.model_dump()
    if not isinstance(raw, dict):
        given = "nothing" if raw is None else f"{_short(raw)}"
        raise errors.final(failures.INVALID_INPUT, f"input: got {given}. Give one JSON object, for example {example}")
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise errors.final(failures.INVALID_INPUT, complaints(error, model, example)) from None


def check_host(settings: SiteSettings, field: str, name: str) -> None:
    """Refuses a name that the site does not have."""
    if name not in settings.hosts:
        members = sorted(settings.hosts)
        listed = ", ".join(members[:_MOST_LISTED]) + (", ..." if len(members) > _MOST_LISTED else "")
        raise errors.final(
            failures.INVALID_INPUT,
            f"{field}: {name!r} is not a host of site {settings.site!r}. Its hosts: {listed}",
        )


def site_of(workflow_id: str, task_queue: str, vm: str) -> str:
    """The site this run belongs to, from its id; refuses an id or a queue under which the lock would not hold.

    A replay runs on a queue of its own, so only another site's queue counts as wrong.
    """
    prefix = queues.control("")
    polled = task_queue.removeprefix(prefix) if task_queue.startswith(prefix) else ""
    site, locked = ids.parse_migrate_vm(workflow_id) or ("", "")
    if locked != vm:
        right = ids.migrate_vm(polled or "<site>", vm)
        raise errors.final(
            failures.INVALID_INPUT,
            f"workflow id: got {workflow_id!r}. The id is the VM's lock: start it again with {right!r}",
        )
    if polled and polled != site:
        raise errors.final(
            failures.INVALID_INPUT,
            f"task queue: got {task_queue!r} for a VM of site {site!r}. Start it again on {queues.control(site)!r}, "
            f"or with the id {ids.migrate_vm(polled, vm)!r}",
        )
    return site


def complaints(error: ValidationError, model: type[BaseModel] = MigrateRequest, example: str = _EXAMPLE) -> str:
    """All problems of a request, one sentence each."""
    return "; ".join(_complaint(detail, model, example) for detail in error.errors(include_url=False))


def _complaint(detail: ErrorDetails, model: type[BaseModel], example: str) -> str:
    where = [str(part) for part in detail["loc"]]
    field, given = ".".join(where) or "input", _short(detail["input"])
    match detail["type"]:
        case "missing":
            return f"{field}: missing. Add it, for example {example}"
        case "extra_forbidden":
            names = _fields(where[:-1], model)
            near = difflib.get_close_matches(where[-1], names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else "remove it."
            return f"{field}: unknown field (value {given}); {hint} Known fields: {', '.join(names)}"
        case "string_pattern_mismatch" if where[0] in ("vm", "vms", "to", "source", "host", "hosts"):
            return f"{field}: got {given}. Use letters, digits, dot, underscore and dash; 63 characters at most"
        case _:
            return f"{field}: got {given}. {detail['msg'].removeprefix('Value error, ')}"


def _fields(parents: list[str], model: type[BaseModel]) -> list[str]:
    for parent in parents:
        if parent in model.model_fields:
            model = _model_in(model.model_fields[parent].annotation) or model
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model that a field holds, or a tuple of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part))), None)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."

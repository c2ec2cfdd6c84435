"""What NovaCron tells the world, and whom: every type of event with its data, as CloudEvents 1.0 in structured JSON.

An event is made once, inside a workflow, and is the same bytes however often it is sent: `id` is what a receiver drops
repetitions by. `sequence` counts the events of one source from 1, so that a receiver can put them in order.
"""

from __future__ import annotations

import ipaddress
from fnmatch import fnmatchcase
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import AwareDatetime, Field, StringConstraints, field_validator, model_validator

from models.base import AbsolutePath, Count, MigrationId, Model, Name, Seconds, Text
from models.migration import Phase

EventId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
Source = Annotated[str, StringConstraints(pattern=r"^/[A-Za-z0-9._/-]{1,400}$")]


class EventData(Model):
    """Base of what an event says; the class is the type."""

    type: ClassVar[str]


class MoveStarted(EventData):
    """A move of a VM was asked for, its request is sound, and the site's hosts are being asked."""

    type: ClassVar[str] = "novacron.move.started"
    vm: Name
    to: Name
    initiator: Annotated[str, Field(max_length=256)] = ""


class MovePhase(EventData):
    """The move has entered a phase. `hosts`: source and destination, once both are known."""

    type: ClassVar[str] = "novacron.move.phase"
    vm: Name
    phase: Phase
    percent: Annotated[float, Field(ge=0, le=100)] = 0
    hosts: Annotated[tuple[Name, ...], Field(max_length=2)] = ()


class MoveDecision(EventData):
    """The move's controller did something, or chose a way, for the reason given."""

    type: ClassVar[str] = "novacron.move.decision"
    vm: Name
    number: Count = 0
    """Counts within one migration."""
    action: Annotated[str, Field(max_length=64)]
    value: float = 0
    """What it was set to, in the unit that goes with the action; 0 where there is none."""
    reason: Text


class PolicyChanged(EventData):
    """Somebody changed how a running move may be done."""

    type: ClassVar[str] = "novacron.move.policy"
    vm: Name
    change: Text


class MoveFinished(EventData):
    """The VM runs at the destination and nowhere else. Bytes and seconds."""

    type: ClassVar[str] = "novacron.move.finished"
    vm: Name
    source: Name
    destination: Name
    migration_id: MigrationId
    seconds: Seconds
    downtime_ms: Count = 0
    memory_bytes: Count = 0
    raw_bytes: Count = 0
    wire_bytes: Count = 0
    post_copy: bool = False
    digest_verified: bool = False
    notes: Annotated[tuple[Text, ...], Field(max_length=20)] = ()


class MoveFailed(EventData):
    """The move has ended without moving the VM; `message` says why, and where the VM is."""

    type: ClassVar[str] = "novacron.move.failed"
    vm: Name
    error: Annotated[str, Field(max_length=64)]
    """Type of the failure: models/failures.py."""
    message: Text


class MoveCancelled(EventData):
    """The move was stopped by somebody; the VM runs where it did."""

    type: ClassVar[str] = "novacron.move.cancelled"
    vm: Name
    message: Text


class TwoCopies(EventData):
    """Alarm: more than one live copy of the VM was seen. Nothing was destroyed; a person must look at once."""

    type: ClassVar[str] = "novacron.vm.two-copies"
    vm: Name
    message: Text


class EvacuationProgress(EventData):
    """How far the evacuation of a host is: VMs by what became of them. `done` or `cancelled`: it takes VMs again."""

    type: ClassVar[str] = "novacron.host.evacuation"
    host: Name
    phase: Annotated[str, Field(max_length=32)] = ""
    """Of models/fleet.py."""
    moved: Count = 0
    moving: Count = 0
    waiting: Count = 0
    failed: Count = 0
    skipped: Count = 0
    """Cannot move now."""


class HostDrained(EventData):
    """No VM is left on the host, and it takes none until it is resumed."""

    type: ClassVar[str] = "novacron.host.drained"
    host: Name
    moved: Count = 0
    seconds: Seconds = 0


TYPES: dict[str, type[EventData]] = {
    data.type: data
    for data in (
        MoveStarted, MovePhase, MoveDecision, PolicyChanged, MoveFinished, MoveFailed, MoveCancelled, TwoCopies,
        EvacuationProgress, HostDrained,
    )
}  # fmt: skip
"""Every type there is; docs/events.md shows a sample of each."""


class CloudEvent(Model):
    """One event, as CloudEvents 1.0 has it (specversion to data), with the extension `sequence`."""

    specversion: Literal["1.0"] = "1.0"
    id: EventId
    source: Source
    """/novacron/<site>/<workflow id>"""
    type: Annotated[str, Field(max_length=64)]
    subject: Annotated[str, Field(max_length=128)]
    """The VM or host it is about."""
    time: AwareDatetime
    datacontenttype: Literal["application/json"] = "application/json"
    sequence: Annotated[str, StringConstraints(pattern=r"^[0-9]{10}$")]
    """Counts from 0000000001 within `source` and run; sorts as text."""
    data: dict[str, Any]

    @classmethod
    def of(cls, data: EventData, *, site: str, workflow_id: str, run_id: str, sequence: int, **rest: Any) -> CloudEvent:
        """`rest`: subject and time."""
        return cls(
            id=f"{run_id}-{sequence}",
            source=f"/novacron/{site}/{workflow_id}",
            type=data.type,
            sequence=f"{sequence:010d}",
            data=data.model_dump(mode="json"),
            **rest,
        )


class Teller(Model):
    """The run that tells events."""

    workflow_id: Annotated[str, Field(max_length=1000)]
    run_id: Annotated[str, Field(max_length=64)]


class EventBatch(Model):
    """Input and signal of novacron.DeliverEvents: the next events of one run."""

    site: Name
    subject: Name
    teller: Teller
    events: Annotated[tuple[CloudEvent, ...], Field(max_length=64)] = ()
    last: bool = False
    """Nothing more will come."""


class Told(Model):
    events: Count = 0
    """Handed over."""


class Webhook(Model):
    """A receiver of events. Its secret is never in these settings: they name where it is."""

    name: Name
    url: Annotated[str, Field(max_length=1024)]
    """https, or http on loopback. Redirects are not followed."""
    types: Annotated[tuple[Annotated[str, Field(max_length=64)], ...], Field(min_length=1, max_length=32)] = ("*",)
    """Which events: types, or patterns such as novacron.move.*"""
    secret_file: AbsolutePath | None = None
    """File with one secret a line, `whsec_` and base64; with several, each signs (to change them without a gap)."""
    secret_env: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")] | None = None
    """The same in an environment variable of the control worker."""
    authority: AbsolutePath | None = None
    """PEM file of the authority that signed the receiver's certificate; None: those of the machine."""
    timeout: Annotated[float, Field(gt=0, le=30)] = 10
    """Seconds for the whole exchange."""

    @field_validator("url")
    @classmethod
    def _safe_to_send_to(cls, url: str) -> str:
        parts = urlsplit(url)
        if not parts.hostname or parts.username or parts.fragment or not url.isascii() or not url.isprintable():
            raise ValueError("give a URL such as https://hooks.example.net/novacron, without user, fragment or spaces")
        if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(parts.hostname)):
            raise ValueError("use https; http is for 127.0.0.1, ::1 and localhost only")
        _ = parts.port  # raises ValueError when it is none
        return url

    @field_validator("types")
    @classmethod
    def _exist(cls, types: tuple[str, ...]) -> tuple[str, ...]:
        for each in types:
            if not any(fnmatchcase(name, each) for name in TYPES):
                raise ValueError(f"no type of event fits {each!r}. They are: {', '.join(TYPES)}")
        return types

    @model_validator(mode="after")
    def _has_one_secret(self) -> Webhook:
        if (self.secret_file is None) == (self.secret_env is None):
            raise ValueError(f"webhook {self.name}: name its secret by secret_file or by secret_env, one of them")
        return self

    def wants(self, type: str) -> bool:
        return any(fnmatchcase(type, each) for each in self.types)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class WebhookNames(Model):
    """The webhooks of a site as a workflow may know them: names, and what each wants."""

    wants: Annotated[dict[Name, tuple[str, ...]], Field(max_length=16)] = Field(default_factory=dict)
    """Webhook -> types of events."""


class Delivery(Model):
    """One event to one webhook."""

    webhook: Name
    event: CloudEvent


class Delivered(Model):
    status: Annotated[int, Field(ge=0, le=999)]
    """HTTP status of the answer."""


class DeadLetter(Model):
    webhook: Name
    event_id: EventId
    type: str
    why: Text


class Deliveries(Model):
    """Result of novacron.DeliverEvents."""

    events: Count = 0
    delivered: Annotated[dict[Name, Count], Field(max_length=16)] = Field(default_factory=dict)
    """Webhook -> events it took."""
    dead: Annotated[tuple[DeadLetter, ...], Field(max_length=100)] = ()
    """What was given up, the first hundred."""

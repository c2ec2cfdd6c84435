"""The main job, shown: a real guest moves live between two real hosts, and everything claimed is checked.

Nothing is taken from NovaCron's own answers that can be asked of the machine: where QEMU runs, what the guest's serial
line says, how many bytes the interface counted. `Facts` has an entry for each claim; the demo succeeds when all hold.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated
from urllib.parse import quote

import click
from pydantic import Field
from rich.console import Console
from rich.table import Table

from models.base import Model
from models.migration import MigrationOutcome
from novacron import show
from novacron.client import NovaCron
from novacron.errors import LabFailed
from workers.lab.errors import LabError
from workers.lab.guests import Guest
from workers.lab.heartbeats import GuestStory
from workers.lab.hosts import Host
from workers.lab.lab import Lab, LabStatus
from workers.lab.link import LinkSpec
from workers.lab.proof import Proof, copies, prove
from workflows import details

GUEST, SOURCE, DESTINATION = "counter", "host-a", "host-b"
MEMORY_MIB, FILL_MIB, DIRTY_MIB = 512, 96, 5
LINK = LinkSpec.parse(rate="200mbit")


class Verified(Model):
    """The claims, each asked of the machine."""

    same_boot_id: bool
    same_process: bool
    counter_unbroken: bool
    memory_intact: bool
    """The guest walked its whole memory after the move: every page as last written, the fixed region's digest equal."""
    stream_digest_equal: bool
    """The running digests of the memory stream, at both ends of the data path."""
    exactly_one_host: bool
    nothing_left_behind: bool

    @property
    def all(self) -> bool:
        return all(self.model_dump().values())


class Facts(Model):
    """What happened. Bytes and seconds."""

    ok: bool
    vm: str
    source: str = Field(serialization_alias="from")
    destination: str = Field(serialization_alias="to")
    accelerator: str
    link: str
    seconds: float
    longest_silence: float
    """Of the guest's heartbeat, which beats each 0.1 s."""
    guest_ram_bytes: int
    stream_bytes: int
    """What QEMU and libvirt wrote."""
    link_bytes: int
    """What the source's interface sent."""
    ratio: float
    """stream_bytes / link_bytes"""
    verified: Verified
    problems: Annotated[tuple[str, ...], Field(max_length=100)] = ()
    workflow_id: str
    run_id: str
    ui: str


def run(json_output: bool, prometheus: bool = False) -> int:
    """Run the demo; 0 when everything it claims was seen. Raises LabFailed when the lab cannot be had."""
    try:
        facts = asyncio.run(_Demo(json_output, prometheus).run())
    except LabError as error:
        raise LabFailed(str(error)) from error
    if json_output:
        click.echo(facts.model_dump_json(by_alias=True))
    else:
        _summary(facts)
    return 0 if facts.ok else 1


class _Demo:
    def __init__(self, json_output: bool, prometheus: bool) -> None:
        self._json = json_output
        self._prometheus = prometheus
        self._say = Console(stderr=json_output, highlight=False)
        self._lab = Lab()

    async def run(self) -> Facts:
        accelerator = self._lab.accelerator()
        with self._step("lab: Temporal, two libvirt hosts, three workers"):
            status = self._lab.up(hosts=2, link=LINK, prometheus=self._prometheus)
        with self._step(f"guest {GUEST}: {MEMORY_MIB} MiB on {SOURCE} under {accelerator.upper()}"):
            self._lab.destroy_guest(GUEST)
            guest = self._lab.boot_guest(GUEST, SOURCE, memory_mib=MEMORY_MIB, fill=FILL_MIB, dirty=DIRTY_MIB, check=1)
        os.environ["TEMPORAL_ADDRESS"] = status.temporal  # the lab's own, whatever the user's profile says
        with self._lab.heartbeats(GUEST, from_start=True) as heard:
            sent = self._lab.counters(SOURCE).tx_bytes
            self._say.print(f"move: {SOURCE} → {DESTINATION} over {status.link}", style="bold")
            async with NovaCron.connect() as nova:
                migration = await nova.start(GUEST, DESTINATION)
                with show.progress(as_json=False) as watch:
                    outcome = await migration.result(watch)
            sent = self._lab.counters(SOURCE).tx_bytes - sent
            with self._step("the guest walks through its memory on its new host"):
                hosts = [Host(self._lab.settings, host.name) for host in status.hosts]
                proof = await asyncio.to_thread(prove, hosts, GUEST, DESTINATION, heard)
        on = copies(hosts, GUEST)
        return _facts(status, guest, outcome, proof, on == (DESTINATION,), sent, migration.run_id or "")

    @contextmanager
    def _step(self, what: str) -> Iterator[None]:
        """Say what is done, then how long it took."""
        self._say.print(what, style="bold", end=" ")
        begun = time.monotonic()
        yield
        self._say.print(f"{time.monotonic() - begun:.1f} s", style="dim")


def _facts(
    status: LabStatus, guest: Guest, outcome: MigrationOutcome, proof: Proof, one: bool, sent: int, run_id: str
) -> Facts:
    story: GuestStory = proof.story
    verified = Verified(
        same_boot_id=story.boot_ids == (guest.boot_id,),
        same_process=story.pids == (guest.pid,),
        counter_unbroken=not story.breaks and (story.hosts == (SOURCE, DESTINATION)),
        memory_intact=not story.bad and story.digests == (guest.digest,),
        stream_digest_equal=outcome.digest_verified,
        exactly_one_host=one,
        nothing_left_behind=not proof.left,
    )
    workflow_id = f"vm/{outcome.site}/{outcome.vm}"
    return Facts(
        ok=verified.all and not proof.problems,
        vm=outcome.vm,
        source=outcome.source,
        destination=outcome.destination,
        accelerator=guest.accelerator,
        link=str(status.link),
        seconds=round(outcome.seconds, 2),
        longest_silence=round(story.longest_silence, 2),
        guest_ram_bytes=guest.memory_mib << 20,
        stream_bytes=outcome.raw_bytes,
        link_bytes=sent,
        ratio=round(outcome.raw_bytes / sent, 2) if sent else 0.0,
        verified=verified,
        problems=proof.problems,
        workflow_id=workflow_id,
        run_id=run_id,
        ui=f"{status.ui}/namespaces/default/workflows/{quote(workflow_id, safe='')}/{run_id}/history",
    )


_CLAIMS = {
    "same_boot_id": "same boot id",
    "same_process": "same process",
    "counter_unbroken": "counter unbroken",
    "memory_intact": "memory intact, digest equal",
    "stream_digest_equal": "stream digest equal at both ends",
    "exactly_one_host": "exactly one host runs it",
    "nothing_left_behind": "nothing left behind",
}


def _summary(facts: Facts) -> None:
    console = Console(highlight=False)
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim")
    table.add_column()
    table.add_row("moved", f"{facts.vm}: {facts.source} → {facts.destination} ({facts.accelerator.upper()})")
    table.add_row("total time", f"{facts.seconds:.1f} s")
    table.add_row("longest silence", f"{facts.longest_silence:.2f} s (the heart beats each 0.1 s)")
    table.add_row("guest RAM", details.size(facts.guest_ram_bytes))
    table.add_row("on the link", f"{details.size(facts.link_bytes)} for {details.size(facts.stream_bytes)} of stream")
    table.add_row("ratio", f"{facts.ratio:.2f} : 1")
    for claim, held in facts.verified.model_dump().items():
        mark = "[green]yes[/]" if held else "[bold red]NO[/]"
        table.add_row("verified" if claim == "same_boot_id" else "", f"{mark} {_CLAIMS[claim]}")
    console.print()
    console.print(table)
    console.print()
    console.print(f"in the UI: {facts.ui}", soft_wrap=True)
    for problem in facts.problems:
        console.print(f"problem: {problem}", style="bold red")
    console.print()
    console.print(
        "The lab stays up. Go on with `novacron migrate counter --to host-a --watch`, or `novacron lab down`."
    )

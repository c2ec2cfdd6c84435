"""How the command line shows things: tables and a progress bar for people, one JSON line for machines.

Results go to standard output, progress and errors to standard error, so that a pipe gets results only.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import click
from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn
from rich.progress import Progress as Bar
from rich.table import Table

from models.host import SiteReport
from models.migration import MigrationOutcome, Progress
from novacron.errors import NovaCronError
from workflows import details

_LINE_EVERY = 10.0
"""Percent between two plain lines."""


def json_line(value: object) -> None:
    click.echo(json.dumps(value, ensure_ascii=False))


def error(problem: NovaCronError, as_json: bool) -> None:
    if as_json:
        json_line({"error": {"type": problem.type, "message": str(problem), "remedy": problem.remedy}})
        return
    click.echo(f"novacron: {problem}", err=True)
    if problem.remedy and problem.remedy.rstrip(".") not in str(problem):
        click.echo(f"  -> {problem.remedy}", err=True)


@contextmanager
def progress(as_json: bool) -> Iterator[Callable[[Progress], None]]:
    """A callback that shows progress: JSON lines, a bar on a terminal, plain lines elsewhere."""
    console = Console(stderr=True)
    if as_json:
        yield lambda report: json_line({"progress": report.model_dump(mode="json")})
    elif console.is_terminal:
        phase, figures = TextColumn("{task.description:<10}"), TextColumn("{task.fields[rest]}")
        with Bar(phase, BarColumn(), TaskProgressColumn(), figures, console=console) as bar:
            task = bar.add_task("checking", total=100, rest="")
            yield lambda report: bar.update(
                task, completed=report.percent, description=report.phase, rest=_figures(report)
            )
    else:
        yield _PlainLines()


class _PlainLines:
    """One line for each new phase and each tenth percent."""

    def __init__(self) -> None:
        self._phase = ""
        self._percent = 0.0

    def __call__(self, report: Progress) -> None:
        if report.phase == self._phase and report.percent < self._percent + _LINE_EVERY:
            return
        self._phase, self._percent = report.phase, report.percent
        click.echo(f"{report.phase} {report.percent:.0f} % {_figures(report)}".rstrip(), err=True)


def _figures(report: Progress) -> str:
    parts = []
    if report.wire_rate > 0:
        parts.append(f"{details.rate(report.wire_rate)} on the link")
    if (shrunk := details.ratio(report.raw_bytes, report.wire_bytes)) != "-":
        parts.append(shrunk)
    if report.eta is not None:
        parts.append(f"{details.eta(report)} left")
    return ", ".join([*parts, report.note] if report.note else parts)


def outcome(result: MigrationOutcome) -> None:
    digest = f"{result.digest} equal at both ends" if result.digest_verified else "not compared, see notes"
    shrunk = details.ratio(result.raw_bytes, result.wire_bytes)
    rows = [
        ("moved", f"{result.vm}: {result.source} → {result.destination} in {details.duration(result.seconds)}"),
        (
            "final pause",
            f"{result.downtime_ms} ms (libvirt's figure)" + (", then post-copy" if result.post_copy else ""),
        ),
        ("guest memory", f"{details.size(result.memory_bytes)} in {result.iterations} passes"),
        *([("disks copied", details.size(result.disk_bytes))] if result.disk_bytes else []),
        ("on the link", f"{details.size(result.wire_bytes)} for {details.size(result.raw_bytes)} ({shrunk})"),
        ("memory digest", digest),
        ("run", f"migration {result.migration_id}, {result.redials} lanes re-dialled"),
    ]
    if result.decisions:
        rows.append(("decisions", f"{len(result.decisions)}; `novacron explain {result.vm}` tells them"))
    rows += [("goal not kept", f"{goal.goal} {goal.wanted}: {goal.got}") for goal in result.goals if not goal.kept]
    rows += [("note", note) for note in result.notes]
    _print(_table([], rows))


def hosts(report: SiteReport) -> None:
    rows = [
        (
            host.host,
            f"answers; in maintenance: {report.maintenance[host.host]}"
            if host.host in report.maintenance
            else "answers",
            f"{host.memory_free_mib} of {host.memory_total_mib} MiB",
            str(sum(vm.state == "running" for vm in host.vms)),
            f"{host.libvirt_version} / {host.qemu_version}",
        )
        for host in report.hosts
    ]
    rows += [(name, f"silent: {why}", "", "", "") for name, why in report.silent.items()]
    _print(_table(["HOST", "WORKER", "FREE MEMORY", "RUNNING", "LIBVIRT / QEMU"], sorted(rows)))


def vms(report: SiteReport) -> None:
    rows = sorted(
        (
            vm.name,
            host.host,
            vm.state + (" (job)" if vm.job else ""),
            f"{vm.memory_mib} MiB",
            str(vm.vcpus),
            labels(vm.labels),
        )
        for host in report.hosts
        for vm in host.vms
    )
    _print(_table(["VM", "HOST", "STATE", "MEMORY", "CPUS", "LABELS"], rows))
    for name, why in report.silent.items():
        click.echo(f"not asked: {name} ({why})", err=True)


def labels(has: Mapping[str, str]) -> str:
    return " ".join(f"{key}={value}" for key, value in sorted(has.items()))


def _table(titles: list[str], rows: Sequence[tuple[str, ...]]) -> Table:
    table = Table(*titles, show_header=bool(titles), box=None, pad_edge=False)
    if not titles:
        table.add_column(style="dim")
        table.add_column()
    for row in rows:
        table.add_row(*row)
    return table


def table(titles: list[str], rows: Sequence[tuple[str, ...]]) -> None:
    _print(_table(titles, rows))


def _print(table: Table) -> None:
    console = Console()
    (console if console.is_terminal else Console(width=160)).print(table, soft_wrap=False)

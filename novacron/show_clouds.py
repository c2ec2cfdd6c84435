"""How clouds, plans and moves to them look in a terminal."""

from __future__ import annotations

import click

from models.cloud_bring import BringPlan
from models.cloud_cache import CacheReport
from models.cloud_move import CloudPlan, CloudsAnswer, CloudSizes, CloudStanding
from novacron import show
from workflows import details


def places(answer: CloudsAnswer) -> None:
    if not answer.places:
        click.echo("no cloud in the control worker's settings: docs/workflows/move-to-cloud.md says how to add one")
        return
    names = list(answer.places[0].offers)
    show.table(
        ["PLACE", *names], [(each.place, *(each.offers.get(name, "") for name in names)) for each in answer.places]
    )


def sizes(found: CloudSizes) -> None:
    hour = {price.item: price for price in found.prices if price.per == "hour"}
    rows = [
        (
            size.name,
            str(size.vcpus),
            str(size.memory_mib),
            size.architecture,
            "/".join(size.firmware),
            f"{hour[size.name].usd:g}" if size.name in hour else "?",
        )
        for size in found.sizes
    ]
    show.table(["SIZE", "VCPUS", "MIB", "ARCH", "BOOTS BY", "USD/HOUR"], rows)
    if hour:
        price = next(iter(hour.values()))
        click.echo(f"prices as of {price.as_of} ({price.source}); ? is not in the list")
    if found.more:
        click.echo("there are more sizes than are shown")


def plan(made: CloudPlan) -> None:
    click.echo(f"{made.vm} from {made.source} to {made.place}, {'while it runs' if made.warm else 'stopped first'}:")
    for number, step in enumerate(made.steps, 1):
        click.echo(f"  {number}. {step}")
    fast, slow = made.seconds
    click.echo(
        f"disks: {details.size(made.disk_bytes)}, about {details.size(made.send_bytes)} to send: "
        f"{details.duration(fast)} at 1 Gbit/s, {details.duration(slow)} at 100 Mbit/s"
    )
    if made.cached:
        saves = "not compared" if made.saved_bytes is None else f"have about {details.size(made.saved_bytes)} of it"
        click.echo(f"  bases that are kept there: {saves}{f' ({made.cache})' if made.cache else ''}")
    _costs(made)
    for change in made.prepared.changes if made.prepared else ():
        click.echo(f"to be changed, {change.rule}: {change.path}: {change.before} -> {change.after}")
    for finding in made.findings:
        click.echo(f"{finding.severity} [{finding.id}]: {finding.what}. {finding.remedy}")


def _costs(made: CloudPlan | BringPlan) -> None:
    for cost in made.costs:
        click.echo(
            f"  {f'{cost.usd:.2f} USD' if cost.usd is not None else 'price not known'} "
            f"{'once' if cost.per == 'once' else f'a {cost.per}'}: {cost.what}"
        )
    if made.prices_as_of:
        click.echo(f"  prices as of {made.prices_as_of} ({made.prices_source})")


def bring_plan(made: BringPlan) -> None:
    how = "while it runs" if made.warm else "stopped first"
    click.echo(f"{made.vm} from {made.place} to {made.host}, {how}:")
    for number, step in enumerate(made.steps, 1):
        click.echo(f"  {number}. {step}")
    fast, slow = made.seconds
    click.echo(
        f"disks: {details.size(made.disk_bytes)}, all to be fetched at most: {details.duration(fast)} at 1 Gbit/s, "
        f"{details.duration(slow)} at 100 Mbit/s"
    )
    _costs(made)
    for finding in made.findings:
        click.echo(f"{finding.severity} [{finding.id}]: {finding.what}. {finding.remedy}")


def standing(seen: CloudStanding, already: set[str]) -> None:
    """What is new since the lines in `already`."""
    lines = [
        f"round {each.number}: {details.size(each.bytes)} in {details.duration(each.seconds)}"
        + (f"; {each.reason}" if each.reason else "")
        for each in seen.rounds
        if each.reason or each.number != seen.rounds[-1].number
    ]
    lines += [f"{seen.stage}{f'; runs on {seen.runs_on}' if seen.runs_on else ''}"]
    lines += [f"note: {note}" for note in seen.notes]
    for line in lines:
        if line not in already:
            already.add(line)
            click.echo(line)


def cache(report: CacheReport) -> None:
    rows = [
        (
            base.disk,
            base.name,
            details.size(base.held),
            base.made.strftime("%Y-%m-%d"),
            f"{base.used:%Y-%m-%d}" if base.used else "never",
            str(base.uses),
            details.size(base.saved),
            f"{base.in_use} moves use it" if base.in_use else "",
        )
        for base in report.bases
    ]
    if rows:
        show.table(["DISK", "OF", "HOLDS", "MADE", "USED", "USES", "SAVED", ""], rows)
    click.echo(
        f"{report.place} keeps {details.size(report.held)} in {len(report.bases)} bases for scope {report.scope}; "
        f"{report.most_gib} GiB at most, {report.days} days without a use"
    )
    for base in report.removed:
        click.echo(f"removed {base.disk} ({base.name}, {details.size(base.held)}): {base.gone}")


def came_home(vm: str, seen: CloudStanding) -> None:
    click.echo(f"{vm} runs on {seen.runs_on}; {details.size(seen.sent_bytes)} came")
    if seen.source_kept_until:
        until = seen.source_kept_until.strftime("%Y-%m-%d %H:%M UTC")
        click.echo(
            f"instance {seen.instance} is kept, stopped, until {until}: `novacron cloud roll-back {vm}`, "
            f"`cloud let-go {vm}`"
        )


def arrived(vm: str, seen: CloudStanding) -> None:
    saved = f", {details.size(seen.saved_bytes)} were there already" if seen.saved_bytes else ""
    click.echo(f"{vm} runs in {seen.runs_on} as {seen.instance}; {details.size(seen.sent_bytes)} were sent{saved}")
    if seen.source_kept_until:
        until = seen.source_kept_until.strftime("%Y-%m-%d %H:%M UTC")
        click.echo(f"its source is kept, shut off, until {until}: `novacron cloud roll-back {vm}`, `cloud let-go {vm}`")

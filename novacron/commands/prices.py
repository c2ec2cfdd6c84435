"""cloud prices: which prices plans are made with here, and a fresh list of them from the providers."""

from __future__ import annotations

from typing import Any, cast

import click

from clouds import prices
from clouds.errors import CloudError
from clouds.prices.refresh import ONLINE, Wishes, known_places, refresh
from models.clouds import Cloud, Price
from models.prices import EVERYWHERE, PriceSummary
from novacron import show
from novacron.commands.base import as_json
from novacron.errors import InvalidInput, NovaCronError

WISHES = Wishes()


class NotUpdated(NovaCronError):
    remedy = "Lists that could not be updated are as they were."


@click.command("prices")
@click.option("--place", metavar="PLACE", help="Cloud and region, such as aws:eu-west-1. Default: all that are known.")
@click.option("--update", is_flag=True, help="Ask the providers, and keep their answers in files of your own.")
@as_json
def cloud_prices(place: str | None, update: bool, as_json: bool) -> None:
    """Show the dated lists of prices that plans are made with, and which file each is from.

    They are those of this machine and user: in novacron/prices of XDG_DATA_HOME (~/.local/share), or the folder that
    NOVACRON_PRICES names, else NovaCron's own. Plans are made by the control worker: run it there, as its user, or let
    NOVACRON_PRICES of both name one folder.

    --update asks AWS with boto3's credentials (pricing:GetProducts), Google with those of google.auth; Azure and Oracle
    ask for none. US dollars, on-demand, Linux. A list is replaced as a whole or not at all. Exits 1 when one was not
    updated.

    \b
    novacron cloud prices --place azure:westeurope --update
    """
    wanted = [_place(place)] if place else list(known_places() if update else prices.places())
    told = [_updated(*each) if update else _known(*each) for each in wanted]
    if as_json:
        show.json_line({"places": [_as_json(each, bool(place)) for each in told]})
    elif place and not update:
        _show_items(told[0])
    else:
        _show(told, update)
    failed = [each.place for each in told if each.why] if update else []
    if failed and as_json:
        click.get_current_context().exit(NotUpdated.exit_code)
    if failed:
        raise NotUpdated(f"not updated: {', '.join(failed)}")


def _place(given: str) -> tuple[Cloud, str]:
    cloud, _, region = given.partition(":")
    if cloud not in ONLINE or not region:
        raise InvalidInput(
            f"--place is {given!r}: not CLOUD:REGION of {', '.join(ONLINE)}", "Such as --place aws:eu-west-1."
        )
    return cloud, region


def _known(cloud: Cloud, region: str, why: str = "") -> PriceSummary:
    found = prices.find(cloud, region)
    if found is None:
        raise InvalidInput(
            f"no prices of {cloud}:{region} are known", f"`novacron cloud prices --place {cloud}:{region} --update`."
        )
    return PriceSummary(
        place=f"{cloud}:{region}",
        count=len(found.rows),
        as_of=found.told.as_of,
        source=found.told.source,
        file=str(found.file or ""),
        why=why or found.why,
    )


def _updated(cloud: Cloud, region: str) -> PriceSummary:
    try:
        refresh(cloud, region, WISHES)
    except CloudError as error:
        if prices.find(cloud, region) is None:
            raise NotUpdated(error.what, f"{error.remedy} There is no older list.") from error
        return _known(cloud, region, str(error))
    return _known(cloud, region)


def _as_json(told: PriceSummary, whole: bool) -> dict[str, Any]:
    line = told.model_dump(mode="json")
    if whole:
        line["prices"] = [{"item": row.item, "per": row.per, "usd": row.usd} for row in _of(told)]
    return line


def _of(told: PriceSummary) -> tuple[Price, ...]:
    cloud, _, region = told.place.partition(":")
    return prices.of(cast(Cloud, cloud), region)


def _show(told: list[PriceSummary], update: bool) -> None:
    rows = [(each.place.replace(EVERYWHERE, "all"), str(each.count), str(each.as_of), _file(each)) for each in told]
    show.table(["PLACE", "PRICES", "AS OF", "FROM"], rows)
    for each in told:
        if each.why:
            click.echo(f"{each.place}: {'not updated: ' if update else ''}{each.why}")


def _show_items(told: PriceSummary) -> None:
    show.table(["ITEM", "USD", "PER"], [(row.item, f"{row.usd:g}", row.per) for row in _of(told)])
    click.echo(f"prices of {told.place} as of {told.as_of} ({told.source}), from {_file(told)}")
    if told.why:
        click.echo(told.why)


def _file(told: PriceSummary) -> str:
    return told.file or "NovaCron's own list"

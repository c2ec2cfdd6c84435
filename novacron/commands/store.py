"""store: what this host remembers of VMs' memory and disk images, so that moves need not send it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from dwcp.errors import StoreFailed
from models.host import HostSettings
from models.store import StoreSettings
from novacron import show
from novacron.commands.base import Commands, as_json
from novacron.errors import InvalidInput, NovaCronError
from workflows import details

if TYPE_CHECKING:
    from dwcp.encoding.store import Indexed, Store

SETTINGS = Path("/etc/novacron/host.json")
_LINE_EVERY = 10
"""Percent between two plain lines."""
_TOLD = 20
"""Things listed before the rest are only counted."""


class StoreUnusable(NovaCronError):
    remedy = "Moves go on without it, and send every page. `novacron store --help` says where it is looked for."


def _where(command: Callable[..., None]) -> Callable[..., None]:
    """The two ways to say which store."""
    settings = click.option(
        "--settings",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        help=f"Settings of this host's worker: folder, limit and images. Default: {SETTINGS}.",
    )
    folder = click.option(
        "--folder",
        type=click.Path(file_okay=False, path_type=Path, resolve_path=True),
        metavar="DIR",
        help="The store's folder itself, without a settings file; all else has its defaults.",
    )
    return settings(folder(as_json(command)))


@click.group(cls=Commands)
def store() -> None:
    """This host's content store: what need not be sent again.

    It keeps the memory of VMs that left or came (so that a VM that returns sends only what has changed), and the keys
    of the blocks of disk images (a guest's page cache is its disk). It is a cache: removing any of it costs bytes in
    later moves, and nothing else. All commands work while moves run; what a move has open stays.
    """


@store.command()
@_where
def stats(settings: Path | None, folder: Path | None, as_json: bool) -> None:
    """Show what it holds, and how much disk it takes."""
    with _store(settings, folder) as one:
        found = one.stats()
    if as_json:
        show.json_line(found.model_dump(mode="json"))
        return
    click.echo(f"{found.folder}: {details.size(found.used_bytes)} of {details.size(found.limit_bytes)}")
    click.echo(f"memory: {found.visits} visits of VMs, {details.size(found.visit_pages * 4096)}")
    click.echo(f"images: {found.images} indexed, {details.size(found.image_blocks * 4096)} of blocks known")
    click.echo(f"used {found.uses} times; {found.drafts} being written; {found.damaged} pages damaged")


@store.command()
@_where
@click.pass_context
def verify(ctx: click.Context, settings: Path | None, folder: Path | None, as_json: bool) -> None:
    """Read all of it and compare every page with its key.

    Moves verify what they use anyway, and send a page that does not fit. This finds a failing disk before they do, at
    the cost of reading all visits and images once. Exits with 1 when damage was found that was not known before.
    """
    with _store(settings, folder) as one, _progress(as_json) as tell:
        found = one.verify(tell)
    if as_json:
        show.json_line(
            {
                "visits": found.visits,
                "images": found.images,
                "pages": found.pages,
                "changed": found.changed,
                "damage": [{"what": one.what, "pages": one.pages, "new": one.found_now} for one in found.damage],
            }
        )
    else:
        click.echo(
            f"verified {details.size(found.pages * 4096)}: {found.visits} visits and {found.images} images, "
            f"{len(found.damage)} with damage"
        )
        for damaged in found.damage[:_TOLD]:
            extent = f"{damaged.pages} pages" if damaged.pages else "as a whole"
            click.echo(f"damaged{'' if damaged.found_now else ' (known)'}: {damaged.what}, {extent}")
        for path in found.changed[:_TOLD]:
            click.echo(f"changed since it was indexed, not looked at: {path} (`novacron store index`)")
        if found.damage:
            click.echo("What is damaged is never used again; `novacron store prune` frees what is damaged as a whole.")
    if found.found_now:
        ctx.exit(1)


@store.command()
@click.option(
    "--to",
    "mib",
    type=click.IntRange(0),
    metavar="MIB",
    help="Disk space to leave it, in MiB. Default: its limit. Less frees disk now; later moves send more.",
)
@_where
def prune(settings: Path | None, folder: Path | None, mib: int | None, as_json: bool) -> None:
    """Remove what is of no use, then the least valuable.

    Of no use: what killed processes left, what is damaged as a whole, older visits of a VM, indexes of images that have
    changed. Then, until the rest fits --to: what was used least and longest ago. What is open in a move stays.
    """
    with _store(settings, folder) as one:
        done = one.prune(None if mib is None else mib << 20)
    if as_json:
        show.json_line({"removed": done.removed, "freed_bytes": done.freed, "used_bytes": done.used})
        return
    click.echo(f"removed {done.removed}, freed {details.size(done.freed)}; {details.size(done.used)} left")
    if mib is not None and done.used > mib << 20:
        click.echo("more than was asked is left: it is in use", err=True)


@store.command()
@click.argument("paths", nargs=-1, metavar="[PATH]...", type=click.Path(path_type=Path, resolve_path=True))
@click.option("--forget", is_flag=True, help="Drop the indexes of PATH instead.")
@_where
@click.pass_context
def index(
    ctx: click.Context,
    paths: tuple[Path, ...],
    forget: bool,
    settings: Path | None,
    folder: Path | None,
    as_json: bool,
) -> None:
    """Learn the blocks of disk images: those the settings name, or PATH (files, or folders of them) by hand.

    Only what has changed is read, whole images at a time; an index takes 20 bytes for a block of 4096. Run it on every
    host of a site: a page of a guest that is a block of an image at the destination is not sent. Serves best for images
    that VMs do not write: base images, templates, install media. One that is written is not used until indexed again.
    Exits with 1 when an image was skipped.
    """
    if forget and not paths:
        raise click.UsageError("--forget needs the PATH of an image")
    with _store(settings, folder) as one, _progress(as_json) as tell:
        if forget:
            dropped = one.forget_images([str(path) for path in paths])
            _say({"dropped": dropped}, f"dropped {len(dropped)} indexes", as_json)
            return
        if not paths and not one.settings.images:
            raise InvalidInput("no images: the settings name none", "Give PATH, or name them in store.images.")
        started = time.monotonic()
        done = one.index_images(tell, [str(path) for path in paths] if paths else None)
        seconds = time.monotonic() - started
    if as_json:
        show.json_line(
            {
                "indexed": done.indexed,
                "unchanged": done.unchanged,
                "dropped": done.dropped,
                "skipped": [{"path": path, "why": why} for path, why in done.skipped],
                "read_bytes": done.read_bytes,
                "blocks": done.blocks,
            }
        )
    else:
        _tell_indexed(done, seconds)
    if done.skipped:
        ctx.exit(1)


def _tell_indexed(done: Indexed, seconds: float) -> None:
    click.echo(
        f"indexed {len(done.indexed)} images: {details.size(done.read_bytes)} read in {details.duration(seconds)}, "
        f"{details.size(done.blocks * 4096)} of distinct blocks; {len(done.unchanged)} unchanged, "
        f"{len(done.dropped)} dropped"
    )
    for path, why in done.skipped:
        click.echo(f"skipped {path}: {why}", err=True)


@contextmanager
def _store(settings: Path | None, folder: Path | None) -> Iterator[Store]:
    """The store that is meant, once it is known to be usable."""
    from dwcp.encoding.store import Store

    with Store(_settings(settings, folder), strict=True) as one:
        if trouble := one.trouble():
            raise StoreUnusable(f"the store cannot be used: {trouble}")
        try:
            yield one
        except (OSError, StoreFailed) as error:
            raise StoreUnusable(f"the store cannot be used: {error}") from error


def _settings(settings: Path | None, folder: Path | None) -> StoreSettings:
    from workers.runtime import BadSettings, load

    if folder is not None:
        if settings is not None:
            raise click.UsageError("give --settings or --folder, not both")
        return StoreSettings(folder=str(folder))
    try:
        return load(HostSettings, settings or SETTINGS).store
    except BadSettings as error:
        raise InvalidInput(str(error), "Give --settings FILE, or --folder DIR for a store by itself.") from error


@contextmanager
def _progress(as_json: bool) -> Iterator[Callable[[str, int, int], None]]:
    """What is read: a bar on a terminal, plain lines elsewhere, nothing for machines."""
    console = Console(stderr=True)
    if as_json:
        yield lambda what, done, total: None
    elif console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(True), TransferSpeedColumn())
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task("", total=None)
            yield lambda what, done, total: bar.update(
                task, description=Path(what).name[-40:], completed=done, total=total
            )
    else:
        yield _PlainLines()


class _PlainLines:
    """A line for each file, and for each tenth percent of it."""

    def __init__(self) -> None:
        self._what = ""
        self._percent = 0

    def __call__(self, what: str, done: int, total: int) -> None:
        percent = 100 * done // max(1, total)
        if what == self._what and percent < self._percent + _LINE_EVERY:
            return
        self._what, self._percent = what, percent
        click.echo(f"{what} {percent} % of {details.size(total)}", err=True)


def _say(facts: object, sentence: str, as_json: bool) -> None:
    if as_json:
        show.json_line(facts)
    else:
        click.echo(sentence)

"""image: bring a file or disk image to a host that has an older or similar one, sending only what it lacks."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from dwcp.encoding.rebuild import FileChunks, Rebuild, fill
from dwcp.encoding.recipe import Recipe, missing, of_file
from dwcp.encoding.transfer import Receiver, Sender, carry
from dwcp.errors import DwcpError
from novacron import show
from novacron.commands.base import Commands, as_json
from novacron.errors import NovaCronError
from workflows import details

_READ = 1 << 20
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_wait = click.option(
    "--wait", type=click.FloatRange(min=1), default=600.0, show_default=True, metavar="S",
    help="Give up when the other end says nothing for so many seconds (it may be reading its file).",
)  # fmt: skip


class ImageFailed(NovaCronError):
    remedy = "Nothing was replaced. Start it again when the cause is gone: it goes on with what has come."


@click.group(cls=Commands)
def image() -> None:
    """Files and disk images that another host has in an older or similar version.

    A file is cut into chunks by its content, so an insertion does not move all that follows. Only chunks that the other
    host lacks are sent, compressed; every chunk and the whole file are verified before the file is put in place.
    """


@image.command()
@click.argument("old", type=_FILE)
@click.argument("new", type=_FILE)
@as_json
def compare(old: Path, new: Path, as_json: bool) -> None:
    """Say how much of NEW would be sent to a host that has OLD, before compression."""
    with _told():
        had, recipe = of_file(old), of_file(new)
    names = {had.id(piece) for piece in range(len(had.lengths))}
    wanted = missing(recipe, names)
    sent, size = sum(recipe.lengths[piece] for piece in wanted), len(recipe.encode())
    if as_json:
        show.json_line({"bytes": recipe.length, "chunks": len(wanted), "chunk_bytes": sent, "recipe_bytes": size})
        return
    click.echo(f"{new}: {details.size(recipe.length)}, of which {details.size(sent)} in {len(wanted)} chunks are new")
    click.echo(f"its recipe takes {details.size(size)}")


@image.command()
@click.argument("file", type=_FILE)
@_wait
def give(file: Path, wait: float) -> None:
    """Speak for FILE over standard input and output: the other end of `novacron image take`."""
    with _told(), file.open("rb", buffering=0) as source:
        recipe = of_file(file)
        offsets, lengths = recipe.offsets(), recipe.lengths
        half = Sender(recipe, lambda piece: os.pread(source.fileno(), lengths[piece], offsets[piece]))
        carry(half, Pipes(sys.stdin.fileno(), sys.stdout.fileno(), wait))


@image.command(context_settings={"ignore_unknown_options": True})
@click.argument("target", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option(
    "--like", "likes", multiple=True, type=_FILE, help="A file here that may have much of it. May be repeated."
)
@click.option(
    "--limit", type=click.IntRange(min=1), default=1 << 20, show_default=True, help="Largest file taken, MiB."
)
@_wait
@as_json
def take(
    target: Path, command: tuple[str, ...], likes: tuple[Path, ...], limit: int, wait: float, as_json: bool
) -> None:
    """Write TARGET from what COMMAND's `novacron image give` sends, and from what this host has.

    TARGET itself, if it exists, and the files named with --like serve as older versions. When interrupted, the same
    command goes on with what has come.

    \b
    novacron image take base.qcow2 -- ssh host-a novacron image give /images/base.qcow2
    """
    likes = (*likes, target) if target.exists() else likes

    def begin(recipe: Recipe) -> Rebuild:
        work = Rebuild(recipe, target)
        for like in likes:
            with contextlib.closing(FileChunks(like)) as chunks:
                fill(work, chunks)
        return work

    half = Receiver(begin, limit << 20)
    with _told(), subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as other:
        assert other.stdin
        assert other.stdout
        try:
            carry(half, Pipes(other.stdout.fileno(), other.stdin.fileno(), wait))
        finally:
            other.stdin.close()
            other.terminate()
    length = half.recipe.length if half.recipe else 0
    if as_json:
        show.json_line({"bytes": length, "received": half.wire_in, "sent": half.wire_out})
    else:
        click.echo(f"{target}: {details.size(length)} in place, {details.size(half.wire_in)} received")


class Pipes:
    """Two file descriptors as one stream."""

    def __init__(self, read: int, write: int, wait: float) -> None:
        self._read, self._write, self._wait = read, write, wait

    def recv(self, size: int, /) -> bytes:
        if not select.select([self._read], [], [], self._wait)[0]:
            raise TimeoutError(f"the other end has said nothing for {self._wait:g} s")
        return os.read(self._read, min(size, _READ))

    def sendall(self, data: bytes, /) -> None:
        view = memoryview(data)
        while view:
            if not select.select([], [self._write], [], self._wait)[1]:
                raise TimeoutError(f"the other end has taken nothing for {self._wait:g} s")
            view = view[os.write(self._write, view[: select.PIPE_BUF]) :]


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Errors in the command line's own words."""
    try:
        yield
    except (DwcpError, OSError) as error:
        raise ImageFailed(str(error)) from error

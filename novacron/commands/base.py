"""What all commands share: the settings from the command line, errors as exit codes, async commands."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from novacron import show
from novacron.client import NovaCron
from novacron.errors import InvalidInput, NovaCronError

T = TypeVar("T")
INTERRUPTED = 130


@dataclass(frozen=True)
class Face:
    """Options of the whole command line."""

    profile: str | None = None
    site: str | None = None

    def run(self, work: Callable[[NovaCron], Coroutine[Any, Any, T]]) -> T:
        """Connect and do `work` with the client."""

        async def connected() -> T:
            async with NovaCron.connect(self.profile, self.site) as nova:
                return await work(nova)

        return asyncio.run(connected())


class Commands(click.Group):
    """A group whose errors end as one message (or one JSON line) and a documented exit code."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta.setdefault("json", "--json" in args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        if ctx.parent is not None:
            return super().invoke(ctx)
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            if not ctx.meta["json"]:
                raise
            where = (error.ctx or ctx).command_path
            show.error(InvalidInput(error.format_message(), f"`{where} --help` lists the options."), as_json=True)
            ctx.exit(InvalidInput.exit_code)
        except NovaCronError as error:
            show.error(error, ctx.meta["json"])
            ctx.exit(error.exit_code)
        except (KeyboardInterrupt, click.Abort):
            click.echo("interrupted; what was started goes on: `novacron watch`, `novacron cancel`", err=True)
            ctx.exit(INTERRUPTED)


as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON line for machines, errors too.")

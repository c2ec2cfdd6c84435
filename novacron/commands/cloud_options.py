"""Options that all moves to, from and between clouds share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from novacron.commands.base import as_json

F = TypeVar("F", bound=Callable[..., Any])


def into() -> Callable[[F], F]:
    """What an instance is made as."""
    return _all(
        click.option("--size", required=True, metavar="NAME", help="Instance size: `novacron cloud sizes PLACE`."),
        click.option("--zone", default="", metavar="NAME", help="Zone of it. Default: the provider's choice."),
        click.option("--subnet", default="", metavar="ID", help="Subnet of it. Default: the provider's default."),
        click.option("--security-group", "groups", multiple=True, metavar="ID", help="May be given again."),
    )


def how(page: str, *, mode: str, kept: str, then: str) -> Callable[[F], F]:
    """How it goes and ends. `page` documents cut-overs by time; the others are help texts."""
    return _all(
        click.option(
            "--mode", type=click.Choice(["auto", "cold", "warm"]), default="auto", show_default=True, help=mode
        ),
        click.option(
            "--downtime",
            type=float,
            default=120,
            show_default=True,
            metavar="SECONDS",
            help="Goal for the cut-over of a warm move: rounds go on until the last one is expected to fit.",
        ),
        click.option("--rounds", type=int, default=10, show_default=True, help="The most rounds before the cut-over."),
        click.option(
            "--cut-over",
            type=click.Choice(["now", "manual"]),
            default="now",
            show_default=True,
            help="now: when the goal is in reach. manual: keep the copy fresh until `novacron cloud cut-over VM`. A "
            f"time or windows: by JSON, {page}.",
        ),
        click.option("--keep-source-for", type=float, default=86400, show_default=True, metavar="SECONDS", help=kept),
        click.option("--then", type=click.Choice(["keep", "remove"]), default="keep", show_default=True, help=then),
        click.option("--dry-run", is_flag=True, help="Show steps, blockers, and what is known; start nothing."),
        click.option("--detach", is_flag=True, help="Start it and return at once."),
        as_json,
    )


def _all(*options: Callable[[F], F]) -> Callable[[F], F]:
    def decorate(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate

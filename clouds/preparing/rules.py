"""All rules, asked in one order: what is to be done to a guest, or why nothing is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from clouds.preparing.checks import check_kernels, check_machine
from clouds.preparing.drivers import pack_drivers
from clouds.preparing.guest import Guest
from clouds.preparing.loader import place_for_uefi, set_kernel_words
from clouds.preparing.mounts import mount_by_uuid, resume_by_uuid
from clouds.preparing.network import forget_names, network_rule
from clouds.preparing.seeds import choose_data_source
from clouds.preparing.steps import Answer, Noted, Refuse, Run, Step, Write
from clouds.preparing.targets import Target

Rule = Callable[[Guest, Target], Iterator[Answer]]


@dataclass(frozen=True)
class Plan:
    noted: tuple[Noted, ...]
    steps: tuple[Step, ...]
    """In the order in which they are done: files first, then what is made from them, each program once."""
    refused: tuple[Refuse, ...]


def rules(dhcp: bool = False) -> tuple[Rule, ...]:
    return (
        check_kernels,
        mount_by_uuid,
        resume_by_uuid,
        forget_names,
        network_rule(dhcp),
        choose_data_source,
        pack_drivers,
        place_for_uefi,
        set_kernel_words,
    )


def make_plan(guest: Guest, target: Target, dhcp: bool = False) -> Plan:
    """All that is refused is told at once; but where the machine itself is, nothing else was looked at."""
    answers = list(check_machine(guest, target))
    if not any(isinstance(each, Refuse) for each in answers):
        for rule in rules(dhcp):
            answers += rule(guest, target)
    steps = [_followed(each, guest) for each in answers if not isinstance(each, Noted | Refuse | Run)]
    programs: dict[tuple[str, ...], Step] = {}
    for each in answers:
        if isinstance(each, Run):
            programs[each.words] = each  # the last one says most: drivers
    return Plan(
        tuple(each for each in answers if isinstance(each, Noted)),
        (*steps, *programs.values()),
        tuple(each for each in answers if isinstance(each, Refuse)),
    )


def _followed(step: Step, guest: Guest) -> Step:
    """What is written is the file that a link leads to, as the guest sees it."""
    return replace(step, path=guest.resolve(step.path)) if isinstance(step, Write) else step

"""Which goals hold for a move: the site's policy for the VM's class, and over it what the request names. Pure.

| the request | the policy that holds |
| --- | --- |
| names one of the site's policies | that one |
| names none | the first of the site's whose labels the VM has; else the one called `default`; else the built-in one |

Fields that the request gives itself go over it, one by one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from models.host import SiteSettings
from models.migration import MigrationPolicy, MoveMode

DEFAULT = "default"


@dataclass(frozen=True)
class Chosen:
    policy: MigrationPolicy
    name: str | None
    """Of the site's policy; None: the built-in one."""
    why: str


def choose(site: SiteSettings, labels: Mapping[str, str], name: str | None, wish: MigrationPolicy) -> Chosen:
    """The policy of a VM with these labels. Raises ValueError when the site has none of that name."""
    named = {policy.name: policy for policy in site.policies}
    if name is not None:
        if name not in named:
            known = f"Its policies: {', '.join(sorted(named))}" if named else "It has none in its settings"
            raise ValueError(f"policy: {name!r} is not a policy of site {site.site!r}. {known}")
        return Chosen(overlaid(named[name].policy, wish), name, f"policy {name}: asked for")
    for each in site.policies:
        if each.labels and each.labels.items() <= labels.items():
            listed = ", ".join(f"{key}={value}" for key, value in sorted(each.labels.items()))
            return Chosen(overlaid(each.policy, wish), each.name, f"policy {each.name}: the VM has {listed}")
    if DEFAULT in named:
        why = f"policy {DEFAULT}: no other fits the VM's labels"
        return Chosen(overlaid(named[DEFAULT].policy, wish), DEFAULT, why)
    return Chosen(overlaid(MigrationPolicy(), wish), None, "the built-in policy: the site has none for this VM")


def overlaid(policy: MigrationPolicy, wish: MigrationPolicy) -> MigrationPolicy:
    """`policy` with the fields that `wish` was given."""
    return policy.model_copy(update={field: getattr(wish, field) for field in wish.model_fields_set})


def effective_mode(policy: MigrationPolicy) -> MoveMode:
    """libvirt has to know before the move starts whether it may switch to post-copy: pre-copy that may is hybrid."""
    return "hybrid" if policy.mode == "pre-copy" and policy.allow_post_copy else policy.mode


def seconds_left(policy: MigrationPolicy, start: datetime) -> float:
    """How long a move that starts then may take: finish_within or until finish_by, the earlier. 0 or less: no time."""
    if policy.finish_by is None:
        return policy.finish_within
    return min(policy.finish_within, (policy.finish_by - start).total_seconds())


def settled(policy: MigrationPolicy, start: datetime) -> MigrationPolicy:
    """The policy as a move that starts then has to be told: its mode, and one span. Raises ValueError: no time."""
    left = seconds_left(policy, start)
    if left <= 0:
        raise ValueError(
            f"finish_by: {policy.finish_by} is not after {start.isoformat(timespec='seconds')}, when the move could "
            f"start. Give a later moment, or leave it out"
        )
    return policy.model_copy(update={"mode": effective_mode(policy), "finish_within": left})

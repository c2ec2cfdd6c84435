"""Resource ids: `/subscriptions/<s>/resourceGroups/<g>/providers/<namespace>/<type>/<name>[/<type>/<name>...]`.

Azure takes them in any case, and lists resource groups in capitals at times: what leaves the adapter is always in one
spelling, so that callers may compare.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from clouds.errors import NotFound

KINDS = {
    "disks": "Microsoft.Compute",
    "snapshots": "Microsoft.Compute",
    "virtualMachines": "Microsoft.Compute",
    "galleries/images/versions": "Microsoft.Compute",
    "networkInterfaces": "Microsoft.Network",
}
_SPELLING = {kind.lower(): kind for kind in KINDS}
_FORM = re.compile(r"/subscriptions/([^/]+)/resourceGroups/([^/]+)/providers/([^/]+)((?:/[^/]+/[^/]+)+)", re.IGNORECASE)


@dataclass(frozen=True)
class ResourceId:
    subscription: str
    group: str
    kind: str
    """Types from the outermost: a key of KINDS."""
    names: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.names[-1]

    @property
    def path(self) -> tuple[str, ...]:
        """As the SDK's calls take it: group, then names."""
        return (self.group, *self.names)

    def __str__(self) -> str:
        places = "/".join(f"{kind}/{name}" for kind, name in zip(self.kind.split("/"), self.names, strict=True))
        return f"/subscriptions/{self.subscription}/resourceGroups/{self.group}/providers/{KINDS[self.kind]}/{places}"


def parse(text: str) -> ResourceId | None:
    """None when it is no id of a kind that this adapter handles."""
    found = _FORM.fullmatch(text)
    if found is None:
        return None
    subscription, group, namespace, rest = found.groups()
    parts = rest[1:].split("/")
    kind = _SPELLING.get("/".join(parts[::2]).lower(), "")
    if not kind or KINDS[kind].lower() != namespace.lower():
        return None
    return ResourceId(subscription.lower(), group, kind, tuple(parts[1::2]))


def find(text: str, subscription: str, group: str, *kinds: str) -> ResourceId:
    """Raises NotFound when it is not the id of one of `kinds` in this subscription."""
    found = parse(text)
    if found is None or found.kind not in kinds or found.subscription != subscription:
        raise NotFound(
            f"{text} is not the id of one of {', '.join(kinds)} in subscription {subscription}",
            "Check the id and the region.",
        )
    own = group if found.group.lower() == group.lower() else found.group
    return ResourceId(found.subscription, own, found.kind, found.names)

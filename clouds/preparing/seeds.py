"""Where cloud-init asks who this machine is, in guests that have it: elsewhere it would wait for the place it left."""

from __future__ import annotations

import re
from collections.abc import Iterator

from clouds.preparing.guest import Guest
from clouds.preparing.steps import Answer, Noted, Refuse, Write
from clouds.preparing.targets import Target

OURS = "etc/cloud/cloud.cfg.d/99_novacron.cfg"


def choose_data_source(guest: Guest, target: Target) -> Iterator[Answer]:
    if not guest.has("usr/bin/cloud-init"):
        yield Noted("no cloud-init: it takes no keys and no user data from the cloud")
        return
    text = f"datasource_list: [ {', '.join(target.data_sources)} ]\n"
    for path, other in guest.match("etc/cloud/cloud.cfg.d/*.cfg"):
        if path > OURS and re.search(r"^[ \t]*datasource_list[ \t]*:", other, re.MULTILINE):
            yield Refuse(
                "cloud-init", f"{path} has the last word on data sources", f"Rename it, to sort before {OURS}."
            )
    before = guest.text(OURS)
    if before != text:
        yield Write("cloud-init", OURS, text, (before or "-").strip(), text.strip())

"""Google's names, labels and addresses. Names are one project's or zone's; ids of instances are `<zone>/<name>`."""

from __future__ import annotations

import re
from collections.abc import Mapping

from clouds.errors import Invalid

_NAME = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_KEY, _VALUE = re.compile(r"[a-z][a-z0-9_-]{0,62}"), re.compile(r"[a-z0-9_-]{0,63}")


def resource(name: str, token: str) -> str:
    """A name that Google takes: this one where it does, else its letters and what tells it from its likes."""
    if _NAME.fullmatch(name):
        return name
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    plain = plain if plain[:1].isalpha() else f"vm-{plain}"
    return f"{plain[:54].rstrip('-')}-{token[:8]}"


def labels(tags: Mapping[str, str]) -> dict[str, str]:
    """Raises Invalid for what Google does not take as a label."""
    for key, value in tags.items():
        if not _KEY.fullmatch(key) or not _VALUE.fullmatch(value):
            raise Invalid(
                f"tag {key!r}={value!r} is no label for Google",
                "Use small letters, digits, - and _, 63 at most; the key begins with a letter.",
            )
    return dict(tags)


def last(url: str) -> str:
    return url.rsplit("/", 1)[-1]


def image_path(project: str, image: str) -> str:
    """`image` is a name in this project, or already a path such as projects/debian-cloud/global/images/debian-12."""
    return image if "/" in image else f"projects/{project}/global/images/{image}"


def split(thing: str, zone: str) -> tuple[str, str]:
    """(zone, name) of an id; one without a zone is in `zone`."""
    before, slash, name = thing.rpartition("/")
    return (before if slash else zone), name

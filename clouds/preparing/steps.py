"""What a rule answers: something found, one step, or why it cannot be done. Nothing here is done by itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Noted:
    """Of interest, and left as it is."""

    what: str


@dataclass(frozen=True)
class Write:
    """The whole new text of a file; one that is there keeps its owner and mode."""

    rule: str
    path: str
    text: str
    before: str
    """In one line, what it said."""
    after: str
    mode: int = 0o644
    """Of a new file."""


@dataclass(frozen=True)
class Remove:
    rule: str
    path: str
    before: str
    after: str = "removed"


@dataclass(frozen=True)
class Copy:
    rule: str
    source: str
    path: str
    before: str = "absent"

    @property
    def after(self) -> str:
        return f"as {self.source}"


@dataclass(frozen=True)
class Run:
    """A program of the guest, in its own root. The words are ours, never the guest's."""

    rule: str
    words: tuple[str, ...]
    before: str
    after: str

    @property
    def path(self) -> str:
        return self.words[0]


@dataclass(frozen=True)
class Refuse:
    rule: str
    why: str
    remedy: str


Step = Write | Remove | Copy | Run
Answer = Noted | Step | Refuse

"""A guest's files as they were read out of its disk: values, not a mount. Rules judge this and nothing else.

Links are followed inside it, as the guest itself would: there is nothing outside it that they could lead to.
"""

from __future__ import annotations

import fnmatch
import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from clouds.preparing.layout import Layout

_HOPS = 40
"""Links in one path; the kernel's own limit."""


@dataclass(frozen=True)
class Guest:
    files: Mapping[str, str]
    """By their paths without the first slash. Bytes that are no UTF-8 are kept as surrogates."""
    layout: Layout
    root: str = ""
    """Where a root file system was found, such as `vda2:ext4`; several are told apart by blanks."""
    links: Mapping[str, str] = field(default_factory=dict)
    """Symbolic links and where they say they lead."""
    present: frozenset[str] = frozenset()
    """What is there without its text: programs, all of /boot."""
    packed: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """By kernel: modules in its initramfs, by name."""
    unmounted: tuple[str, ...] = ()
    """Lines of fstab that name a place we need and could not mount."""
    damaged: tuple[str, ...] = ()
    """Partitions whose file system could not be mounted."""

    def resolve(self, path: str) -> str:
        """The path with its links followed, below the guest's root whatever they say. A loop ends as it began."""
        parts, done, hops = [part for part in path.split("/") if part], "", 0
        while parts:
            part = parts.pop(0)
            if part == ".":
                continue
            if part == "..":
                done = posixpath.dirname(done)
                continue
            here = f"{done}/{part}" if done else part
            target = self.links.get(here)
            if target is None:
                done = here
                continue
            if (hops := hops + 1) > _HOPS:
                return path
            done = "" if target.startswith("/") else done
            parts = [each for each in target.split("/") if each] + parts
        return done

    def text(self, path: str) -> str | None:
        return self.files.get(self.resolve(path))

    def has(self, path: str) -> bool:
        real = self.resolve(path)
        return path in self.present or real in self.present or real in self.files

    def first(self, *paths: str) -> str | None:
        """The first of these that is there."""
        return next((path for path in paths if self.has(path)), None)

    def match(self, pattern: str) -> Iterator[tuple[str, str]]:
        """(path, text) of the files whose path fits; `*` goes over no slash."""
        for path in sorted(self.files):
            if path.count("/") == pattern.count("/") and fnmatch.fnmatchcase(path, pattern):
                yield path, self.files[path]

    def match_links(self, pattern: str) -> Iterator[str]:
        """Links whose path fits, but those to /dev/null: they say that there is no such file."""
        for path, target in sorted(self.links.items()):
            if path.count("/") == pattern.count("/") and fnmatch.fnmatchcase(path, pattern) and target != "/dev/null":
                yield path

    def kernels(self) -> list[str]:
        """Versions that can be booted: an image in /boot."""
        names = [path.removeprefix("boot/vmlinuz-") for path in self.present if path.startswith("boot/vmlinuz-")]
        return sorted(name for name in names if not name.startswith("0-rescue"))

    def modules(self, kernel: str) -> dict[str, bool]:
        """All modules that a kernel has, by name; True: built in."""
        found: dict[str, bool] = {}
        for folder in ("usr/lib/modules", "lib/modules"):
            for file, builtin in (("modules.dep", False), ("modules.builtin", True)):
                for line in (self.text(f"{folder}/{kernel}/{file}") or "").splitlines():
                    found[module_name(line.partition(":")[0])] = builtin
        return found


def module_name(path: str) -> str:
    """kernel/drivers/nvme/host/nvme-core.ko.xz is nvme_core: the kernel takes dash and underscore for the same."""
    return posixpath.basename(path).partition(".ko")[0].replace("-", "_")

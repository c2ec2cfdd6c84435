"""The boot loader, GRUB: the serial console, words for the kernel, the root by UUID, and where UEFI always looks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from clouds.preparing.guest import Guest
from clouds.preparing.steps import Answer, Copy, Refuse, Run, Write
from clouds.preparing.targets import Target

DEFAULTS = "etc/default/grub"
MENUS = ("boot/grub/grub.cfg", "boot/grub2/grub.cfg")
MOVES = re.compile(r"^/dev/([svh]d[a-z]|xvd[a-z]|nvme\d|mmcblk)")
"""Names of disks that depend on what they are attached to."""
_FALLBACK = "boot/efi/EFI/BOOT/BOOTX64.EFI"
_MAKERS = (
    ("usr/sbin/update-grub", ("update-grub",)),
    ("usr/sbin/grub2-mkconfig", ("grub2-mkconfig", "-o")),
    ("usr/sbin/grub-mkconfig", ("grub-mkconfig", "-o")),
)


def set_kernel_words(guest: Guest, target: Target) -> Iterator[Answer]:
    menu = guest.first(*MENUS)
    if menu is None:
        yield Refuse(
            "boot menu", "no grub.cfg in /boot", "Only GRUB is known here: set console and root= in the guest."
        )
        return
    entries = [path for path, _ in guest.match("boot/loader/entries/*.conf")]
    lines = _kernel_lines(guest.text(menu) or "")
    if not lines and entries:
        yield from _set_entries(guest, target, entries)
        return
    if all(_words(line, target) == line.split() for line in lines) and lines:
        return
    defaults = guest.text(DEFAULTS)
    if defaults is None:
        yield Refuse("boot menu", f"no {DEFAULTS}, which the menu is made from", "Install GRUB's configuration.")
        return
    maker = next((words for program, words in _MAKERS if guest.has(program)), None)
    if maker is None:
        yield Refuse("boot menu", "no update-grub and no grub-mkconfig to make the menu anew", "Install grub2-common.")
        return
    text = _set_defaults(defaults, target)
    if text is None:
        yield Refuse("boot menu", f"{DEFAULTS} computes GRUB_CMDLINE_LINUX", "Write its words there as they are.")
        return
    if text != defaults:
        before, after = _value(defaults, "GRUB_CMDLINE_LINUX"), _value(text, "GRUB_CMDLINE_LINUX")
        yield Write("boot menu", DEFAULTS, text, before or "-", after or "-")
    words = (*maker, f"/{menu}") if maker[-1] == "-o" else maker
    yield Run("boot menu", words, lines[0][:200] if lines else "no entries", "made anew from it, root by UUID")


def place_for_uefi(guest: Guest, target: Target) -> Iterator[Answer]:
    """A cloud does not take the variables along that say where the loader is: firmware looks at one place only."""
    here = {path.lower(): path for path in guest.present if path.lower().startswith("boot/efi/")}
    if not here or _FALLBACK.lower() in here:
        return
    loaders: dict[str, dict[str, str]] = {}
    for low, path in sorted(here.items()):
        folder, _, name = low.rpartition("/")
        if name in ("shimx64.efi", "grubx64.efi"):
            loaders.setdefault(folder, {})[name] = path
    if len(loaders) != 1:
        said = "none" if not loaders else "several"
        yield Refuse("UEFI", f"no {_FALLBACK}, and {said} to copy there", "Run grub-install --removable in the guest.")
        return
    found = next(iter(loaders.values()))
    shim, grub = found.get("shimx64.efi"), found.get("grubx64.efi")
    if shim and grub:  # the shim starts the GRUB beside it
        yield Copy("UEFI", grub, "boot/efi/EFI/BOOT/grubx64.efi")
    yield Copy("UEFI", shim or grub or "", _FALLBACK)


def wanted_words(target: Target) -> list[str]:
    return [f"console={each}" for each in target.consoles] + list(target.arguments)


def _kernel_lines(menu: str) -> list[str]:
    """What the entries of a menu give the kernel; those for rescue are as they are."""
    lines = [line.split() for line in menu.splitlines()]
    found = [line[2:] for line in lines if len(line) > 2 and line[0] in ("linux", "linux16", "linuxefi")]
    return [" ".join(words) for words in found if not {"single", "recovery"} & set(words)]


def _words(line: str, target: Target) -> list[str]:
    """The words as they should be: `root=/dev/vda1` stands out, what is wanted is among them, no word twice."""
    given = [word for word in line.split() if not (word.startswith("root=") and MOVES.match(word[5:]))]
    wanted = wanted_words(target)
    consoles = {_console(word) for word in given if word.startswith("console=")}
    if not {_console(word) for word in wanted if word.startswith("console=")} <= consoles or not _last(given, wanted):
        given = [word for word in given if not word.startswith("console=")]
        given += [word for word in wanted if word.startswith("console=")]
    for word in wanted:
        key = word.partition("=")[0]
        if key != "console" and word not in given:
            given = [each for each in given if each.partition("=")[0] != key] + [word]
    return given


def _last(given: Sequence[str], wanted: Sequence[str]) -> bool:
    """Whether /dev/console goes where it should."""
    ends = [[_console(word) for word in words if word.startswith("console=")][-1:] for words in (given, wanted)]
    return ends[0] == ends[1]


def _console(word: str) -> str:
    """The device, without its speed."""
    return word.partition(",")[0]


def _value(text: str, name: str) -> str | None:
    found = re.findall(rf"^{name}=(.*)$", text, re.MULTILINE)
    return found[-1].strip().strip("\"'") if found else None


def _set_defaults(text: str, target: Target) -> str | None:
    """None: the words are computed there."""
    for name in ("GRUB_CMDLINE_LINUX", "GRUB_CMDLINE_LINUX_DEFAULT"):
        value = _value(text, name) or ""
        if re.search(r"[$`\"'\\]", value):
            return None
        words = value.split()
        if name == "GRUB_CMDLINE_LINUX":
            words = _words(value, target)
        else:  # what is said in both would be said last here
            keys = {word.partition("=")[0] for word in wanted_words(target)} | {"root"}
            words = [word for word in words if word.partition("=")[0] not in keys]
        if words != value.split():
            text = _with(text, name, f'"{" ".join(words)}"')
    if _value(text, "GRUB_DISABLE_LINUX_UUID") == "true":
        text = _with(text, "GRUB_DISABLE_LINUX_UUID", "false")
    return text


def _with(text: str, name: str, value: str) -> str:
    line = f"{name}={value}"
    kept = [each for each in text.splitlines() if not each.startswith(f"{name}=")]
    return "\n".join([*kept, line]) + "\n"


def _set_entries(guest: Guest, target: Target, entries: list[str]) -> Iterator[Answer]:
    """Entries of the boot loader specification, as Red Hat's systems have them: files of their own."""
    for path in entries:
        lines = guest.files[path].splitlines(keepends=True)
        index = next((number for number, line in enumerate(lines) if line.split()[:1] == ["options"]), None)
        if index is None or "-rescue" in path:
            continue
        given = lines[index].split()[1:]
        if "$kernelopts" in given:
            yield Refuse(
                "boot menu", f"{path} takes its words from grubenv", "Write them there: grubby --update-kernel."
            )
            continue
        root = next((word[5:] for word in given if word.startswith("root=")), "")
        if MOVES.match(root):
            yield Refuse("boot menu", f"{path} says root={root}", "Name the root by UUID there.")
            continue
        words = _words(" ".join(given), target)
        if words != given:
            lines[index] = f"options {' '.join(words)}\n"
            yield Write("boot menu", path, "".join(lines), " ".join(given), " ".join(words))

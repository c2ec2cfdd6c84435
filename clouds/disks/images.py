"""Image files by qemu-img: judge one, open its content, turn it into the format that a cloud takes.

| format | made as | because |
| --- | --- | --- |
| raw | sparse file | |
| qcow2 | version 3 | OCI takes it |
| vhd | fixed, `force_size`, whole MiB | Azure takes nothing else; without `force_size` CHS geometry rounds the size |
| vmdk | streamOptimized | AWS and OCI take it; written once, from front to back |
| gcp | tar.gz (old GNU, sparse) of `disk.raw`, whole GiB | Google takes nothing else |

The format is always told, never guessed: a guest can write a qcow2 header into its raw disk, and a guess would then
open whatever file that header names. For the same reason images with a backing file, a data file or extents elsewhere
are refused. A target appears under its name only when it is whole.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clouds.disks.content import RawFile, content_hash
from clouds.disks.nbd import Nbd
from clouds.errors import BadDisk, Damaged, MissingPackage
from models.clouds import DISK_LIMIT, DiskFormat

FORMATS: tuple[DiskFormat, ...] = ("raw", "qcow2", "vhd", "vmdk", "gcp")
ALIGNED: dict[DiskFormat, int] = {"vhd": 1 << 20, "gcp": 1 << 30}
"""The guest-visible size is rounded up to this many bytes."""
MEMBER = "disk.raw"
"""What Google looks for in the archive."""
QUESTION_WITHIN = 60.0
CONVERT_WITHIN = 6 * 3600.0
_QEMU: dict[DiskFormat, str] = {"raw": "raw", "qcow2": "qcow2", "vhd": "vpc", "vmdk": "vmdk"}
_ANSWER_LIMIT = 64 << 20


@dataclass(frozen=True)
class ImageInfo:
    format: DiskFormat
    size: int
    """Bytes the guest sees."""
    allocated: int
    """Bytes the file takes."""


def probe(path: str | Path, format: DiskFormat, backing: str | Path = "") -> ImageInfo:
    """Raises BadDisk when the file is not of this format, is larger than any cloud's disk or needs other files than
    `backing`, which it may lie over."""
    if format == "gcp":
        return _probe_archive(Path(path))
    if format == "raw":
        with RawFile(path) as raw:
            return ImageInfo("raw", _sane(raw.size, path), Path(path).stat().st_blocks * 512)
    told = _json("info", "-f", _QEMU[format], path=path)
    if not isinstance(told, dict) or told.get("format") != _QEMU[format]:
        raise BadDisk(f"{path} is no {format} image", "Name its true format.")
    others = [told[key] for key in ("backing-filename", "full-backing-filename") if told.get(key, "") != str(backing)]
    details = told.get("format-specific", {}).get("data", {})
    others += [details["data-file"]] if details.get("data-file") else []
    others += [e["filename"] for e in details.get("extents", ()) if Path(e["filename"]).name != Path(path).name]
    if others:
        raise BadDisk(f"{path} needs another file, {others[0]}", "Flatten it first: qemu-img convert.")
    return ImageInfo(format, _sane(int(told["virtual-size"]), path), int(told.get("actual-size", 0)))


@contextmanager
def open_image(
    path: str | Path, format: DiskFormat, writable: bool = False, backing: str | Path = ""
) -> Iterator[_Image | RawFile]:
    """The content, to read or to write; of an overlay of ours over `backing`, too. A `gcp` archive has to be converted
    to raw first."""
    if format == "gcp":
        raise BadDisk(f"{path} is an archive", "Convert it to raw first.")
    info = probe(path, format, backing)
    if format == "raw":
        with RawFile(path, writable) as raw:
            yield raw
        return
    extents = [] if writable else _data(path, format, info.size)  # QEMU locks an image that is written
    with tempfile.TemporaryDirectory(prefix="novacron-nbd-") as folder:
        socket = f"{folder}/s"
        command = ["qemu-nbd", f"--socket={socket}", f"--format={_QEMU[format]}", "--discard=unmap"]
        command += ["--detect-zeroes=unmap"] if writable else ["--read-only"]
        server = _start([*command, str(path)])
        try:
            with _connected(server, socket, path) as session:
                yield _Image(session, extents)
            server.wait(QUESTION_WITHIN)  # it ends after its last client, with all written
        finally:
            server.kill()
            server.communicate()
        if server.returncode:
            raise BadDisk(f"qemu-nbd of {path} ended with {server.returncode}", "See the image's storage.")


class _Image:
    """Reader and Disk of one qemu-nbd."""

    def __init__(self, session: Nbd, extents: Sequence[tuple[int, int]]) -> None:
        self.size = session.size
        self.read, self.write, self.zero, self.flush = session.read, session.write, session.zero, session.flush
        self._extents = extents

    def data(self) -> Iterator[tuple[int, int]]:
        return iter(self._extents)


def convert(source: str | Path, source_format: DiskFormat, target: str | Path, target_format: DiskFormat) -> ImageInfo:
    """Make `target`, which must not be there. The room for one more raw copy (sparse) is taken beside it where an
    archive is one of the two. Raises BadDisk."""
    source, target = Path(source), Path(target)
    if target.exists():
        raise BadDisk(f"{target} exists and is not overwritten", "Move it away, or choose another name.")
    if source_format != "gcp":
        probe(source, source_format)
    with tempfile.TemporaryDirectory(prefix=".novacron-", dir=target.parent) as folder:
        part = Path(folder) / target.name
        if source_format == "gcp":
            source, source_format = _unpack(source, Path(folder)), "raw"
        _make(source, source_format, part, target_format)
        part.rename(target)
    return probe(target, target_format)


def verified(source: str | Path, source_format: DiskFormat, target: str | Path, target_format: DiskFormat) -> str:
    """The content hash of both, after a conversion. Raises Damaged when they differ."""
    found = [hash_image(source, source_format), hash_image(target, target_format)]
    if found[0] != found[1]:
        raise Damaged(f"{target} does not hold what {source} holds", "Convert again, and check the storage.")
    return found[0]


def hash_image(path: str | Path, format: DiskFormat) -> str:
    if format == "gcp":
        with tempfile.TemporaryDirectory(prefix=".novacron-", dir=Path(path).parent) as folder:
            return hash_image(_unpack(Path(path), Path(folder)), "raw")
    with open_image(path, format) as image:
        return content_hash(image)


def make_empty(path: str | Path, format: DiskFormat, size: int) -> None:
    """An image that reads as zeros, to be written by `open_image`: raw, qcow2 or vhd, which rounds up."""
    if Path(path).exists():
        raise BadDisk(f"{path} exists and is not overwritten", "Move it away, or choose another name.")
    if format not in ("raw", "qcow2", "vhd"):
        raise BadDisk(f"a {format} image cannot be written block by block", "Write raw and convert it.")
    unit = ALIGNED.get(format, 1)
    options = ("-o", "subformat=fixed,force_size") if format == "vhd" else ()
    _run("qemu-img", "create", "-q", "-f", _QEMU[format], *options, str(path), str(-(-size // unit) * unit))


def make_overlay(path: str | Path, image: str | Path, format: DiskFormat) -> None:
    """A qcow2 that reads as the image and takes all writes. The image must not change as long as it is used."""
    if Path(path).exists():
        raise BadDisk(f"{path} exists and is not overwritten", "Move it away, or choose another name.")
    base = ["-b", str(image), "-F", qemu_format(format)]
    _run("qemu-img", "create", "-q", "-f", "qcow2", *base, str(path))


def qemu_format(format: DiskFormat) -> str:
    """What QEMU calls it. Raises BadDisk for the archive, which QEMU cannot open."""
    if format == "gcp":
        raise BadDisk("an archive cannot be opened as a disk", "Convert it to raw first.")
    return _QEMU[format]


def drop_bitmaps(path: str | Path, prefix: str) -> None:
    """Remove the dirty bitmaps of these names from a qcow2 image that nobody has open."""
    told = _json("info", "-f", "qcow2", path=path)
    for bitmap in told.get("format-specific", {}).get("data", {}).get("bitmaps", ()):
        if str(bitmap["name"]).startswith(prefix):
            _run("qemu-img", "bitmap", "--remove", "-f", "qcow2", str(path), str(bitmap["name"]))


def qemu_img(*arguments: str) -> str:
    """What qemu-img says. Raises BadDisk."""
    return _run("qemu-img", *arguments)


def _make(source: Path, source_format: DiskFormat, part: Path, target_format: DiskFormat) -> None:
    size = probe(source, source_format).size
    into = ("qemu-img", "convert", "-q", "-f", _QEMU[source_format])
    match target_format:
        case "vhd":
            make_empty(part, "vhd", size)
            _run(*into, "-n", "--target-is-zero", "-O", "vpc", str(source), str(part))
        case "vmdk":
            _run(*into, "-O", "vmdk", "-o", "subformat=streamOptimized", str(source), str(part))
        case "gcp":
            _pack(source, source_format, part, size)
        case _:
            _run(*into, "-O", _QEMU[target_format], str(source), str(part))


def _pack(source: Path, source_format: DiskFormat, part: Path, size: int) -> None:
    raw = part.parent / MEMBER
    _run("qemu-img", "convert", "-q", "-f", _QEMU[source_format], "-O", "raw", str(source), str(raw))
    with raw.open("r+b") as file:
        file.truncate(-(-size // ALIGNED["gcp"]) * ALIGNED["gcp"])
    _run(
        "tar", "--format=oldgnu", "--sparse", "--owner=0", "--group=0", "-C", str(raw.parent), "-czf", str(part), MEMBER
    )
    raw.unlink()


def _unpack(archive: Path, folder: Path) -> Path:
    _probe_archive(archive)
    _run("tar", "--sparse", "--no-same-owner", "-C", str(folder), "-xzf", str(archive), MEMBER)
    return folder / MEMBER


def _probe_archive(archive: Path) -> ImageInfo:
    """Reads the archive's table only; a size that no disk has is refused before anything is unpacked."""
    lines = _run("tar", "--numeric-owner", "-tvzf", str(archive)).splitlines()
    fields = lines[0].split() if len(lines) == 1 else []
    if len(fields) < 6 or fields[5] != MEMBER or not fields[0].startswith("-"):
        raise BadDisk(f"{archive} is no archive of one file {MEMBER}", "Make it with novacron, or as Google says.")
    return ImageInfo("gcp", _sane(int(fields[2]), archive), archive.stat().st_blocks * 512)


def _data(path: str | Path, format: DiskFormat, size: int) -> list[tuple[int, int]]:
    told = _json("map", "-f", _QEMU[format], path=path)
    spans = [(int(e["start"]), int(e["length"])) for e in told if e.get("data") and not e.get("zero")]
    return [(start, min(length, size - start)) for start, length in spans if start < size]


def _sane(size: int, path: str | Path) -> int:
    if not 0 < size <= DISK_LIMIT:
        raise BadDisk(f"{path} says it holds {size} bytes; a disk has 1 to {DISK_LIMIT}", "Check the image.")
    return size


@contextmanager
def _connected(server: subprocess.Popen[str], socket: str, path: str | Path) -> Iterator[Nbd]:
    until = time.monotonic() + QUESTION_WITHIN
    while True:
        try:
            session = Nbd(socket)
            break
        except (FileNotFoundError, ConnectionRefusedError):
            if server.poll() is not None:
                said = (server.stderr.read(4000) if server.stderr else "").strip()
                raise BadDisk(f"qemu-nbd cannot open {path}: {said}", "See its words.") from None
            if time.monotonic() > until:
                raise BadDisk(
                    f"qemu-nbd did not open {path} within {QUESTION_WITHIN:.0f} s", "See its storage."
                ) from None
            time.sleep(0.005)
    with session:
        yield session


def _json(verb: str, *arguments: str, path: str | Path) -> Any:
    text = _run("qemu-img", verb, "--output=json", *arguments, str(path), within=QUESTION_WITHIN)
    return json.loads(text)


def _start(command: Sequence[str]) -> subprocess.Popen[str]:
    try:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    except FileNotFoundError as error:
        raise _missing(command[0]) from error


def _run(*command: str, within: float = CONVERT_WITHIN) -> str:
    """Its answer. Raises BadDisk with its own words."""
    try:
        done = subprocess.run(command, capture_output=True, timeout=within, check=False, stdin=subprocess.DEVNULL)
    except FileNotFoundError as error:
        raise _missing(command[0]) from error
    except subprocess.TimeoutExpired as error:
        raise BadDisk(f"{command[0]} took over {within:.0f} s: {command[-1]}", "Look at the storage.") from error
    said = done.stderr[-2000:].decode(errors="replace").strip()
    if done.returncode:
        raise BadDisk(f"{command[0]} {command[1]} failed: {said}", "Check the image, its format and the room on disk.")
    if len(done.stdout) > _ANSWER_LIMIT:
        raise BadDisk(f"{command[0]} {command[1]} said more than {_ANSWER_LIMIT >> 20} MiB", "Check the image.")
    return done.stdout.decode(errors="replace")


def _missing(tool: str) -> MissingPackage:
    package = "qemu-utils" if tool.startswith("qemu") else tool
    assert shutil.which(tool) is None
    return MissingPackage(f"{tool} is not installed here", f"Install the package {package}.")

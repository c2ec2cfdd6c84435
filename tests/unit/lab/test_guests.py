"""The guest's domain and its workload."""

from __future__ import annotations

import re
import subprocess
import uuid
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from workers.lab.errors import LabError
from workers.lab.guests import boot, domain_xml
from workers.lab.heartbeats import Heartbeats
from workers.lab.settings import LabSettings

WORKLOAD = Path(__file__).resolve().parents[3] / "guest" / "workload.c"


def parsed(accelerator: str = "tcg", **words: int) -> ET.Element:
    xml = domain_xml("web<1>", uuid.UUID(int=5), 512, accelerator, Path("/guest"), words)
    return ET.fromstring(xml)


def test_the_domain_carries_name_size_and_words() -> None:
    domain = parsed(fill=400, dirty=20, check=1)
    assert domain.findtext("name") == "web<1>"
    assert domain.findtext("memory") == "512"
    assert "fill=400 dirty=20 check=1" in (domain.findtext("os/cmdline") or "")


def test_the_serial_line_is_appended_to_so_that_a_guest_can_come_back() -> None:
    source = parsed().find("devices/serial/source")
    assert source is not None
    assert source.get("append") == "on"


def test_the_content_disk_is_read_only_and_there_only_to_fill_from() -> None:
    assert parsed(fill=0).find("devices/disk") is None
    disk = parsed(fill=1).find("devices/disk")
    assert disk is not None
    assert disk.find("readonly") is not None


@pytest.mark.parametrize(
    ("accelerator", "kind", "cpu"), [("kvm", "kvm", "host-passthrough"), ("tcg", "qemu", "maximum")]
)
def test_the_accelerator_decides_domain_type_and_cpu(accelerator: str, kind: str, cpu: str) -> None:
    domain = parsed(accelerator)
    found = domain.find("cpu")
    assert domain.get("type") == kind
    assert found is not None
    assert found.get("mode") == cpu


def test_more_fill_than_memory_is_refused_before_anything_starts() -> None:
    settings = LabSettings(root=Path("/nowhere"))
    with pytest.raises(LabError, match="fill: 500 MiB do not fit"):
        boot(settings, ["host-a"], "tcg", "g", "host-a", 512, fill=500, dirty=0, check=1)


@pytest.fixture(scope="module")
def workload(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("workload") / "workload"
    subprocess.run(["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", program, WORKLOAD], check=True, timeout=60)
    return program


def test_the_workload_beats_dirties_and_finds_its_memory_sound(workload: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as out, Heartbeats({"here": log}, from_start=True) as heard:
        process = subprocess.Popen([workload, "8", "50", "1"], stdout=out)
        try:
            story = heard.wait_for(lambda story: story.checks >= 3 and story.beats >= 5, 30, "third walk")
        finally:
            process.kill()
            process.wait()
    assert story.unbroken
    assert story.pids == (process.pid,)
    assert len(story.digests) == 1


def test_the_workload_finds_a_single_changed_byte(workload: Path, tmp_path: Path) -> None:
    log, size, page = tmp_path / "log", 8 << 20, 1234
    with log.open("wb") as out, Heartbeats({"here": log}, from_start=True) as heard:
        process = subprocess.Popen([workload, "8", "0", "1"], stdout=out)
        try:
            heard.wait_for(lambda story: story.checks >= 1, 30, "first walk")
            area = next(start for start, end in maps(process.pid) if end - start >= size)
            with Path(f"/proc/{process.pid}/mem").open("r+b", buffering=0) as memory:
                memory.seek(area + page * 4096 + 99)
                old = memory.read(1)[0]
                memory.seek(area + page * 4096 + 99)
                memory.write(bytes([old ^ 1]))
            story = heard.wait_for(lambda story: bool(story.bad), 30, "report of damage")
        finally:
            process.kill()
            process.wait()
    assert re.fullmatch(r"CHECK BAD page \d+", story.bad[0])
    assert not story.unbroken


def maps(pid: int) -> list[tuple[int, int]]:
    """Writable anonymous areas of a process: (start, end)."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    spans = [line.split()[0].split("-") for line in lines if " rw-p " in line]
    return [(int(start, 16), int(end, 16)) for start, end in spans]

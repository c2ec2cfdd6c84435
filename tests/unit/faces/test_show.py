"""Progress on a pipe: a line for each phase and each tenth percent, no more."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from models.cloud_cache import CachedBase, CacheReport
from models.host import HostReport, SiteReport, VmReport
from models.migration import MigrationOutcome, Progress
from novacron import show, show_clouds

MIB = 1 << 20
OUTCOME = MigrationOutcome(
    vm="counter",
    site="lab",
    source="host-a",
    destination="host-b",
    migration_id="m1",
    seconds=12,
    memory_bytes=512 << 20,
    raw_bytes=300 << 20,
    wire_bytes=100 << 20,
    digest="abc",
    digest_verified=True,
    notes=("mind this",),
)


def test_what_a_place_keeps_is_a_table_and_what_went_is_told_with_the_reason(
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = datetime(2026, 11, 1, tzinfo=UTC)
    kept = CachedBase(disk="snap-1", name="web-vda", size=64 * MIB, held=8 * MIB, made=made, uses=3, saved=21 * MIB)
    went = CachedBase(disk="snap-2", name="db-vda", size=64 * MIB, held=4 * MIB, made=made, gone="of no use")
    report = CacheReport(
        place="aws:eu-west-1", scope="shared", most_gib=200, days=30, bases=(kept,), removed=(went,), held=8 * MIB
    )
    show_clouds.cache(report)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["snap-1", "web-vda", "8.0", "MiB", "2026-11-01", "never", "3", "21.0", "MiB"]
    assert lines[2].startswith("aws:eu-west-1 keeps 8.0 MiB in 1 bases for scope shared; 200 GiB at most, 30 days")
    assert lines[3] == "removed snap-2 (db-vda, 4.0 MiB): of no use"


def test_plain_progress_is_sparse(capsys: pytest.CaptureFixture[str]) -> None:
    with show.progress(as_json=False) as report:
        for percent in range(101):
            report(Progress(phase="moving", percent=percent, wire_rate=1 << 20, eta=5))
        report(Progress(phase="done", percent=100))
    printed = capsys.readouterr()
    lines = printed.err.splitlines()
    assert printed.out == ""
    assert len(lines) == 12
    assert lines[1] == "moving 10 % 1.0 MiB/s on the link, 5.0 s left"


def test_json_progress_is_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with show.progress(as_json=True) as report:
        report(Progress(phase="moving", percent=3))
    assert json.loads(capsys.readouterr().out)["progress"]["percent"] == 3


def test_an_outcome_is_told_with_its_proof_and_notes(capsys: pytest.CaptureFixture[str]) -> None:
    show.outcome(OUTCOME)
    printed = capsys.readouterr().out
    for words in ("host-a → host-b in 12 s", "abc equal at both ends", "(3.0x)", "mind this"):
        assert words in printed


def test_tables_name_silent_hosts(capsys: pytest.CaptureFixture[str]) -> None:
    vm = VmReport(name="counter", uuid="5b1c6b0e-6f5e-4c53-9f0e-5d0a7b6f9a01", state="running", memory_mib=256, vcpus=1)
    host = HostReport(
        site="lab",
        host="host-a",
        uuid="u",
        libvirt_version="9",
        qemu_version="7",
        memory_total_mib=10,
        memory_free_mib=5,
        vms=(vm,),
    )
    report = SiteReport(site="lab", hosts=(host,), silent={"host-b": "no worker"})
    show.hosts(report)
    show.vms(report)
    printed = capsys.readouterr()
    assert "silent: no worker" in printed.out
    assert "counter" in printed.out
    assert "not asked: host-b" in printed.err

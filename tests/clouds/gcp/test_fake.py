"""The fake refuses what Google refuses: without this, the contract would prove nothing."""

from __future__ import annotations

import io
import tarfile
from typing import Any

import pytest
import requests

from tests.clouds.gcp.compute import BadArchive, unpack
from tests.clouds.gcp.scene import GcpCloud
from tests.clouds.gcp.storage import UNIT, StrictStorage
from tests.clouds.gcp.wire import Drift, Fault, judge, read, write


@pytest.fixture
def session() -> StrictStorage:
    storage = StrictStorage("bucket")
    target = "/upload/storage/v1/b/bucket/o?uploadType=resumable&name=x"
    call = read("POST", target, {}, b"{}")
    storage.answer(call)
    return storage


def put(storage: StrictStorage, place: str, body: bytes) -> Any:
    return storage.part("PUT", "session-1", {"content-range": place}, body)


@pytest.mark.parametrize(
    ("place", "body"),
    [
        ("bytes 0-9/*", bytes(10)),  # no multiple of 256 KiB
        ("bytes 0-9/10", bytes(9)),
        ("bytes 5-9/10", bytes(5)),  # a gap
        ("bytes 0-9/11", bytes(10)),  # the last part is not the end
        ("0-9", bytes(10)),
    ],
)
def test_a_part_that_does_not_fit_is_refused(session: StrictStorage, place: str, body: bytes) -> None:
    with pytest.raises(Fault):
        put(session, place, body)


def test_an_upload_tells_how_far_it_came(session: StrictStorage) -> None:
    assert put(session, "bytes */*", b"")[:2] == (308, {})
    session.take_at_most = UNIT
    assert put(session, f"bytes 0-{2 * UNIT - 1}/*", bytes(2 * UNIT))[:2] == (308, {"Range": f"bytes=0-{UNIT - 1}"})
    with pytest.raises(Fault):
        put(session, f"bytes 0-{UNIT - 1}/*", bytes(UNIT))  # they are there
    assert put(session, f"bytes {UNIT}-{UNIT}/{UNIT + 1}", b"x")[0] == 200
    assert session.objects["x"].data == bytes(UNIT) + b"x"
    assert session.part("DELETE", "session-1", {}, b"")[0] == 499
    with pytest.raises(Fault, match="404"):
        put(session, "bytes */*", b"")


def test_what_google_does_not_know_is_drift() -> None:
    for verb, target in (
        ("GET", "/compute/v1/projects/p/global/pictures"),
        ("PATCH", "/compute/v1/projects/p/zones/z/instances/i/reset"),
        ("GET", "/compute/v1/projects/p/global/images?max_results=5"),
        ("GET", "/compute/v1/projects/p/global/images?maxResults=five"),
    ):
        with pytest.raises(Drift):
            read(verb, target, {}, b"")
    image = {"$ref": "Image"}
    for wrong in ({"nmae": "x"}, {"name": 1}, {"architecture": "X64"}, {"labels": {"a": 1}}, {"diskSizeGb": "ten"}):
        with pytest.raises(Drift):
            judge("compute", wrong, image, "it", request=False)
    with pytest.raises(Drift, match="only Google sets"):
        judge("compute", {"status": "READY"}, image, "it", request=True)
    call = read("GET", "/compute/v1/projects/p/global/images/x", {}, b"")
    with pytest.raises(Drift):
        write(call, {"nmae": "x"})


def test_who_does_not_sign_is_not_answered(gcp: GcpCloud) -> None:
    url = f"{gcp.server.url}/compute/v1/projects/novacron-test/global/images"
    for headers in ({}, {"Authorization": "Bearer made-up"}):
        assert requests.get(url, headers=headers, timeout=20).status_code == 401


@pytest.mark.parametrize(("name", "size"), [("disk.img", 1 << 30), ("disk.raw", 512)])
def test_an_archive_that_google_does_not_take_is_none(name: str, size: int) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz", format=tarfile.GNU_FORMAT) as tar:
        member = tarfile.TarInfo(name)
        member.size = size if size < 1024 else 0
        tar.addfile(member, io.BytesIO(bytes(member.size)))
    with pytest.raises(BadArchive):
        unpack(file.getvalue())
    with pytest.raises(BadArchive):
        unpack(b"no archive")

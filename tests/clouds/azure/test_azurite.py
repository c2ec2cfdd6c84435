"""Our reader and writer of pages, against Azurite and against the fake of the other tests: both answer alike.

Where they do not, Azurite is the one that differs from Azure, and that is why the contract runs on the fake: it has no
pages that are copied from another address, tells all pages as changed, takes writes that are too large or do not fit
their MD5, and has another word for an address that has expired.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random

import pytest

from clouds import errors
from clouds.azure.access import Leave
from clouds.azure.pages import PAGE, PIECE, Pages
from clouds.azure.session import AzureSession
from tests.clouds.azure.azurite import PROGRAM, Azurite
from tests.clouds.azure.blobs import Blob
from tests.clouds.azure.scene import AzureCloud

pytestmark = [
    pytest.mark.azurite,
    pytest.mark.skipif(not PROGRAM.exists(), reason=f"{PROGRAM} is not there: `make test-azurite` gets it"),
]
SIZE = (8 << 20) + PAGE
"""With the footer."""


class Given(Leave):
    """An address that nobody renews."""

    def __init__(self, session: AzureSession, address: str) -> None:
        self.address = address
        self._blobs = [session.blob(address)]

    def renew(self, seen: str) -> None:
        pass


Granted = Callable[[str], Pages]


@pytest.fixture(scope="module")
def azurite() -> Iterator[Azurite]:
    server = Azurite()
    yield server
    server.close()


@pytest.fixture(params=["azurite", "fake"])
def granted(request: pytest.FixtureRequest, azure: AzureCloud) -> Iterator[Granted]:
    """Pages of a fresh page blob, by an address to read ("r"), or to write as well ("rw")."""
    leaves: list[Given] = []

    def ask(access: str) -> Pages:
        if request.param == "azurite":
            server: Azurite = request.getfixturevalue("azurite")
            address = server.page_blob(SIZE, access)
        else:
            blobs = azure.server.arm.blobs
            address = blobs.grant(Blob(bytearray(SIZE)), "Write" if access == "rw" else "Read")
        leaves.append(Given(azure.session, address))
        return Pages(leaves[-1], "it")

    yield ask
    for leave in leaves:
        leave.close()


def noise(length: int) -> bytes:
    return Random(length).randbytes(length)


def test_what_is_written_is_read_and_listed(granted: Granted) -> None:
    pages = granted("rw")
    size = pages.size()
    assert size == SIZE - PAGE
    assert pages.ranges(size) == []
    pages.write(PAGE, noise(3 * PAGE))
    pages.write(1 << 20, noise(PIECE))
    pages.write(size, noise(PAGE))  # the footer
    assert pages.read(0, 5 * PAGE) == bytes(PAGE) + noise(3 * PAGE) + bytes(PAGE)
    assert pages.read(1 << 20, PIECE) == noise(PIECE)
    assert pages.ranges(size) == [(PAGE, 3 * PAGE), (1 << 20, PIECE)]
    pages.write(4 * PAGE, bytes(PAGE))
    assert pages.ranges(size) == [(PAGE, 4 * PAGE), (1 << 20, PIECE)], "zeros that are written are pages too"


def test_an_address_gives_no_more_than_it_says(granted: Granted) -> None:
    readable = granted("r")
    assert readable.read(0, PAGE) == bytes(PAGE)
    with pytest.raises(errors.NotPermitted):
        readable.write(0, noise(PAGE))


def test_a_write_behind_the_end_is_refused(granted: Granted) -> None:
    with pytest.raises(errors.Final):
        granted("rw").write(SIZE, noise(PAGE))


def test_what_azurite_does_not_do(azurite: Azurite, azure: AzureCloud) -> None:
    """When this fails, Azurite has learnt it, and the contract may use it."""
    one, other = (Given(azure.session, azurite.page_blob(SIZE)) for _ in range(2))
    late = Given(azure.session, azurite.page_blob(SIZE, good_for=-60))
    pages = Pages(one, "it")
    pages.write(0, noise(PAGE))
    with pytest.raises(errors.CloudError):
        pages.copy(other, 0, PAGE)
    one.do("write too much at once", lambda blob: blob.upload_page(noise(2 * PIECE), offset=0, length=2 * PIECE))
    wrong = {"Content-MD5": "AAAAAAAAAAAAAAAAAAAAAA=="}
    one.do("write damaged", lambda blob: blob.upload_page(noise(PAGE), offset=0, length=PAGE, headers=wrong))
    told = one.do("ask", lambda blob: blob.get_page_range_diff_for_managed_disk(one.address))
    assert told != ([], []), "nothing has changed since itself"
    with pytest.raises(errors.NotPermitted, match="AuthorizationFailure"):  # Azure: AuthenticationFailed, and renewed
        Pages(late, "it").read(0, PAGE)
    for leave in (one, other, late):
        leave.close()

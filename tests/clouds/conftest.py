"""Clouds under test, and the capability table at the end: what it says `works` was exercised by the tests just run."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from clouds.capabilities import OFFERS
from models.clouds import Cloud as CloudName
from tests.clouds import table
from tests.clouds.aws.scene import AwsCloud
from tests.clouds.aws.server import AwsServer
from tests.clouds.azure.scene import AzureCloud
from tests.clouds.azure.server import IDENTITY, AzureServer
from tests.clouds.gcp.scene import GcpCloud
from tests.clouds.gcp.server import GcpServer
from tests.clouds.oci.scene import OciCloud
from tests.clouds.oci.server import OciServer
from tests.clouds.scene import Cloud

BUILT: tuple[CloudName, ...] = ("aws", "azure", "gcp", "oci")
"""Adapters that the contract suite runs for here. For `kvm` it runs in tests/integration/contract, on real libvirt."""


@pytest.fixture(scope="session", autouse=True)
def no_prices_of_the_users_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NOVACRON_PRICES", str(tmp_path_factory.mktemp("prices")))
        yield


@pytest.fixture(scope="session")
def aws_of_the_session() -> Iterator[AwsCloud]:
    """One server and one adapter: boto3 takes a second to build its clients. No credentials but the test's own."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_") or name.lower().endswith("_proxy")]:
            patch.delenv(name)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
            patch.setenv(name, os.devnull)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        server = AwsServer()
        yield AwsCloud(server)
        server.close()


@pytest.fixture
def aws(aws_of_the_session: AwsCloud) -> Iterator[AwsCloud]:
    """A fresh account. The test fails when anything went over the wire that AWS's model does not know."""
    aws_of_the_session.server.reset()
    yield aws_of_the_session
    assert aws_of_the_session.server.drift == []


@pytest.fixture(scope="session")
def gcp_of_the_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GcpCloud]:
    """As above. Google's own chain finds the credentials."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("GOOGLE_", "CLOUDSDK_", "STORAGE_"))]:
            patch.delenv(name)
        server = GcpServer()
        account = tmp_path_factory.mktemp("gcp") / "account.json"
        server.write_credentials(account)
        patch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(account))
        yield GcpCloud(server)
        server.close()


@pytest.fixture
def gcp(gcp_of_the_session: GcpCloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[GcpCloud]:
    """A fresh project, held to Google's description of its APIs. google.auth asks Google itself, behind our back and
    without need, where a service account may be used: it comes no further than a proxy that is not there."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    gcp_of_the_session.server.reset()
    yield gcp_of_the_session
    assert gcp_of_the_session.server.drift == []


@pytest.fixture(scope="session")
def oci_of_the_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OciCloud]:
    """As above. The SDK reads its configuration file."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("OCI_")]:
            patch.delenv(name)
        server = OciServer()
        folder = tmp_path_factory.mktemp("oci")
        patch.setenv("OCI_CONFIG_FILE", str(server.write_credentials(folder)))
        yield OciCloud(server, folder / "spool")
        server.close()


@pytest.fixture
def oci(oci_of_the_session: OciCloud) -> Iterator[OciCloud]:
    """A fresh compartment, held to the SDK's models."""
    oci_of_the_session.server.reset()
    yield oci_of_the_session
    assert oci_of_the_session.server.drift == []


@pytest.fixture(scope="session")
def azure_of_the_session() -> Iterator[AzureCloud]:
    """The SDK's real credential chain finds a managed identity, whose tokens the fake gives out."""
    server = AzureServer()
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("AZURE_", "MSI_", "IDENTITY_"))]:
            patch.delenv(name)
        patch.setenv("IDENTITY_ENDPOINT", f"{server.url}/identity")
        patch.setenv("IDENTITY_HEADER", IDENTITY)
        yield AzureCloud(server)
    server.close()


@pytest.fixture
def azure(azure_of_the_session: AzureCloud) -> Iterator[AzureCloud]:
    """A fresh resource group. The test fails when anything went over the wire that the SDK's models do not know."""
    azure_of_the_session.server.reset()
    yield azure_of_the_session
    assert azure_of_the_session.server.drift == []


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A contract runs for each cloud that has the capability; what is about all adapters runs for all."""
    if "cloud" in metafunc.fixturenames:
        find = metafunc.definition.get_closest_marker
        marker = find("capability") or find("offers")
        having = [name for name in BUILT if not marker or OFFERS[name][marker.args[0]].state == "works"]
        one = find("one_cloud") and not marker
        metafunc.parametrize("cloud", having[:1] if one else having, indirect=True)


@pytest.fixture
def cloud(request: pytest.FixtureRequest) -> Cloud:
    found: Cloud = request.getfixturevalue(request.param)
    return found


pytest_runtest_makereport = table.pytest_runtest_makereport
pytest_terminal_summary = table.pytest_terminal_summary

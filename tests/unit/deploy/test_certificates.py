"""deploy/certificates.sh makes what the data path asks for: TLS 1.3, both sides shown, the peer's name checked."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "deploy/certificates.sh"


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SCRIPT, *words], capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("authority")
    assert run("authority", folder).returncode == 0
    for name in ("kvm-1.example.net", "kvm-2.example.net"):
        assert run("host", folder, name).returncode == 0
    return folder


def context(folder: Path, name: str, purpose: ssl.Purpose) -> ssl.SSLContext:
    made = ssl.create_default_context(purpose, cafile=str(folder / "authority.pem"))
    made.load_cert_chain(folder / name / "host.pem", folder / name / "host.key")
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.verify_mode = ssl.CERT_REQUIRED
    made.verify_flags |= ssl.VERIFY_X509_STRICT
    return made


def handshake(client: ssl.SSLContext, server: ssl.SSLContext, expected: str) -> ssl.SSLObject:
    """The client's side after a handshake in memory; raises what either side raises."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    a = client.wrap_bio(down, up, server_hostname=expected)
    b = server.wrap_bio(up, down, server_side=True)
    done: set[ssl.SSLObject] = set()
    for _ in range(6):
        for side in (a, b):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            done.add(side)
    assert done == {a, b}
    return a


def test_two_hosts_trust_each_other_by_name(folder: Path) -> None:
    client = context(folder, "kvm-1.example.net", ssl.Purpose.SERVER_AUTH)
    server = context(folder, "kvm-2.example.net", ssl.Purpose.CLIENT_AUTH)
    assert handshake(client, server, "kvm-2.example.net").version() == "TLSv1.3"


def test_a_host_is_not_taken_for_another(folder: Path) -> None:
    client = context(folder, "kvm-1.example.net", ssl.Purpose.SERVER_AUTH)
    server = context(folder, "kvm-2.example.net", ssl.Purpose.CLIENT_AUTH)
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        handshake(client, server, "kvm-3.example.net")


def test_an_old_authority_is_never_replaced(folder: Path) -> None:
    before = (folder / "authority.key").read_bytes()
    again = run("authority", folder)
    assert again.returncode == 1
    assert "exists" in again.stderr
    assert (folder / "authority.key").read_bytes() == before


def test_keys_are_for_their_owner_only(folder: Path) -> None:
    for key in (folder / "authority.key", folder / "kvm-1.example.net/host.key"):
        assert key.stat().st_mode & 0o077 == 0


def test_a_certificate_that_does_not_verify_is_named(folder: Path) -> None:
    assert run("check", folder, "kvm-1.example.net").returncode == 0
    (folder / "kvm-9").mkdir()
    for file in ("host.pem", "host.key"):
        (folder / "kvm-9" / file).write_bytes((folder / "kvm-1.example.net" / file).read_bytes())
    wrong = run("check", folder, "kvm-9")
    assert wrong.returncode == 1
    assert "does not verify for the name kvm-9" in wrong.stderr


@pytest.mark.parametrize("name", ["a b", "-a", "../a", "a" * 64])
def test_a_name_that_is_no_dns_name_is_refused(folder: Path, name: str) -> None:
    refused = run("host", folder, name)
    assert refused.returncode == 1
    assert "certificates: " in refused.stderr

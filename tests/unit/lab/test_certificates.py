"""The lab's certificate authority, by a real TLS handshake in memory."""

from __future__ import annotations

import ssl
import stat
from pathlib import Path

import pytest

from models.datapath import TlsFiles
from workers.lab.certificates import Authority


def context(side: int, own: TlsFiles) -> ssl.SSLContext:
    made = ssl.SSLContext(side)
    made.load_cert_chain(own.certificate, own.key)
    made.load_verify_locations(own.authority)
    made.verify_mode = ssl.CERT_REQUIRED
    return made


def shake(client: TlsFiles, server: TlsFiles, name: str) -> None:
    """A mutual handshake; ssl.SSLError when either side refuses."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    near = context(ssl.PROTOCOL_TLS_CLIENT, client).wrap_bio(to_client, to_server, server_hostname=name)
    far = context(ssl.PROTOCOL_TLS_SERVER, server).wrap_bio(to_server, to_client, server_side=True)
    for _ in range(6):
        for side in (near, far):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    assert near.version() == "TLSv1.3"
    assert far.getpeercert()


def test_two_hosts_trust_each_other_by_name(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    shake(authority.issue("host-a"), authority.issue("host-b"), "host-b")


def test_a_host_under_another_name_is_refused(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError, match="host-c"):
        shake(authority.issue("host-a"), authority.issue("host-b"), "host-c")


def test_a_host_of_another_authority_is_refused(tmp_path: Path) -> None:
    ours, theirs = Authority(tmp_path / "ours"), Authority(tmp_path / "theirs")
    with pytest.raises(ssl.SSLError):
        shake(ours.issue("host-a"), theirs.issue("host-b"), "host-b")


def test_keys_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    host = Authority(tmp_path).issue("host-a")
    for key in (Path(host.key), tmp_path / "ca.key"):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_what_was_issued_is_kept_and_a_new_authority_issues_anew(tmp_path: Path) -> None:
    first = Path(Authority(tmp_path).issue("host-a").certificate).read_bytes()
    assert Path(Authority(tmp_path).issue("host-a").certificate).read_bytes() == first
    (tmp_path / "ca.pem").unlink()
    assert Path(Authority(tmp_path).issue("host-a").certificate).read_bytes() != first

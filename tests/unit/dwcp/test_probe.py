"""Probing a link: what the samples say, and what the destination drops."""

from __future__ import annotations

import itertools
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from dwcp.probe import Sample, discarding, rates
from dwcp.security.certificate import validity
from models.datapath import TlsFiles
from workers.lab.certificates import Authority


def test_nothing_delivered_is_no_rate() -> None:
    assert rates([]) is None
    assert rates([Sample(1.0, 0)]) is None


def test_a_slow_start_counts_for_the_average_and_not_for_the_likely_rate() -> None:
    grown = [Sample(0.5, 10), Sample(1.0, 110), Sample(1.5, 210), Sample(2.0, 310)]
    assert rates(grown) == (155.0, 200.0, 200.0)


def test_a_burst_is_not_taken_for_the_link() -> None:
    found = rates([Sample(0.1, 100), *(Sample(0.1 * n, 90 + 10 * n) for n in range(2, 20))])
    assert found is not None
    assert found[2] < 300, "100 in the first tenth of a second"


@given(st.lists(st.tuples(st.floats(0.01, 1), st.integers(0, 1 << 30)), min_size=1, max_size=30))
def test_the_three_rates_are_in_order(steps: list[tuple[float, int]]) -> None:
    at = list(itertools.accumulate(step for step, _ in steps))
    delivered = list(itertools.accumulate(size for _, size in steps))
    found = rates([Sample(*pair) for pair in zip(at, delivered, strict=True)])
    assert found is None or (0 < found[0] <= found[1] <= found[2])


def test_everything_is_dropped_until_the_end() -> None:
    with discarding() as sock:
        sock.settimeout(20)
        sock.sendall(bytes(8 << 20))
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(1) == b"", "its reader has come to the end"


def test_a_certificate_tells_until_when_it_is_valid(tmp_path: Path) -> None:
    files = Authority(tmp_path).issue("host-a")
    found = validity(files, "host-a")
    assert found.error == ""
    assert found.expires is not None
    assert found.expires > datetime.now(UTC) + timedelta(days=30)


def test_a_certificate_that_no_peer_would_take_says_why(tmp_path: Path) -> None:
    authority, stranger = Authority(tmp_path), Authority(tmp_path / "other")
    files, foreign = authority.issue("host-a"), stranger.issue("host-a")
    assert "host-b" in validity(files, "host-b").error
    mixed = TlsFiles(certificate=foreign.certificate, key=foreign.key, authority=files.authority)
    assert "certificate" in validity(mixed, "host-a").error
    missing = files.model_copy(update={"key": "/none"})
    assert "/none" in validity(missing, "host-a").error


def test_an_expired_certificate_is_found_out(tmp_path: Path) -> None:
    files = Authority(tmp_path).issue("host-a")
    past = _signed_until_yesterday(tmp_path)
    found = validity(files.model_copy(update={"certificate": past}), "host-a")
    assert "expired" in found.error


def _signed_until_yesterday(folder: Path) -> str:
    """The same certificate with another end, signed by the same authority."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization

    kept = x509.load_pem_x509_certificate((folder / "host-a.pem").read_bytes())
    key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(kept.subject).issuer_name(kept.issuer)
    builder = builder.public_key(kept.public_key()).serial_number(kept.serial_number)
    builder = builder.not_valid_before(now - timedelta(days=9)).not_valid_after(now - timedelta(days=1))
    for extension in kept.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    path = folder / "expired.pem"
    signed = builder.sign(key, hashes.SHA256())  # type: ignore[arg-type]  # one of the kinds that sign
    path.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    return str(path)

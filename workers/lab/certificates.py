"""The lab's own small certificate authority: EC P-256, one certificate per host, named by its DNS name.

Keys are readable by their owner only. What is there and still valid for a month is kept, so that a running
data path and a restarted one trust each other.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from models.datapath import TlsFiles

_AUTHORITY_YEARS = 10
_HOST_YEARS = 2


class Authority:
    """A certificate authority in a folder: `ca.pem`, `ca.key`; `<name>.pem`, `<name>.key` of each host."""

    def __init__(self, folder: Path, common_name: str = "NovaCron lab") -> None:
        """Open the authority of this folder, making it when there is none (or it is about to expire)."""
        self.folder = folder
        self._certificate_file = folder / "ca.pem"
        self._key_file = folder / "ca.key"
        if not _lasts(self._certificate_file):
            self._create(common_name)
        self._certificate = x509.load_pem_x509_certificate(self._certificate_file.read_bytes())
        self._key = _load_key(self._key_file)

    def issue(self, name: str) -> TlsFiles:
        """Certificate and key for the host `name` (its DNS alternative name); made once, then reused."""
        certificate_file, key_file = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        if not (_lasts(certificate_file) and key_file.exists() and self._signed(certificate_file)):
            self.reissue(name)
        return TlsFiles(certificate=str(certificate_file), key=str(key_file), authority=str(self._certificate_file))

    def reissue(self, name: str, days: float = 365 * _HOST_YEARS) -> None:
        """Make the host's key and certificate anew, valid for `days` from now on; less than 0: it has expired."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            _builder(name, key.public_key(), days)
            .issuer_name(self._certificate.subject)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        _save_key(self.folder / f"{name}.key", key)
        (self.folder / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def _create(self, common_name: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            _builder(common_name, key.public_key(), 365 * _AUTHORITY_YEARS)
            .issuer_name(_name(common_name))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .sign(key, hashes.SHA256())
        )
        _save_key(self._key_file, key)
        self._certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def _signed(self, certificate_file: Path) -> bool:
        certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
        key = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
        return key == x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()).digest


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(subject: str, key: ec.EllipticCurvePublicKey, days: float) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    until = now + timedelta(days=days)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(now, until) - timedelta(hours=1))
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _lasts(certificate_file: Path) -> bool:
    """It is there and valid for another month."""
    try:
        certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
    except (FileNotFoundError, ValueError):
        return False
    return certificate.not_valid_after_utc > datetime.now(UTC) + timedelta(days=30)


def _save_key(file: Path, key: ec.EllipticCurvePrivateKey) -> None:
    file.unlink(missing_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        out.write(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )


def _load_key(file: Path) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(file.read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError(f"{file} holds no elliptic-curve key: remove its folder, and it is made anew")
    return key

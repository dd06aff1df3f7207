"""Certificates of the link's listener: an authority of Kappa's own, and the server certificate that it signs. Pure: the time is given.

Pods and peers dial gateways by address and check one name against one authority, so the certificate names the links' Service and no
address. ECDSA on P-256: small, and signed in a tenth of a millisecond, which counts when 500 environments greet a new gateway at once.
It refuses to judge certificates of other authorities: who brings one of their own looks after it.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_DAYS: Final = 3650
SERVER_DAYS: Final = 730
RENEW_DAYS: Final = 60
"""A server certificate with fewer days left is signed anew."""
_SKEW: Final = timedelta(minutes=5)
"""How far the clock of a node may be behind that of the machine that signs."""


class CertificateError(Exception):
    """PEM that is no certificate or no key of ours; the message is one line."""


class Pair(NamedTuple):
    """A certificate and its private key, both PEM."""

    certificate: bytes
    key: bytes


def make_authority(*, now: datetime) -> Pair:
    """A new authority, good for AUTHORITY_DAYS from ``now`` (aware)."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Kappa links")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + timedelta(days=AUTHORITY_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return _pem(certificate, key)


def make_server(names: tuple[str, ...], *, authority: Pair, now: datetime) -> Pair:
    """A server certificate for ``names`` (DNS), good for SERVER_DAYS, at most as long as its authority. Raises CertificateError."""
    issuer, issuer_key = _load(authority.certificate), _load_key(authority.key)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(min(now + timedelta(days=SERVER_DAYS), issuer.not_valid_after_utc))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )
    return _pem(certificate, key)


def is_issued_by(certificate: bytes, *, authority: bytes) -> bool:
    """Whether ``authority`` signed ``certificate``; False for another authority's. Raises CertificateError."""
    try:
        _load(certificate).verify_directly_issued_by(_load(authority))
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def is_due(certificate: bytes, *, names: tuple[str, ...], now: datetime) -> bool:
    """Whether a server certificate has to be signed anew: fewer than RENEW_DAYS left, or a name is missing. Raises CertificateError."""
    found = _load(certificate)
    if found.not_valid_after_utc - now < timedelta(days=RENEW_DAYS):
        return True
    try:
        alternatives = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return True
    return not {*names} <= {*alternatives.get_values_for_type(x509.DNSName)}


def expires(certificate: bytes) -> datetime:
    """The end of a certificate (UTC). Raises CertificateError."""
    return _load(certificate).not_valid_after_utc


def _load(certificate: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(certificate)
    except ValueError as error:
        raise CertificateError(f"no certificate in PEM: {error}") from None


def _load_key(key: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        found = serialization.load_pem_private_key(key, password=None)
    except (ValueError, TypeError) as error:
        raise CertificateError(f"no private key in PEM: {error}") from None
    if not isinstance(found, ec.EllipticCurvePrivateKey):
        raise CertificateError("the authority's key is no elliptic curve key")
    return found


def _pem(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Pair:
    return Pair(
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )

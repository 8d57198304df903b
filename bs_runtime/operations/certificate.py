"""A certificate that a base station signs for itself: who has its pin needs no authority.

The key is kept, and so is the pin. The certificate is made anew at each start, for the names and
addresses of then.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from bs_runtime.operations.kept import kept
from draftlink.host import files, joining

KEY, CERTIFICATE = "tls.key", "tls.pem"
LASTS = timedelta(days=800)  # browsers take none that lasts longer than 825
_NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "draftlink base station")])


def own(folder: Path, names: Iterable[str]) -> tuple[Path, Path]:
    """The files of a certificate for ``names``, PEM, and of its key, which is kept in ``folder``.

    Raises FileError, and ValueError where the key is none or others may read it.
    """
    path = folder / KEY
    pem = kept(path, _fresh)
    try:
        key = serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError):
        raise ValueError(f"{path} holds no key; remove it, and another is made") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError(f"{path} holds another kind of key; remove it, and another is made")
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(_NAME)
        .issuer_name(_NAME)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))  # clocks differ
        .not_valid_after(now + LASTS)
        .add_extension(x509.SubjectAlternativeName(_alternatives(names)), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    files.write(folder / CERTIFICATE, made.public_bytes(serialization.Encoding.PEM))
    return folder / CERTIFICATE, path


def pin(path: Path) -> str | None:
    """The pin of the first certificate of a file; None where somebody else has signed it.

    Who has signed it is asked instead: a pin would end with the key, which renewals often replace.
    Raises ValueError for a file without one.
    """
    try:
        found = x509.load_pem_x509_certificates(path.read_bytes())[0]
    except (OSError, ValueError, IndexError) as error:
        raise ValueError(f"{path} holds no PEM certificate ({error})") from None
    if found.issuer != found.subject:
        return None
    return joining.pin_of(found.public_bytes(serialization.Encoding.DER))


def _fresh() -> bytes:
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _alternatives(names: Iterable[str]) -> list[x509.GeneralName]:
    found: list[x509.GeneralName] = []
    for name in sorted({"localhost", "127.0.0.1", "::1", *(name.strip("[]") for name in names)}):
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            if name.isascii():
                found.append(x509.DNSName(name))
    return found

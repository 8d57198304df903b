"""TLS with a base station whose key is known, and whose certificate nobody need have signed.

Names and dates of the certificate say nothing here, the key alone does. It is looked at within the
handshake: before a byte of a request, and so before a token, is sent.
"""

from __future__ import annotations

import hmac
import ssl

from draftlink.host import joining


class PinError(ssl.SSLCertVerificationError):
    """Who answers has another key."""


class _Object(ssl.SSLObject):
    def do_handshake(self) -> None:
        super().do_handshake()
        _check(self)


class _Socket(ssl.SSLSocket):
    def do_handshake(self, block: bool = False) -> None:
        super().do_handshake(block)
        _check(self)


class _Context(ssl.SSLContext):
    """Makes connections that check ``pin``: asyncio's by ``_Object``, others by ``_Socket``."""

    sslobject_class = _Object
    sslsocket_class = _Socket
    pin: str


def trust(pin: str) -> ssl.SSLContext:
    """TLS, 1.2 or later, with the holder of that key alone. Raises ValueError for no pin.

    The handshake raises PinError for another.
    """
    context = _Context(ssl.PROTOCOL_TLS_CLIENT)
    context.pin = joining.check_pin(pin)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # nobody has signed it; TLS proves that the key is there
    return context


def _check(connection: ssl.SSLObject | ssl.SSLSocket) -> None:
    context = connection.context
    certificate = connection.getpeercert(binary_form=True)
    assert isinstance(context, _Context)
    try:
        found = joining.pin_of(certificate or b"")
    except ValueError:
        found = ""
    if not hmac.compare_digest(found, context.pin):
        raise PinError("its key is not the one that is pinned")

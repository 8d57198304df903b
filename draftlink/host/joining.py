"""How a base station says how to join it: a link that a phone reads, and the pin of its key.

``draftlink://join?url=...&token=...&pin=...`` has what a device needs and nothing else; whoever
reads it may draft. The pin is the SHA-256 of the key as a certificate holds it, its
SubjectPublicKeyInfo, in base64 for URLs without padding: RFC 7469's (2.4) in another alphabet. A
certificate that is made anew for the same key has the same pin.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Final
from urllib.parse import urlencode

_PIN: Final = re.compile(r"[A-Za-z0-9_-]{43}")
_SEQUENCE, _VERSION = 0x30, 0xA0
_BEFORE_KEY: Final = 5  # serial number, signature, issuer, validity, subject (RFC 5280, 4.1)


def link(url: str, token: str | None, pin: str | None) -> str:
    """The link that says how to join the base station at ``url``."""
    said = {"url": url, "token": token, "pin": pin}
    return "draftlink://join?" + urlencode({k: v for k, v in said.items() if v is not None})


def check_pin(text: str) -> str:
    """The same pin. Raises ValueError for what is none."""
    if not _PIN.fullmatch(text):
        raise ValueError("a pin has 43 letters, digits, - and _: a SHA-256 in base64 for URLs")
    return text


def pin_of(certificate: bytes) -> str:
    """The pin of the key in a certificate (DER). Raises ValueError for what is none."""
    tag, at, _ = _element(certificate, 0)
    inner, at, end = _element(certificate, at)  # what is signed
    if (tag, inner) != (_SEQUENCE, _SEQUENCE):
        raise ValueError("this is no certificate")
    if certificate[at : at + 1] == bytes([_VERSION]):
        at = _element(certificate, at)[2]
    for _ in range(_BEFORE_KEY):
        at = _element(certificate, at)[2]
    tag, _, behind = _element(certificate, at)
    if tag != _SEQUENCE or behind > end:
        raise ValueError("this certificate has no key where one has to be")
    digest = hashlib.sha256(certificate[at:behind]).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _element(data: bytes, at: int) -> tuple[int, int, int]:
    """Of the DER element at a place: its tag, where its contents begin, and where they end."""
    if at + 2 > len(data):
        raise ValueError("this certificate ends too early")
    tag, size, begin = data[at], data[at + 1], at + 2
    if size & 0x80:
        count = size & 0x7F
        size, begin = int.from_bytes(data[begin : begin + count], "big"), begin + count
    if begin + size > len(data):
        raise ValueError("this certificate ends too early")
    return tag, begin, begin + size

"""What a message costs on the wire."""

from __future__ import annotations


def websocket_bytes(payload: int, *, masked: bool) -> int:
    """Bytes of a binary message of ``payload`` bytes with its header (RFC 6455, section 5.2).

    A device's messages are masked, a base station's are not.
    """
    extended = 0 if payload < 126 else 2 if payload < 1 << 16 else 8
    return 2 + extended + 4 * masked + payload

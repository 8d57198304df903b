"""Addresses: whether what is sent to one stays on this machine."""

from __future__ import annotations

import ipaddress


def is_loopback(host: str) -> bool:
    """Whether a host is this machine whatever a name server says: a loopback address, or localhost.

    Any other name is not, even one that leads here now: it may lead elsewhere tomorrow.
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # a name

"""Addresses: how people write them, and whether what is sent to one stays on this machine."""

from __future__ import annotations

import contextlib
import ipaddress
import socket


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


def websocket(url: str) -> str:
    """A base station's address as a WebSocket's: what a person may call it by is understood.

    ``http://`` and ``https://``, as a browser shows the live page, and ``HOST:PORT``. Anything else
    is left as it is.
    """
    for browser, own in (("http://", "ws://"), ("https://", "wss://")):
        if url.lower().startswith(browser):
            return own + url[len(browser) :]
    host, _, port = url.rpartition(":")
    named = host and not any(sign in host for sign in "/@?# \t")
    whole = ":" not in host or (host.startswith("[") and host.endswith("]"))
    return f"ws://{url}" if named and whole and port.isascii() and port.isdecimal() else url


def reached_at(host: str) -> str:
    """A listening address as others call it: this machine's own, where it is all of them.

    No packet is sent; without a network it is the host's name.
    """
    if host not in ("0.0.0.0", "::", ""):
        return f"[{host}]" if ":" in host else host
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        asked.connect(("192.0.2.1", 9))  # an address of nobody's (RFC 5737); UDP only picks a route
        return str(asked.getsockname()[0])
    return socket.gethostname()

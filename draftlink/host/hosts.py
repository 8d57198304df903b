"""Names that a server goes by, where no token protects it.

A page in somebody's browser may have its own name resolve to this machine once it is loaded (DNS
rebinding), and then reads what is here as if it were its own. The ``Host`` header still has the
page's name: no name is answered but those that are ours. Addresses are no names, and cannot be
rebound.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection


class Hosts:
    """The host names ``names``, beside ``localhost`` and every IP address."""

    def __init__(self, names: Collection[str] = ()) -> None:
        self._names = {_plain(name) for name in names} | {"localhost"}

    def known(self, header: str | None) -> bool:
        """Whether a request with this ``Host`` header, such as ``base:8765``, is meant for us."""
        host = (header or "").strip()
        if host.startswith("["):
            host, closed, port = host[1:].partition("]")
            return closed == "]" and _is_port(port) and _is_address(host)
        name, colon, port = host.partition(":")
        if not _is_port(colon + port):
            return False
        return _plain(name) in self._names or _is_address(name)


def _plain(name: str) -> str:
    return name.lower().removesuffix(".")


def _is_port(text: str) -> bool:
    return not text or (text[0] == ":" and text[1:].isascii() and text[1:].isdigit())


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True

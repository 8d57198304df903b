"""What the kernel knows of a connection: who its ends are, and every packet, whatever is in it."""

from __future__ import annotations

import socket
import struct
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from draftlink.host.address import is_loopback
from draftlink.link.ledger import PACKET_BYTES

# Of Linux's ``struct tcp_info``: bytes_received, segs_out, segs_in, and further on bytes_sent.
RECEIVED, SENT = struct.Struct("=128xQ2I"), struct.Struct("=200xQ")


class Crossed(NamedTuple):
    """Bytes with TCP/IP headers since the connection began; whether they are those of TLS."""

    up: int
    down: int
    tls: bool


def stays_here(websocket: Any, url: str) -> bool:
    """Whether the address of a WebSocket's other end is this machine's: a loopback address, or the
    one that it has at this end, too. What answers there may pass on what it is sent, all the same.
    """
    if is_loopback(urlsplit(url).hostname or ""):
        return True
    transport = getattr(websocket, "transport", None)
    if transport is None:
        return False
    ends = transport.get_extra_info("sockname"), transport.get_extra_info("peername")
    return all(ends) and ends[0][0] == ends[1][0]


def crossed(websocket: Any) -> Crossed | None:
    """What crossed a WebSocket's connection; None where no kernel tells (not Linux, or no TCP)."""
    transport = getattr(websocket, "transport", None)
    option = getattr(socket, "TCP_INFO", None)
    if transport is None or option is None:
        return None
    tcp = transport.get_extra_info("socket")
    if tcp is None:
        return None
    try:
        info = tcp.getsockopt(socket.IPPROTO_TCP, option, SENT.size)
    except OSError:  # closed
        return None
    if len(info) < SENT.size:  # before Linux 4.19
        return None
    received, packets_sent, packets_received = RECEIVED.unpack_from(info)
    (sent,) = SENT.unpack_from(info)
    return Crossed(
        sent + PACKET_BYTES * packets_sent,
        received + PACKET_BYTES * packets_received,
        transport.get_extra_info("ssl_object") is not None,
    )

"""uvicorn around the app."""

from __future__ import annotations

import socket

import uvicorn

from bs_runtime.app import create_app
from bs_runtime.target import Target
from bs_runtime.tickets import Sealer
from draftlink import frames


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises OSError where the address is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind((host, port))
    bound.listen(128)  # from here on a device waits for the model to load instead of being refused
    return bound


def serve(target: Target, bound: socket.socket, sealer: Sealer) -> None:
    """Serve until interrupted."""
    config = uvicorn.Config(
        create_app(target, sealer),
        ws="websockets-sansio",
        ws_max_size=frames.MAX_MESSAGE_BYTES,
        ws_per_message_deflate=False,  # rows are coded already, and its context would cost a device
        ws_ping_timeout=frames.PING_TIMEOUT_S,
        log_level="warning",
        lifespan="off",
    )
    uvicorn.Server(config).run(sockets=[bound])

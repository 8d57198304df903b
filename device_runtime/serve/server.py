"""uvicorn around the app."""

from __future__ import annotations

import socket
from collections.abc import Callable
from types import FrameType

import uvicorn
from starlette.applications import Starlette

from draftlink.host import ports
from draftlink.host.address import is_loopback

STOP_S = 2  # for texts under way, once the server is told to stop


def check_exposure(host: str, *, key: bool, insecure: bool) -> None:
    """Raises ValueError where others could write at this device's cost."""
    if not (is_loopback(host) or key or insecure):
        raise ValueError(
            f"{host} can be reached from other machines, and anybody could write there: give"
            " --api-key, or --insecure if the network is yours alone"
        )


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises PortError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise ports.refused(host, port, error) from None
    return bound


class Server(uvicorn.Server):
    """A server of the app; ``ready`` is called once requests are taken."""

    def __init__(self, app: Starlette, ready: Callable[[], None] = lambda: None) -> None:
        config = uvicorn.Config(
            app,
            port=0,
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="off",
            ws="none",
            http="h11",
            timeout_graceful_shutdown=STOP_S,
        )
        super().__init__(config)
        self._ready = ready

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal. uvicorn would send it again in the end, and the exit code would not be 0."""
        self.force_exit = self.should_exit  # told twice
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        self._ready()

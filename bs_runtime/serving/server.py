"""uvicorn around the app: sockets, TLS, loading, and stopping without losing a round."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import ssl
import sys
import threading
from asyncio import sslproto
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import uvicorn
from starlette.applications import Starlette

from bs_runtime.model.target import Target
from bs_runtime.operations import descriptors, limits
from bs_runtime.serving.guard import GuardedHttp, GuardedWebSocket
from bs_runtime.serving.listener import Listener, listen
from bs_runtime.serving.pending import Pending, Place
from bs_runtime.serving.station import Station
from draftlink.host.address import is_loopback
from draftlink.protocol import frames

# A forward gives the interpreter up at each of some hundred operations, and waits as long to have
# it back while the event loop is busy. At Python's own 5 ms one of 10 ms takes 70 to 110.
SWITCH_S = 0.0005
COLLECTED = 700, 10, 4  # new objects, and young collections, before an older generation's


def check_exposure(host: str, *, tokens: bool, tls: bool, insecure: bool) -> None:
    """Raises ValueError where others could listen in, or draft at this machine's cost."""
    if insecure or is_loopback(host):
        return
    if not tokens:
        raise ValueError(
            f"{host} can be reached from other machines, and anybody could draft there: give"
            " --tokens FILE, --qr, or --insecure if the network is yours alone"
        )
    if not tls:
        raise ValueError(
            f"on {host} tokens and texts would cross the network in clear: give --tls-cert and"
            " --tls-key, --self-signed, or --insecure if a proxy or a VPN encrypts"
        )


# Of each connection, all written at its making, and read into at once: asyncio's 256 KiB would let
# strangers fill memory. A record of TLS has 16 KiB.
sslproto.SSLProtocol.max_size = 1 << 14


def tls_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """The server's side of TLS. Raises ValueError for files that are none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key)
    except OSError as error:
        raise ValueError(
            f"{certificate} and {key} are no PEM certificate and its key ({error})"
        ) from None
    return context


class Server(uvicorn.Server):
    """A server of the app: told to stop, it lets rounds end before it ends."""

    def __init__(
        self, app: Starlette, *, tls: ssl.SSLContext | None = None, stop_s: float = 10.0
    ) -> None:
        config = uvicorn.Config(
            app,
            port=0,
            http=GuardedHttp,
            ws=GuardedWebSocket,
            ws_max_size=frames.MAX_MESSAGE_BYTES,
            ws_per_message_deflate=False,  # rows are coded, and its context would cost a device
            ws_ping_timeout=frames.PING_TIMEOUT_S,
            ssl_context_factory=None if tls is None else lambda *_: tls,
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="off",
            timeout_graceful_shutdown=2,  # for what is not a device
        )
        super().__init__(config)
        self._station: Station = app.state.station
        self._stop_s = stop_s
        self.pending = Pending(limits.PENDING_CONNECTIONS)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, on ``sockets`` or else on a free port of loopback."""
        await self.lifespan.startup()
        station = self._station
        station.sessions, self.pending.places = descriptors.share(
            descriptors.limit(), station.sessions, limits.PENDING_CONNECTIONS
        )
        self.servers = [
            Listener(bound, self._protocol, self.pending, self._busy, self.config.ssl)  # type: ignore[misc]
            for bound in sockets or [listen("127.0.0.1", 0)]
        ]
        self.started = True

    def _busy(self) -> bool:
        return self._station.devices > 0

    def _protocol(self, place: Place, said: bytes) -> GuardedHttp:
        return GuardedHttp(
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
            place=place,
            said=said,
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop: devices first, then the rest."""
        await self._station.drain(0.0 if self.force_exit else self._stop_s)
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal. uvicorn would send it again in the end, and the exit code would not be 0."""
        if self._station.target is None:
            os._exit(0)  # nothing is in flight, and a load cannot be interrupted
        self.force_exit = self.should_exit  # told twice
        self.should_exit = True


def serve(
    app: Starlette,
    load: Callable[[], Target],
    ready: Callable[[Target], None],
    bound: socket.socket,
    *,
    tls: ssl.SSLContext | None = None,
    stop_s: float = 10.0,
) -> None:
    """Serve until SIGTERM or SIGINT; ``ready`` is called once devices are taken.

    Raises what ``load`` raises.
    """
    descriptors.raise_limit()
    sys.setswitchinterval(SWITCH_S)
    server = Server(app, tls=tls, stop_s=stop_s)
    failures: list[BaseException] = []

    def opened(target: Target) -> None:
        app.state.station.open(target)
        ready(target)

    async def run() -> None:
        loop = asyncio.get_running_loop()

        def work() -> None:
            try:
                target = load()
                # What a model and its libraries are made of stays. The collector would look at all
                # of it now and then, a third of a second long, while the event loop stands still.
                gc.collect()
                gc.freeze()
                # It waits until a quarter as many are new as its last look at everything found:
                # of the frozen, that is half a million objects, a tenth of a second. What is new is
                # looked at more often than usual, for the same reason.
                gc.collect()
                gc.set_threshold(*COLLECTED)
            except BaseException as error:
                failures.append(error)
                server.should_exit = True
            else:
                loop.call_soon_threadsafe(opened, target)

        # Not in the executor of the loop: its end would be waited for.
        threading.Thread(target=work, name="load", daemon=True).start()
        await server.serve(sockets=[bound])

    asyncio.run(run())
    if failures:
        raise failures[0]

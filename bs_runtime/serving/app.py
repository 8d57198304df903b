"""The ASGI app: the WebSocket endpoint, health, metrics, and the live page."""

from __future__ import annotations

import time
from collections.abc import Collection
from importlib import resources

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from bs_runtime.engine.slots import Slots
from bs_runtime.model.target import Target
from bs_runtime.operations.limits import Limits, Refusal, Tenant
from bs_runtime.serving.auth import JOINED, Tokens
from bs_runtime.serving.downloads import Downloads
from bs_runtime.serving.join import Join
from bs_runtime.serving.metrics import Collector
from bs_runtime.serving.offer import Offered
from bs_runtime.serving.snapshot import snapshot
from bs_runtime.serving.station import RESTART_S, SESSIONS, Station
from bs_runtime.serving.tickets import Sealer
from draftlink import __version__
from draftlink.host import offered
from draftlink.host.hosts import Hosts
from draftlink.host.pages import PAGE_HEADERS

PATH = "/v1/draft"
_MISLED = "this base station does not go by that name; it is told its names by --host-name"


def create_app(
    target: Target | None = None,
    sealer: Sealer | None = None,
    *,
    tokens: Tokens | None = None,
    limits: Limits | None = None,
    sessions: int = SESSIONS,
    slots: Slots | None = None,
    threads: int | None = None,
    tariff: float = 0.0,
    look_up: bool = True,
    names: Collection[str] = (),
    offer: Offered | None = None,
    join: Join | None = None,
    pin: str | None = None,
) -> Starlette:
    """The app of a ``Station`` with these arguments, which is its ``state.station``.

    ``names``: what it is called beside localhost and its addresses; asked for where no token is.
    ``offer``: a bundle that devices may take from here. ``join``: how they join, and ``pin``:
    of the key that they find here, for the page.
    """
    station = Station(
        target, sealer, tokens=tokens, limits=limits, sessions=sessions, slots=slots,
        threads=threads, tariff=tariff, look_up=look_up,
    )  # fmt: skip
    endpoints = _Endpoints(station, Hosts(names), offer, join, pin)
    app = Starlette(
        routes=[
            WebSocketRoute(PATH, endpoints.draft),
            Route("/", endpoints.index),
            Route("/stats", endpoints.stats),
            Route("/join", endpoints.join),
            Route("/healthz", endpoints.healthz),
            Route("/readyz", endpoints.readyz),
            Route("/metrics", endpoints.metrics),
            Route(offered.PATH, endpoints.bundle),
            Route(f"{offered.PATH}/{{sha256}}", endpoints.bundle),
        ]
    )
    app.state.station = station
    if target is not None:
        app.state.scheduler, app.state.conversations = station.scheduler, station.conversations
    return app


class _Endpoints:
    """What is answered at each path."""

    def __init__(
        self,
        station: Station,
        hosts: Hosts,
        offer: Offered | None,
        join: Join | None,
        pin: str | None,
    ) -> None:
        self._station = station
        self._join, self._pin = join, pin
        self._hosts = hosts
        self._downloads: Downloads | None = None
        if offer is not None:
            self._downloads = Downloads(offer, lambda: station.devices > 0)
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(Collector(station))
        self._page = resources.files("bs_runtime.serving").joinpath("page.html").read_bytes()

    def _misled(self, connection: HTTPConnection) -> bool:
        """Whether the base station was called by a name that it does not go by."""
        known = self._hosts.known(connection.headers.get("host"))
        return self._station.tokens is None and not known

    def _denied(self, request: Request, *, operators: bool) -> Response | None:
        """The answer to who may not see what is not everybody's, or is the operators' alone."""
        if self._misled(request):
            return PlainTextResponse(_MISLED + "\n", 421)
        station, tenant = self._station, self._station.tenant(request.headers.get("authorization"))
        if not operators or (tenant is not None and (station.tokens is None or tenant.operator)):
            return None
        return PlainTextResponse(
            "an operator's bearer token is needed\n", 401, {"www-authenticate": "Bearer"}
        )

    async def draft(self, socket: WebSocket) -> None:
        """A device."""
        station = self._station
        if self._misled(socket):
            await _deny(socket, 421, _MISLED)
            return
        tenant = self._device(socket)
        if not isinstance(tenant, Tenant):
            await _deny(socket, *tenant)
            return
        try:
            await station.serve(socket, tenant)
        except Refusal as refusal:
            station.stats.refuse(refusal.code)
            await _deny(socket, 503, refusal.reason, refusal.retry_after_s)

    async def bundle(self, request: Request) -> Response:
        """The offered draft bundle: what there is, or a file of it."""
        if self._misled(request):
            return PlainTextResponse(_MISLED + "\n", 421)
        tenant = self._device(request)
        if not isinstance(tenant, Tenant):
            return _denial(*tenant)
        if self._downloads is None:
            return PlainTextResponse(offered.NOTHING + "\n", 404)
        if self._station.stopping:
            return _denial(503, "the base station is stopping", RESTART_S)
        if "sha256" not in request.path_params:
            return self._downloads.list()
        return self._downloads.file(request, request.path_params["sha256"], tenant.name)

    def _device(self, connection: HTTPConnection) -> Tenant | tuple[int, str]:
        """Whose device this is; or a status and a line that it is refused with."""
        # A page in somebody's browser may reach this address, but may not draft through it.
        if "origin" in connection.headers:
            return 403, "browsers may not draft"
        tenant = self._station.tenant(connection.headers.get("authorization"))
        if tenant is None or tenant.operator:
            self._station.stats.refuse("token")
            given = "authorization" in connection.headers
            return 401, "this token may not draft here" if given else "a bearer token is needed"
        return tenant

    async def healthz(self, request: Request) -> Response:
        """Whether the process answers."""
        return JSONResponse({"status": "ok", "version": __version__})

    async def readyz(self, request: Request) -> Response:
        """Whether devices are taken."""
        trouble = self._station.unready(time.monotonic())
        if trouble is None:
            return JSONResponse({"status": "ready"})
        return JSONResponse(
            {"status": "not ready", "reason": trouble.reason},
            503,
            {"retry-after": str(trouble.retry_after_s)},
        )

    async def metrics(self, request: Request) -> Response:
        """For Prometheus."""
        return self._denied(request, operators=True) or Response(
            generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST
        )

    async def stats(self, request: Request) -> Response:
        """For the page."""
        if (denied := self._denied(request, operators=True)) is not None:
            return denied
        asked = {"token": self._station.tokens is not None, "pin": self._pin}
        said = snapshot(self._station, time.monotonic()) | {"devices_need": asked}
        return JSONResponse(said, headers={"cache-control": "no-store"})

    async def join(self, request: Request) -> Response:
        """How devices join, for who has their token already."""
        if self._join is None:
            return PlainTextResponse("this base station was started without --qr\n", 404)
        tenant = self._station.tenant(request.headers.get("authorization"))
        if tenant is None or tenant.name != JOINED:
            return _denial(401, "the token that devices join with is needed")
        said = {"link": self._join.link, "rows": self._join.rows}
        return JSONResponse(said, headers={"cache-control": "no-store"})

    async def index(self, request: Request) -> Response:
        """The page."""
        return self._denied(request, operators=False) or Response(
            self._page, media_type="text/html", headers=PAGE_HEADERS
        )


async def _deny(
    socket: WebSocket, status: int, reason: str, retry_after_s: int | None = None
) -> None:
    await socket.send_denial_response(_denial(status, reason, retry_after_s))


def _denial(status: int, reason: str, retry_after_s: int | None = None) -> Response:
    headers = {} if retry_after_s is None else {"retry-after": str(retry_after_s)}
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    return PlainTextResponse(reason + "\n", status, headers)

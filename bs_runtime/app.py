"""The ASGI app: the WebSocket endpoint, health, metrics, and the live page."""

from __future__ import annotations

import time
from importlib import resources

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from bs_runtime.auth import Tokens
from bs_runtime.limits import Limits, Refusal
from bs_runtime.metrics import Collector
from bs_runtime.slots import Slots
from bs_runtime.snapshot import snapshot
from bs_runtime.station import SESSIONS, Station
from bs_runtime.target import Target
from bs_runtime.tickets import Sealer
from draftlink import __version__

PATH = "/v1/draft"
_PAGE_HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; connect-src 'self'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


def create_app(
    target: Target | None = None,
    sealer: Sealer | None = None,
    *,
    tokens: Tokens | None = None,
    limits: Limits | None = None,
    sessions: int = SESSIONS,
    slots: Slots | None = None,
) -> Starlette:
    """The app of a ``Station`` with these arguments, which is its ``state.station``."""
    station = Station(target, sealer, tokens=tokens, limits=limits, sessions=sessions, slots=slots)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collector(station))
    page = resources.files("bs_runtime").joinpath("page.html").read_bytes()

    async def draft(socket: WebSocket) -> None:
        # A page in somebody's browser may reach this address, but may not draft through it.
        if "origin" in socket.headers:
            await _deny(socket, 403, "browsers may not draft")
            return
        tenant = station.tenant(socket.headers.get("authorization"))
        if tenant is None or tenant.operator:
            station.stats.refuse("token")
            given = "authorization" in socket.headers
            reason = "this token may not draft here" if given else "a bearer token is needed"
            await _deny(socket, 401, reason)
            return
        try:
            await station.serve(socket, tenant)
        except Refusal as refusal:
            station.stats.refuse(refusal.code)
            await _deny(socket, 503, refusal.reason, refusal.retry_after_s)

    def operator(request: Request) -> bool:
        tenant = station.tenant(request.headers.get("authorization"))
        return tenant is not None and (station.tokens is None or tenant.operator)

    async def healthz(request: Request) -> Response:
        return JSONResponse({"status": "ok", "version": __version__})

    async def readyz(request: Request) -> Response:
        trouble = station.trouble()
        if trouble is None:
            return JSONResponse({"status": "ready"})
        return JSONResponse(
            {"status": "not ready", "reason": trouble.reason},
            503,
            {"retry-after": str(trouble.retry_after_s)},
        )

    async def metrics(request: Request) -> Response:
        if not operator(request):
            return _unauthorized()
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    async def stats(request: Request) -> Response:
        if not operator(request):
            return _unauthorized()
        return JSONResponse(
            snapshot(station, time.monotonic()), headers={"cache-control": "no-store"}
        )

    async def index(request: Request) -> Response:
        return Response(page, media_type="text/html", headers=_PAGE_HEADERS)

    app = Starlette(
        routes=[
            WebSocketRoute(PATH, draft),
            Route("/", index),
            Route("/stats", stats),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", metrics),
        ]
    )
    app.state.station = station
    if target is not None:
        app.state.scheduler, app.state.conversations = station.scheduler, station.conversations
    return app


def _unauthorized() -> Response:
    return PlainTextResponse(
        "an operator's bearer token is needed\n", 401, {"www-authenticate": "Bearer"}
    )


async def _deny(
    socket: WebSocket, status: int, reason: str, retry_after_s: int | None = None
) -> None:
    headers = {} if retry_after_s is None else {"retry-after": str(retry_after_s)}
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    await socket.send_denial_response(PlainTextResponse(reason + "\n", status, headers))

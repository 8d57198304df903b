"""The ASGI app: OpenAI's endpoints, health, metrics, and a page to try them."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable, Collection, Coroutine
from dataclasses import dataclass
from importlib import resources
from typing import Any, TypeVar

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from device_runtime.serve.asked import ChatRequest, TextRequest, read
from device_runtime.serve.counts import Counts
from device_runtime.serve.errors import ApiError
from device_runtime.serve.replies import Replies
from device_runtime.serve.service import Service
from draftlink import __version__
from draftlink.host.hosts import Hosts
from draftlink.host.pages import PAGE_HEADERS

MOST_BODY = 1 << 23  # bytes; far more than any context holds
GONE = 499  # nginx's, for a client that went away

T = TypeVar("T")


@dataclass(frozen=True)
class Access:
    """Who may ask. ``origins``: of pages elsewhere, none by default; ``names``: of this machine."""

    key: str | None = None
    origins: Collection[str] = ()
    names: Collection[str] = ()


def create_app(service: Service, access: Access | None = None) -> Starlette:
    """The app of a service."""
    access = access or Access()
    endpoints = _Endpoints(service, access)
    routes = {
        "/": ("GET", endpoints.index),
        "/health": ("GET", endpoints.health),
        "/metrics": ("GET", endpoints.metrics),
        "/v1/models": ("GET", endpoints.models),
        "/v1/models/{name:path}": ("GET", endpoints.model),
        "/v1/chat/completions": ("POST", endpoints.chat),
        "/v1/completions": ("POST", endpoints.complete),
    }
    cors = Middleware(
        CORSMiddleware,
        allow_origins=list(access.origins),
        allow_methods=["GET", "POST"],
        allow_headers=["*"],
    )
    return Starlette(
        routes=[Route(path, answer, methods=[verb]) for path, (verb, answer) in routes.items()],
        middleware=[cors] if access.origins else [],
        exception_handlers={404: _nowhere, 405: _nowhere, 500: _broken},
    )


class _Endpoints:
    """What is answered at each path."""

    def __init__(self, service: Service, access: Access) -> None:
        self._service, self._access = service, access
        self._hosts = Hosts(access.names)
        self._counts = Counts()
        self._replies = Replies(service, self._counts)
        self._page = resources.files("device_runtime.serve").joinpath("page.html").read_bytes()

    async def index(self, request: Request) -> Response:
        """The page."""
        return self._misled(request) or Response(
            self._page, media_type="text/html", headers=PAGE_HEADERS
        )

    async def health(self, request: Request) -> Response:
        """Whether the process answers, and what it serves."""
        return JSONResponse({"status": "ok", "version": __version__})

    async def metrics(self, request: Request) -> Response:
        """For Prometheus."""
        denied = self._misled(request) or self._denied(request)
        return denied or Response(
            self._counts.text(self._service.conversations.waiting), media_type=CONTENT_TYPE_LATEST
        )

    async def models(self, request: Request) -> Response:
        """The one model that there is."""
        denied = self._misled(request) or self._denied(request)
        return denied or JSONResponse({"object": "list", "data": [self._service.card]})

    async def model(self, request: Request) -> Response:
        """The same by its name."""

        async def card(_: bytes) -> Response:
            self._service.check_model(request.path_params["name"])
            return JSONResponse(self._service.card)

        return await self._answer(request, card)

    async def chat(self, request: Request) -> Response:
        """The assistant's next turn."""

        async def reply(body: bytes) -> Response:
            asked = read(ChatRequest, body)
            return await self._replies.reply("chat", asked, await self._service.chat(asked))

        return await self._answer(request, reply)

    async def complete(self, request: Request) -> Response:
        """A text that goes on."""

        async def reply(body: bytes) -> Response:
            asked = read(TextRequest, body)
            return await self._replies.reply("text", asked, self._service.texts(asked))

        return await self._answer(request, reply)

    async def _answer(
        self, request: Request, work: Callable[[bytes], Coroutine[Any, Any, Response]]
    ) -> Response:
        """What ``work`` answers, an error in its shape, or nothing to a client that is gone."""
        denied = self._misled(request) or self._denied(request)
        if denied is not None:
            return denied
        try:
            return await _unless_gone(request, work(await _body(request)))
        except ClientDisconnect:
            self._counts.left()
            return Response(status_code=GONE)
        except ApiError as error:
            self._counts.failed(error.status)
            return refusal(error)

    def _misled(self, request: Request) -> Response | None:
        """The answer to a page elsewhere, and to who calls this machine by another's name."""
        access = self._access
        if access.key is None and not self._hosts.known(request.headers.get("host")):
            text = "this server does not go by that name; tell it its names by --host-name"
            return refusal(ApiError(421, text, code="unknown_host"))
        origin = request.headers.get("origin")
        own = f"{request.url.scheme}://{request.headers.get('host')}"
        if origin in (None, own) or "*" in access.origins or origin in access.origins:
            return None
        text = f"pages of {origin} may not ask here; --cors {origin} lets them"
        return refusal(ApiError(403, text, code="origin_not_allowed"))

    def _denied(self, request: Request) -> Response | None:
        """The answer to who has no key, where one is asked for."""
        key = self._access.key
        if key is None:
            return None
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        same = hmac.compare_digest(given.strip().encode("latin-1", "replace"), key.encode())
        if scheme.lower() == "bearer" and same:
            return None
        text = "the API key is missing or wrong; send it as `Authorization: Bearer KEY`"
        return refusal(ApiError(401, text, code="invalid_api_key"))


def refusal(error: ApiError) -> Response:
    """An error as an answer."""
    headers = {} if error.retry_after_s is None else {"retry-after": str(error.retry_after_s)}
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    return JSONResponse(error.body, error.status, headers)


async def _nowhere(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    return refusal(ApiError(status, f"there is no {request.method} {request.url.path} here"))


async def _broken(request: Request, error: Exception) -> Response:
    return refusal(ApiError(500, f"this is a fault of the server ({type(error).__name__})"))


async def _body(request: Request) -> bytes:
    """The body of a request. Raises ApiError for one that is too long."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MOST_BODY:
            raise ApiError(413, f"the body has more than {MOST_BODY} bytes")
    return bytes(body)


async def _unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """What ``work`` comes to. It is cancelled once the client has gone: raises ClientDisconnect."""
    task, watch = asyncio.create_task(work), asyncio.create_task(_gone(request))
    try:
        await asyncio.wait([task, watch], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()
        watch.cancel()
        await asyncio.wait([task, watch])


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass

"""The ASGI app: the WebSocket endpoint and /healthz."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from bs_runtime.connection import Connection
from bs_runtime.conversations import Conversations
from bs_runtime.scheduler import Scheduler
from bs_runtime.target import Target
from bs_runtime.tickets import Sealer
from draftlink import __version__, frames

PATH = "/v1/draft"


def create_app(target: Target, sealer: Sealer | None = None) -> Starlette:
    """The base station's app over a loaded target.

    ``sealer`` seals the tickets of devices; without one they end with this process.
    """
    scheduler = Scheduler(target)
    conversations = Conversations(target.open, scheduler.close, sealer or Sealer())

    async def serve(socket: WebSocket) -> None:
        await socket.accept()

        async def receive() -> bytes | None:
            message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                return None
            # A text message has no bytes; the session refuses the empty frame.
            return message.get("bytes") or b""

        async def send(data: bytes) -> None:
            try:
                await socket.send_bytes(data)
            except (WebSocketDisconnect, RuntimeError) as error:
                raise ConnectionResetError("the device has gone") from error

        connection = Connection(target, scheduler, conversations, receive, send)
        await connection.serve()
        if socket.application_state.name == "CONNECTED" and socket.client_state.name == "CONNECTED":
            await socket.close(frames.FENCED if connection.fenced else 1000)

    async def health(request: Request) -> Response:
        return JSONResponse({"status": "ok", "model": target.name, "version": __version__})

    app = Starlette(routes=[WebSocketRoute(PATH, serve), Route("/healthz", health)])
    app.state.scheduler = scheduler
    app.state.conversations = conversations
    return app

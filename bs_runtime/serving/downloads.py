"""The offered bundle over HTTP: who gets it, how many at once, and how fast beside devices.

A download is long, as no other request is: it keeps no place among the pending connections, which
would end it after seconds, and has limits of its own. It never costs a session, and while devices
are served it sends a part only now and then.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from bs_runtime.serving.guard import CLOSE_S, PLACE
from bs_runtime.serving.offer import PART_BYTES, Offered, span
from bs_runtime.serving.pending import Place, network
from draftlink.host import offered

MOST: Final = 8  # at once, of all devices
MOST_EACH: Final = 2  # of one token, or where none is asked for of one address
AGAIN_S: Final = 5  # after which who found no room may ask again
STALL_S: Final = 30.0  # for a device to take a part; so no slower than 2 kB/s
# Between two parts while devices are served: 30 MB/s, at some 0.1 ms of the event loop a part.
PAUSE_S: Final = 0.002
_FIXED = {"cache-control": "no-store", "x-content-type-options": "nosniff"}


class Downloads:
    """Of one bundle. ``busy``: whether devices are served."""

    def __init__(self, bundle: Offered, busy: Callable[[], bool]) -> None:
        self._bundle = bundle
        self._busy = busy
        self._list = offered.encode(bundle.offer)
        self._under_way: Counter[str] = Counter()
        # A disk may be slow, and the event loop is everybody's.
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="offer")

    def list(self) -> Response:
        """What is offered."""
        return Response(self._list, media_type="application/json", headers=_FIXED)

    def file(self, request: Request, sha256: str, tenant: str) -> Response:
        """A file, or the part of it that is asked for. ``tenant``: whose token it is, if any."""
        size = self._bundle.sizes.get(sha256)
        if size is None:
            return PlainTextResponse("no such file is offered here\n", 404)
        tag = f'"{sha256}"'
        headers = {**_FIXED, "etag": tag, "accept-ranges": "bytes"}
        wanted = request.headers.get("range")
        if request.headers.get("if-range", tag) != tag:
            wanted = None
        part = span(wanted, size) if wanted is not None else (0, size)
        if part is None:
            return Response(None, 416, {**headers, "content-range": f"bytes */{size}"})
        begin, end = part
        whole = part == (0, size)
        headers["content-length"] = str(end - begin)
        if not whole:
            headers["content-range"] = f"bytes {begin}-{end - 1}/{size}"
        status = 200 if whole else 206
        if request.method == "HEAD":
            return Response(None, status, headers, "application/octet-stream")
        who = tenant or network(request.client.host if request.client else "")
        if self._under_way.total() >= MOST or self._under_way[who] >= MOST_EACH:
            return PlainTextResponse(
                "as many downloads as may be are under way\n", 503, {"retry-after": str(AGAIN_S)}
            )
        return _Sent(self, who, sha256, part, status, headers)

    async def parts(self, sha256: str, begin: int, end: int) -> AsyncIterator[bytes]:
        """Those bytes of a file. Raises OSError where they are not there any more."""
        loop = asyncio.get_running_loop()
        while begin < end:
            count = min(PART_BYTES, end - begin)
            data = await loop.run_in_executor(self._reader, self._bundle.read, sha256, begin, count)
            if not data:
                raise OSError("the file has become shorter")
            yield data
            begin += len(data)
            if self._busy():
                await asyncio.sleep(PAUSE_S)

    def begin(self, who: str) -> None:
        """One more is under way."""
        self._under_way[who] += 1

    def end(self, who: str) -> None:
        """One less is."""
        self._under_way[who] -= 1
        if not self._under_way[who]:
            del self._under_way[who]


class _Sent(Response):
    """A download: its place among the pending is given up, and taken again at its end."""

    def __init__(
        self,
        downloads: Downloads,
        who: str,
        sha256: str,
        part: tuple[int, int],
        status: int,
        headers: dict[str, str],
    ) -> None:
        super().__init__(None, status, headers, "application/octet-stream")
        self._downloads, self._who = downloads, who
        self._sha256, self._part = sha256, part
        downloads.begin(who)  # from the decision on: no other is decided between

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it to its end, or until the device takes nothing any more."""
        place: Place | None = scope.get(PLACE)
        gone = asyncio.create_task(_gone(receive))
        try:
            if place is not None:
                place.accept()
            await send({
                "type": "http.response.start", "status": self.status_code,
                "headers": self.raw_headers,
            })  # fmt: skip
            async for data in self._downloads.parts(self._sha256, *self._part):
                if gone.done():  # what is sent to nobody is lost without a word
                    return
                async with asyncio.timeout(STALL_S):
                    await send({"type": "http.response.body", "body": data, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        except (TimeoutError, OSError, asyncio.CancelledError):
            # It took nothing, or the base station stops and has given it two seconds. What was
            # promised does not come: there is no other way to say so.
            if place is not None:
                place.end()
        finally:
            self._downloads.end(self._who)
            if place is not None and not gone.done():
                place.come_back(asyncio.get_running_loop().time() + CLOSE_S)
            gone.cancel()


async def _gone(receive: Receive) -> None:
    """Until the device has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass

"""A headless Chromium, driven over its DevTools protocol: pages as people see them."""

from __future__ import annotations

import asyncio
import base64
import io
import itertools
import json
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from websockets.asyncio.client import ClientConnection, connect

from draftlink.host import children

# Width and height in CSS pixels, pixels in each, and whether it is a phone.
SIZES = {"desktop": (1280, 890, 1, False), "phone": (390, 844, 2, True)}
SETTLED_S = 1.5  # for what a page draws itself


class Browser:
    """A page in a browser. ``events``: what it told unasked, such as its requests and errors."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self.events: list[dict[str, Any]] = []

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A method of the DevTools protocol. Raises RuntimeError for its errors."""
        number = next(self._numbers)
        await self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while (answer := json.loads(await self._socket.recv())).get("id") != number:
            self.events.append(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        result: dict[str, Any] = answer["result"]
        return result

    async def evaluate(self, script: str) -> Any:
        """The value of an expression in the page, as JSON has it."""
        answer = await self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{script}: {answer['exceptionDetails']['text']}")
        return answer["result"].get("value")

    async def texts(self, *ids: str) -> list[str]:
        """The texts of elements."""
        texts: list[str] = await self.evaluate(
            f"{json.dumps(ids)}.map(id => document.getElementById(id)?.textContent || '–')"
        )
        return texts

    async def open(self, url: str) -> None:
        """Show a page, and hear of its requests and errors from its beginning."""
        for part in ("Page", "Runtime", "Network", "Log"):
            await self.call(f"{part}.enable")
        await self.call("Page.navigate", url=url)
        async with asyncio.timeout(30):
            there = f"{url}complete"
            while await self.evaluate("location.href + document.readyState") != there:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        await asyncio.sleep(SETTLED_S)

    async def resize(self, size: str, height: int | None = None) -> None:
        """Be a desktop or a phone, and so high; a desktop has a light theme, a phone a dark one."""
        width, usual, scale, mobile = SIZES[size]
        theme = {"name": "prefers-color-scheme", "value": "dark" if mobile else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[theme])
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height or usual,
            deviceScaleFactor=scale, mobile=mobile,
        )  # fmt: skip
        await asyncio.sleep(SETTLED_S)

    async def shot(self, path: Path) -> None:
        """What it looks like, as PNG."""
        shot = await self.call("Page.captureScreenshot", format="png")
        # Few colours are all it has; the file is a third of the browser's.
        image = Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("RGB")
        image.quantize(256).save(path, optimize=True)


@asynccontextmanager
async def browser(chromium: str, url: str = "about:blank") -> AsyncIterator[Browser]:
    """A headless browser that shows ``url``."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [chromium, "--headless", "--no-sandbox", "--disable-gpu"]
        command += ["--disable-background-networking", f"--user-data-dir={profile}"]
        command += ["--remote-debugging-port=0", url]
        process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
        try:
            assert process.stderr is not None
            root = ""
            while "devtools" not in root:
                root = (await process.stderr.readline()).decode().rpartition(" ")[2].strip()
            async with connect(root) as socket:
                targets = (await Browser(socket).call("Target.getTargets"))["targetInfos"]
            page = next(target for target in targets if target["type"] == "page")["targetId"]
            address = f"{root.rsplit('/devtools', 1)[0]}/devtools/page/{page}"
            async with connect(address, max_size=None) as socket:
                yield Browser(socket)
        finally:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), children.STOPPED_S)
            except TimeoutError:
                process.kill()
                await process.wait()

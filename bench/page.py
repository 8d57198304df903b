"""The live page in a real browser while devices write: its numbers must move; two screenshots.

    python -m bench.page --out docs

Needs Chromium (``--chromium`` names another) and the extra ``plot``. The base station and each
device are processes of their own; the browser is driven over its DevTools protocol.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import itertools
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console
from websockets.asyncio.client import ClientConnection, connect

import tinypair
from draftlink.host import children
from tinypair.loopback import base_station, draft_bundle

DEVICES = 3
WATCHED_S = 40.0
# Width and height in CSS pixels, pixels in each, and whether it is a phone.
SIZES = {"desktop": (1280, 890, 1, False), "phone": (390, 1420, 2, True)}


class Browser:
    """A page in a browser."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A method of the DevTools protocol. Raises RuntimeError for its errors."""
        number = next(self._numbers)
        await self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while (answer := json.loads(await self._socket.recv())).get("id") != number:
            pass
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        result: dict[str, Any] = answer["result"]
        return result

    async def texts(self, *ids: str) -> list[str]:
        """The texts of elements."""
        script = f"{json.dumps(ids)}.map(id => document.getElementById(id)?.textContent || '–')"
        answer = await self.call("Runtime.evaluate", expression=script, returnByValue=True)
        texts: list[str] = answer["result"]["value"]
        return texts


@asynccontextmanager
async def browser(chromium: str, url: str) -> AsyncIterator[Browser]:
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


@contextmanager
def devices(url: str, bundle: Path) -> Iterator[None]:
    """Devices that write one text after another."""
    code = "import sys; from bench.page import write; write(*sys.argv[1:])"
    with ExitStack() as stack:
        for number in range(DEVICES):
            arguments = ["-c", code, url, str(bundle), str(number)]
            stack.enter_context(children.child(arguments, Console(stderr=True).print))
        yield


def write(url: str, bundle: str, number: str) -> None:
    """A device that writes until it is ended; each has another scheme."""
    from device_runtime.device import Coupled, Device, Sampling, TopK

    scheme = (TopK(), Coupled(), TopK(k=8))[int(number) % 3]
    sampling = Sampling(temperature=0.0 if int(number) % 3 == 2 else 0.7)

    async def run() -> None:
        async with Device(Path(bundle), url) as device:
            for prompt in itertools.cycle(tinypair.prompts(10)[int(number) :]):
                generation = device.generate(
                    prompt, scheme=scheme, sampling=sampling, mode="stop-and-wait"
                )
                async for _ in generation:
                    pass

    asyncio.run(run())


async def watch(console: Console, chromium: str, url: str, out: Path) -> None:
    """Look at the page twice, and keep what it looks like."""
    watched = ("tokens_per_s", "acceptance", "mean_accepted", "bits", "queue", "batch", "peak")
    async with browser(chromium, url) as page:
        async with asyncio.timeout(60):  # the devices load their drafts first
            while "–" in await page.texts(*watched):  # noqa: ASYNC110
                await asyncio.sleep(0.5)
        await asyncio.sleep(WATCHED_S / 2)
        before = await page.texts(*watched, "total")
        await asyncio.sleep(WATCHED_S / 2)
        after = await page.texts(*watched, "total")
        for name, a, b in zip(watched, before, after, strict=False):
            console.print(f"{name}: {a}, then {b}")
            assert any(c.isdigit() for c in a), f"{name} shows no number"
        assert before[-1] != after[-1], "the totals stand still"
        for name, (width, height, scale, mobile) in SIZES.items():
            theme = {"name": "prefers-color-scheme", "value": "dark" if mobile else "light"}
            await page.call("Emulation.setEmulatedMedia", features=[theme])
            await page.call(
                "Emulation.setDeviceMetricsOverride",
                width=width,
                height=height,
                deviceScaleFactor=scale,
                mobile=mobile,
            )
            await asyncio.sleep(1.5)
            shot = await page.call("Page.captureScreenshot", format="png")
            path = out / f"page-{name}.png"
            # Few colours are all it has; the file is a third of the browser's.
            image = Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("RGB")
            image.quantize(256).save(path, optimize=True)
            console.print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs"))
    parser.add_argument("--chromium", default=shutil.which("chromium") or "chromium")
    given = parser.parse_args()
    console = Console()
    bundle = draft_bundle(console)
    with base_station(console) as url, devices(url, bundle):
        children.run(watch(console, given.chromium, url.replace("ws:", "http:"), given.out))


if __name__ == "__main__":
    main()

"""The live page in a real browser while devices write: its numbers must move; two screenshots.

    python -m bench.page --out docs

Needs Chromium (``--chromium`` names another) and the extra ``plot``. The base station and each
device are processes of their own; the browser is driven over its DevTools protocol.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rich.console import Console

import tinypair
from bench.serving.browser import browser
from draftlink.host import children
from tinypair.loopback import base_station, draft_bundle

DEVICES = 3
WATCHED_S = 40.0
HEIGHTS = {"desktop": 890, "phone": 1490}  # CSS pixels that show all of it


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
        for name, height in HEIGHTS.items():
            await page.resize(name, height)
            path = out / f"page-{name}.png"
            await page.shot(path)
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

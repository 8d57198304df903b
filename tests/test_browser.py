"""The pages in a real browser, as a desktop and as a phone: the docs, a report, the live page and
the endpoint's. Nothing runs off the side, nothing fails, and nothing comes from elsewhere.

    pytest -m full tests/test_browser.py       DRAFTLINK_SHOTS=FOLDER keeps what they look like
"""

from __future__ import annotations

import asyncio
import functools
import http.server
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import draftlink
from bench.serving.browser import SIZES, Browser, browser
from draftlink.cli import report_page
from tests.endpoints import DRAFT, TABLE, device, endpoint
from tests.fakes import FakeTarget, served, serving
from tests.snippets import ROOT
from tests.test_report import RESULTS

pytestmark = [pytest.mark.full, pytest.mark.parametrize("size", SIZES)]
SHOTS = os.environ.get("DRAFTLINK_SHOTS")
PAGES = ("index", "quick-start", "models", "trouble", "benchmarks", "api")  # with the widest tables


async def looked(page: Browser, size: str, name: str, origin: str, height: int | None = None):
    """Be of a size, and look at what is shown."""
    await page.resize(size, height)
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert await page.evaluate(wide) <= 0, f"{name} runs off the side"
    assert faults(page, origin) == [], name
    if SHOTS:
        await page.shot(Path(SHOTS, f"{name}-{size}.png"))


# By how much the longest drafts that there are have bars beside their card.
OVER = """fetch("stats").then(answer => answer.json()).then(told => {
  told.accepted_by_position = Array(16).fill(0.99);
  show(told);
  const bars = document.getElementById("bars");
  return bars.scrollWidth - bars.clientWidth;
})"""


def faults(page: Browser, origin: str) -> list[str]:
    """What failed, and what was asked of elsewhere."""
    found = []
    for event in page.events:
        method, told = event["method"], event["params"]
        if method == "Runtime.exceptionThrown":
            found.append(told["exceptionDetails"]["exception"]["description"])
        elif method == "Network.requestWillBeSent":
            url = told["request"]["url"]
            found += [] if url.startswith((origin, "data:", "about:")) else [url]
        elif method == "Network.loadingFailed":
            found.append(told["errorText"])
        elif method == "Log.entryAdded" and told["entry"]["level"] == "error":
            found.append(told["entry"]["text"])
    return found


async def until(page: Browser, script: str) -> None:
    """Wait for a page to come to something; 20 s at the most."""
    look = f"() => ({script}) ? done(true) : setTimeout(look, 50)"
    async with asyncio.timeout(20):
        await page.evaluate(f"new Promise(done => {{ const look = {look}; look(); }})")


@pytest.fixture(scope="module")
def chromium() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("no Chromium")
    return found


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Iterator[str]:
    """The docs, built and served; their address."""
    if shutil.which("mkdocs") is None:
        pytest.skip("pip install '.[docs]'")
    folder = tmp_path_factory.mktemp("site")
    build = ["mkdocs", "build", "-q", "--strict", "-f", ROOT / "mkdocs.yml", "-d", folder]
    subprocess.run(build, check=True, timeout=300)
    with files(folder) as url:
        yield url


@contextmanager
def files(folder: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_) -> None:
            pass

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=folder)
    )
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()


def test_the_docs(size, site, chromium):
    async def main() -> None:
        async with browser(chromium) as page:
            for name in PAGES:
                await page.open(f"{site}{name}.html")
                assert await page.evaluate("[...document.images].every(i => i.naturalWidth > 0)")
                await looked(page, size, f"docs-{name}", site)

    asyncio.run(main())


def test_a_report(size, chromium, tmp_path):
    found = [(f"{kind}.json", result) for kind, result in RESULTS.items()]
    path = tmp_path / "report.html"
    path.write_text(report_page.page("Results", found, draftlink.__version__))

    async def main() -> None:
        async with browser(chromium) as page:
            await page.open(path.as_uri())
            await looked(page, size, "report", path.as_uri())
            drawn = "[...document.querySelectorAll('svg')].every(s => s.clientHeight > 100)"
            assert await page.evaluate(drawn)

    asyncio.run(main())


def test_the_live_page(size, chromium):
    """Nobody there; a device that writes; and the base station gone, with old numbers grey."""

    async def main() -> None:
        async with browser(chromium) as page:
            with serving(FakeTarget(TABLE), pin="a1b2") as (url, server):
                address = url.replace("ws:", "http:") + "/"
                await page.open(address)
                command, told = await page.texts("command", "model")
                asked = f"--bs {url} --pin a1b2"
                assert command == f'draftlink device BUNDLE {asked} "Once upon a time"'
                assert url in told and f"draftlink {draftlink.__version__}" in told
                await looked(page, size, "live-nobody", address)
                async with device(url, DRAFT) as here:
                    generation = here.generate([1, 2, 3], max_tokens=200, eos_ids=())
                    async for _ in generation:
                        pass
                    known = "!document.getElementById('acceptance').textContent.includes('–')"
                    await until(page, f"document.getElementById('none').hidden && {known}")
                    assert "–" not in (await page.texts("tokens_per_s"))[0]
                    await looked(page, size, "live", address, 1490 if size == "phone" else None)
                    assert await page.evaluate(OVER) <= 0
                page.events.clear()
                awake = threading.Event()  # a machine that is switched off refuses nothing
                server.servers[0]._loop.call_soon_threadsafe(awake.wait, 60)
                await until(page, "document.body.classList.contains('gone')")
                awake.set()
                await until(page, "!document.body.classList.contains('gone')")
                server.should_exit = True
                await until(page, "document.body.classList.contains('gone')")
            grey = "Number(getComputedStyle(document.getElementById('grid')).opacity)"
            assert await page.evaluate(grey) < 0.5
            assert (await page.texts("status"))[0].startswith("no answer for ")
            page.events.clear()  # that its requests fail is what is looked at
            await page.resize(size)
            if SHOTS:
                await page.shot(Path(SHOTS, f"live-gone-{size}.png"))

    asyncio.run(main())


def test_the_endpoint_s_page(size, chromium):
    """A turn is typed and answered; once nobody is there it says so."""
    typed = "document.getElementById('text').value = 'abc'; form.requestSubmit()"

    async def main() -> None:
        async with browser(chromium) as page:
            # An answer ends where the target's context is full.
            short = FakeTarget(TABLE, context=64)
            with served(short) as url, endpoint(url) as (address, _):
                await page.open(f"{address}/")
                await page.evaluate(typed)
                await until(page, "document.getElementById('stats').textContent.includes('tokens')")
                assert (await page.texts("model"))[0] == "fake"
                assert await page.evaluate("document.querySelectorAll('#log div').length") == 2
                await looked(page, size, "serve", address)
            await page.evaluate(typed)
            await until(page, "document.querySelector('#log .error')")

    asyncio.run(main())


def test_what_is_wrong_is_found(size, chromium, tmp_path):
    """The control: too wide, a script that fails, and a picture of elsewhere."""
    path = tmp_path / "bad.html"
    for words, wrong in (
        ("<p style='width:3000px'>x", "runs off"),
        ("<script>nothing()</script>", "nothing is not defined"),
        ("<img src='http://127.0.0.1:9/x.png'>", "127.0.0.1:9"),
    ):
        path.write_text(
            f"<!doctype html><meta name='viewport' content='width=device-width'>{words}"
        )

        async def main() -> None:
            async with browser(chromium) as page:
                await page.open(path.as_uri())
                await looked(page, size, "bad", path.as_uri())

        with pytest.raises(AssertionError, match=wrong):
            asyncio.run(main())

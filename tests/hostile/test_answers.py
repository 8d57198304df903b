"""What stands in the place of a WebSocket: proxies, redirects, and what is no web server at all."""

from __future__ import annotations

import asyncio

import pytest
from websockets.datastructures import Headers
from websockets.http11 import Response

from device_runtime.transport.connecting import LinkError
from tests.hostile.phones import NASTY, TOKEN, answers, once, phone, plain, run, text, writes
from tests.hostile.stations import listening


@pytest.mark.parametrize("status", [500, 502, 503, 504, 520, 408, 425, 429])
def test_a_proxy_whose_base_station_is_away_for_a_moment(status):
    async def scenario() -> None:
        options, seen = answers(None, status, status, None)
        async with listening(once, **options) as (url, made):
            async with phone(url) as device:
                assert await text(device) == [5, 6, 7, 8]
            assert len(seen) == 4 and len(made) == 2

    run(scenario)


@pytest.mark.parametrize("status", [500, 502, 504])
def test_a_proxy_whose_base_station_stays_away(status):
    async def scenario() -> None:
        options, seen = answers(None, status)
        async with listening(once, **options) as (url, _):
            async with phone(url) as device:
                with pytest.raises(LinkError, match=f"has gone .HTTP {status}"):
                    await text(device)
            assert 3 <= len(seen) <= 8
            with pytest.raises(LinkError, match=f"no base station at .*HTTP {status}"):
                await phone(url).open()

    run(scenario)


@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 426])
def test_what_another_attempt_does_not_change(status):
    async def scenario() -> None:
        options, seen = answers(None, status)
        async with listening(once, **options) as (url, _):
            async with phone(url) as device:
                with pytest.raises(LinkError, match=f"HTTP {status}"):
                    await text(device)
            assert len(seen) == 2

    run(scenario)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("after", ["9" * 5000, "7", "Wed, 21 Oct 2015 07:28:00 GMT", "-1", "²"])
def test_when_to_come_back(status, after):
    async def scenario() -> None:
        busy = Response(status, "x", Headers([("Retry-After", after)]), NASTY.encode())
        options, _ = answers(busy)
        async with listening(writes, **options) as (url, _), asyncio.timeout(5):
            with pytest.raises(LinkError, match="takes no more devices now") as caught:
                await phone(url).open()
        seconds = 3600 if len(after) > 999 else 7 if after == "7" else 1
        assert caught.value.retry_after_s == seconds and plain(caught.value)

    run(scenario)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_nobody_sends_the_device_elsewhere(status):
    async def scenario() -> None:
        other, told = answers(None)
        async with listening(writes, **other) as (elsewhere, _):
            for to in (elsewhere + "/v1/draft", "/v1/draft", "http://x\x9bc/", "ws://[", ""):
                moved = Response(status, "x", Headers([("Location", to)]), b"")
                options, seen = answers(moved)
                async with listening(writes, **options) as (url, _):
                    with pytest.raises(
                        LinkError, match=r"redirects to .* give that address"
                    ) as caught:
                        await phone(url, TOKEN).open()
                    assert plain(caught.value) and seen == [f"Bearer {TOKEN}"]
        assert not told

    run(scenario)


def test_a_proxy_of_the_environment_is_not_told_what_stays_on_this_machine(monkeypatch):
    async def scenario() -> None:
        heard: list[bytes] = []

        async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heard.append(await reader.read(1000))
            writer.close()

        server = await asyncio.start_server(proxy, "127.0.0.1", 0)
        where = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY"):
            monkeypatch.setenv(name, where)
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        async with listening(writes) as (url, _), phone(url, TOKEN) as device:
            assert await text(device) == [5, 6, 7, 8]
        server.close()
        assert not heard

    run(scenario)


NO_ANSWERS = [
    b"",
    b"\r\n\r\n",
    b"\x1bc\x1bPq\r\n\r\n",
    b"SSH-2.0-x\r\n",
    b"\x00" * 9000,
    b"HTTP/1.1 101 \x1bc\r\n\r\n",
    b"HTTP/1.1 999999 x\r\n\r\n",
    b"HTTP/1.1 101 Y\r\nUpgrade: \x1bc\r\nConnection: Upgrade\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999\r\n\r\n",
    b"HTTP/1.1 500 x\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
    b"HTTP/1.1 502 x\r\nTransfer-Encoding: chunked\r\n\r\n" + b"f" * 5000 + b"\r\n",
]


@pytest.mark.parametrize("answer", NO_ANSWERS, ids=range(len(NO_ANSWERS)))
def test_what_is_no_web_server(answer):
    async def scenario() -> None:
        async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            writer.close()

        server = await asyncio.start_server(speak, "127.0.0.1", 0)
        with pytest.raises(LinkError) as caught:
            await phone(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}").open()
        assert plain(caught.value)
        server.close()

    run(scenario)

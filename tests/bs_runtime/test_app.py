"""Doors of the app over real sockets: health, metrics, the page, TLS, busy and stopping."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import json
import re
import signal
import ssl
import sys
import urllib.error
import urllib.request
from html.parser import HTMLParser
from importlib import resources

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.websockets import WebSocketDisconnect, WebSocketState

from bs_runtime.engine.slots import Slots
from bs_runtime.operations.limits import Limits, Tenant
from bs_runtime.serving.app import create_app
from bs_runtime.serving.auth import Tokens
from bs_runtime.serving.server import COLLECTED, check_exposure, listen, serve, tls_context
from bs_runtime.serving.station import DeviceSocket
from device_runtime.device import Sampling
from device_runtime.transport.connecting import LinkError, connector
from draftlink.link.ledger import total
from tests.fake_models import fake_device, random_logits
from tests.fakes import FakeTarget, served, serving

TABLE = random_logits(1, 20)
OPS, PHONE = "the-operator-s-token", "the-phone-s-own-token"
PROMPT = [1, 2, 3]


def get(url: str, path: str, token: str | None = None) -> tuple[int, str, dict[str, str]]:
    request = urllib.request.Request(url.replace("ws:", "http:") + path)
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read().decode(), dict(answer.headers)
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(), dict(error.headers)


def tokens() -> Tokens:
    return Tokens(
        (
            (hashlib.sha256(OPS.encode()).digest(), Tenant("ops", Limits(), operator=True)),
            (hashlib.sha256(PHONE.encode()).digest(), Tenant("phone", Limits())),
        )
    )


async def write(url: str, count: int = 30, **options):
    options = {"mode": "stop-and-wait", "gamma": 4, "seed": 3, **options}
    async with fake_device(url, TABLE) as device:
        generation = device.generate(PROMPT, max_tokens=count, **options)
        async for _ in generation:
            pass
        return generation.result


def test_what_the_metrics_say_is_what_the_device_counted():
    target = FakeTarget(TABLE)
    with served(target, slots=Slots(8_000), threads=2) as url:
        result = asyncio.run(write(url))
        status, text, _ = get(url, "/metrics")
        shown = json.loads(get(url, "/stats")[1])
    values = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            values[sample.name, *sample.labels.values()] = sample.value
    assert status == 200
    assert target.slots[0].length > len(PROMPT)
    assert (shown["kv_bytes"], shown["most_kv_bytes"]) == (8 * target.slots[0].length, 8_000)
    drafts = total(result.ledger, "up", "Draft")
    for name, value in {
        "spec_decode_num_draft_tokens_total": result.drafted,
        "spec_decode_num_accepted_tokens_total": result.accepted,
        "generation_tokens_total": len(result.tokens),
        "prompt_tokens_total": len(PROMPT),
        "draft_bytes_total": drafts.websocket_bytes,
        "request_queue_time_seconds_count": drafts.frames,
        "sessions": 0,
        "ready": 1,
        "num_preemptions_total": 0,
        # The device that has gone may come back.
        "kv_cache_bytes": 8 * target.slots[0].length,
        "kv_cache_usage_perc": 8 * target.slots[0].length / 8_000,
        "kv_cache_limit_bytes": 8_000,
        "model_threads": 2,
    }.items():
        assert values[f"draftlink:{name}",] == value, name
    for position, accepted in enumerate(result.accept_histogram):
        name = "draftlink:spec_decode_num_accepted_tokens_per_pos_total"
        assert values[name, str(position)] == accepted
    assert shown["total"]["tokens"] == len(result.tokens)
    assert shown["acceptance"] == pytest.approx(result.acceptance_rate)
    bits = 8 * drafts.websocket_bytes / result.accepted
    assert shown["bits_up_per_accepted"] == pytest.approx(bits)


def test_nobody_s_text_is_in_it():
    """Neither prompts nor tokens nor what a device calls itself: only numbers, and our words."""
    with served(FakeTarget(TABLE)) as url:
        asyncio.run(write(url))
        shown = json.loads(get(url, "/stats")[1])

    def strings(value):
        if isinstance(value, dict):
            value = list(value.values())
        if isinstance(value, list):
            return [s for one in value for s in strings(one)]
        return [value] if isinstance(value, str) else []

    assert set(strings(shown)) <= {"fake", "float64", "ready", "0.1.0", "topk", "draft", ""}


def test_only_operators_see_the_numbers_where_there_are_tokens():
    with served(FakeTarget(TABLE), tokens=tokens(), pin="a1b2") as url:
        # What the page's command to copy has beside the address.
        needs = json.loads(get(url, "/stats", OPS)[1])["devices_need"]
        assert needs == {"token": True, "pin": "a1b2"}
        for path in ("/metrics", "/stats"):
            assert get(url, path, OPS)[0] == 200
            for token in (None, PHONE, "something-else-again"):
                status, text, headers = get(url, path, token)
                assert status == 401 and headers["www-authenticate"] == "Bearer"
                assert "draftlink:" not in text
        for path in ("/healthz", "/readyz", "/"):  # nothing in them is secret
            assert get(url, path)[0] == 200
            assert "fake" not in get(url, path)[1]


@pytest.mark.parametrize("path", ["/stats", "/metrics", "/", "/v1/draft"])
def test_a_page_whose_name_was_rebound_reads_nothing(path):
    """Where no token protects, only names of ours are answered; a probe may use any."""

    def ask(url: str, path: str, host: str) -> int:
        request = urllib.request.Request(url.replace("ws:", "http:") + path)
        request.add_header("Host", host)
        return _status(request)

    with served(FakeTarget(TABLE), names=["base.example"]) as url:
        assert get(url, "/stats")[0] == 200
        if path == "/v1/draft":
            assert asyncio.run(_upgraded(url, "evil.example")) == 421
            assert asyncio.run(_upgraded(url, "base.example:80")) == 101
        else:
            assert ask(url, path, "evil.example") == 421
            assert ask(url, path, "base.example:80") == 200
        for probe in ("/healthz", "/readyz"):
            assert ask(url, probe, "evil.example") == 200
    with served(FakeTarget(TABLE), tokens=tokens()) as url:
        assert ask(url, "/stats", "evil.example") == 401  # the token protects


def _status(request: urllib.request.Request) -> int:
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


async def _upgraded(url: str, host: str) -> int:
    address, port = url.removeprefix("ws://").split(":")
    reader, writer = await asyncio.open_connection(address, int(port))
    writer.write(
        f"GET /v1/draft HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    status = int((await reader.readline()).split()[1])
    writer.close()
    return status


def test_the_page_needs_nothing_from_elsewhere():
    page = resources.files("bs_runtime.serving").joinpath("page.html").read_text()

    class Links(HTMLParser):
        def handle_starttag(self, tag, attrs):
            for name, value in attrs:
                if name in ("src", "href", "action"):
                    assert value.startswith("data:"), (tag, value)

    Links().feed(page)
    assert not re.search(r"https?:|@import|url\(", page.replace("http://www.w3.org/2000/svg", ""))
    assert "innerHTML" not in page
    with served(FakeTarget(TABLE)) as url:
        _, served_page, headers = get(url, "/")
    assert served_page == page
    assert "default-src 'none'" in headers["content-security-policy"]


def test_not_ready_while_it_loads(caplog):
    with serving(None) as (url, server):
        assert get(url, "/healthz")[0] == 200
        status, text, headers = get(url, "/readyz")
        assert status == 503 and "loading" in text and headers["retry-after"] == "5"
        with pytest.raises(LinkError, match=r"loading.* try again in 5 s") as caught:
            asyncio.run(write(url))
        assert caught.value.retry_after_s == 5
        server._station.open(FakeTarget(TABLE))
        assert get(url, "/readyz")[0] == 200
        assert len(asyncio.run(write(url)).tokens) == 30
    assert not caplog.records  # a refusal is the device's to know, and no error


def test_a_device_that_goes_while_it_is_told_to_is_no_error():
    class Gone:
        application_state = client_state = WebSocketState.CONNECTED

        async def close(self, code: int, reason: str) -> None:
            raise WebSocketDisconnect(1006)

    asyncio.run(DeviceSocket(Gone(), None).close(1012, "the base station restarts"))


def test_no_more_sessions_than_there_is_room_for():
    async def run(url: str) -> None:
        async with fake_device(url, TABLE):
            assert get(url, "/readyz")[0] == 503
            with pytest.raises(LinkError, match=r"1 sessions, the most.* try again in 30 s"):
                await write(url)
        for _ in range(500):
            if get(url, "/readyz")[0] == 200:
                break
            await asyncio.sleep(0.01)
        await write(url)

    with served(FakeTarget(TABLE), sessions=1) as url:
        asyncio.run(run(url))


def test_a_device_waits_for_a_base_station_that_is_busy(monkeypatch):
    """When it comes back for a generation, busy is no end: it tries again when it was told to.

    However long that takes: its patience is for a base station that is not there.
    """
    monkeypatch.setattr("bs_runtime.serving.station.RESTART_S", 0)

    async def run(url: str, server) -> None:
        device = fake_device(url, TABLE)
        device.patience_s = 0.05
        async with device:
            given = {"max_tokens": 9, "gamma": 4, "mode": "stop-and-wait", "seed": 1}
            first = [t.id async for t in device.generate(PROMPT, **given)]
            station = server._station
            station.stopping = True
            await device.client.socket.close()
            again = device.generate(PROMPT, **given)
            asyncio.get_running_loop().call_later(0.3, setattr, station, "stopping", False)
            assert [t.id async for t in again] == first
            assert device.client.reconnects == 1 and station.stats.meter.counts.refused["busy"]

    with serving(FakeTarget(TABLE)) as (url, server):
        asyncio.run(run(url, server))


def test_draining_ends_a_stream_between_two_tokens_and_it_goes_on_elsewhere():
    """The device is told to come back, and its text is the undisturbed one."""
    options = {"mode": "stream", "sampling": Sampling(temperature=0.9)}
    with served(FakeTarget(TABLE)) as url:
        alone = asyncio.run(write(url, 200, **options)).tokens

    async def run(url: str, station) -> list[int]:
        loop = asyncio.get_running_loop()
        async with fake_device(url, TABLE) as device:
            generation = device.generate(PROMPT, max_tokens=200, seed=3, **options)
            seen = []
            async for token in generation:
                seen.append(token.id)
                if len(seen) == 20:
                    assert station._links
                    stop = asyncio.run_coroutine_threadsafe(station.drain(5.0), loops[0])
                    await loop.run_in_executor(None, stop.result)
                    assert not station._links
                    station.stopping = False  # as the next process would
            assert device.client.reconnects == 1
            return seen

    loops = []

    class Watched(FakeTarget):
        def open(self):
            loops.append(asyncio.get_running_loop())
            return super().open()

    with serving(Watched(TABLE)) as (url, server):
        assert asyncio.run(run(url, server._station)) == alone


def test_tls(certificate):
    chain, key, signer = certificate

    async def run(url: str) -> None:
        device = fake_device(url, TABLE)
        device._connect = connector(PHONE, signer)
        async with device:
            assert (
                len([t async for t in device.generate(PROMPT, mode="stop-and-wait", max_tokens=20)])
                == 20
            )
        stranger = fake_device(url, TABLE)
        with pytest.raises(LinkError, match=r"is not trusted \(.*--ca FILE"):
            await stranger.open()
        clear = fake_device(url.replace("wss:", "ws:"), TABLE)
        with pytest.raises(LinkError, match="no base station at"):
            await clear.open()

    with serving(FakeTarget(TABLE), tls=tls_context(chain, key), tokens=tokens()) as (url, _):
        assert url.startswith("wss:")
        asyncio.run(run(url))


def test_files_that_are_no_certificates(certificate, tmp_path):
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("nothing")
    with pytest.raises(ValueError, match="no PEM certificate and its key"):
        tls_context(wrong, certificate[1])
    with pytest.raises(ValueError, match="holds no PEM certificates"):
        connector(None, wrong)
    with pytest.raises(ValueError, match="holds no PEM certificates"):
        connector(None, tmp_path / "none.pem")
    assert tls_context(*certificate[:2]).minimum_version >= ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize(
    ("host", "given", "words"),
    [
        ("127.0.0.1", {}, None),
        ("127.9.9.9", {}, None),
        ("::1", {}, None),
        ("localhost", {}, None),
        ("0.0.0.0", {}, "--tokens FILE"),
        ("::", {"tls": True}, "--tokens FILE"),
        ("base.example", {}, "--tokens FILE"),
        ("10.0.0.1", {"tokens": True}, "--tls-cert"),
        ("10.0.0.1", {"tokens": True, "tls": True}, None),
        ("0.0.0.0", {"insecure": True}, None),
    ],
)
def test_what_other_machines_can_reach_is_safe_or_asked_for(host, given, words):
    given = {"tokens": False, "tls": False, "insecure": False, **given}
    if words is None:
        check_exposure(host, **given)
    else:
        with pytest.raises(ValueError, match=words):
            check_exposure(host, **given)


def test_the_model_is_in_nobodys_way_and_nobody_in_its(monkeypatch):
    """The collector would look at it for a third of a second, now and then, and stop the loop.

    The second look finds nothing, and so lets the next ones come soon and be short. The loop, if it
    is busy, would keep the interpreter from it for 5 ms at each operation.
    """
    done = []
    monkeypatch.setattr(sys, "setswitchinterval", lambda seconds: done.append(seconds))
    monkeypatch.setattr(gc, "collect", lambda: done.append("collected"))
    monkeypatch.setattr(gc, "freeze", lambda: done.append("frozen"))
    monkeypatch.setattr(gc, "set_threshold", lambda *counts: done.append(counts))

    def load():
        done.append("loaded")
        return FakeTarget(TABLE)

    def ready(target):
        done.append("ready")
        signal.raise_signal(signal.SIGTERM)

    serve(create_app(), load, ready, listen("127.0.0.1", 0), stop_s=0.0)
    look = ["collected", "frozen", "collected", COLLECTED]
    assert done == [0.0005, "loaded", *look, "ready"]

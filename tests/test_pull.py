"""A bundle from a base station, over TLS with a token: cut, changed, refused, and hostile."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from bs_runtime.operations.limits import Limits, Tenant
from bs_runtime.serving import downloads
from bs_runtime.serving.auth import Tokens
from bs_runtime.serving.offer import Offered, OfferError, span
from bs_runtime.serving.server import tls_context
from device_runtime.model.bundle import GRAPH, MANIFEST
from device_runtime.pull import ATTEMPTS, ask, pull
from device_runtime.transport.connecting import LinkError, Lost
from device_runtime.transport.fetch import Station
from draftlink.host import offered
from tests.bundles import fake_bundle
from tests.fake_models import fake_device, random_logits
from tests.fakes import FakeTarget, served, serving

TOKEN, OPS, SIZE = "the-phone-s-own-token", "the-operator-s-token", 300_000


def tokens() -> Tokens:
    each = ((OPS, "ops", True), (TOKEN, "phone", False))
    return Tokens(
        tuple(
            (hashlib.sha256(token.encode()).digest(), Tenant(name, Limits(), operator=operator))
            for token, name, operator in each
        )
    )


class Cutting:
    """A way to a server that ends each connection behind so many of the server's bytes."""

    def __init__(self, url: str, places: list[int]) -> None:
        address = urlsplit(url)
        self._to = (address.hostname, address.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"{address.scheme}://127.0.0.1:{self._listener.getsockname()[1]}"
        self.places = places
        self.connections = self.carried = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self.connections += 1
                left = self.places.pop(0) if self.places else None
                threading.Thread(target=self._carry, args=(near, left), daemon=True).start()

    def _carry(self, near: socket.socket, left: int | None) -> None:
        far = socket.create_connection(self._to)
        up = threading.Thread(target=self._pump, args=(near, far), daemon=True)
        up.start()
        with contextlib.suppress(OSError):
            while data := far.recv(1 << 14):
                data = data[:left]
                self.carried += len(data)
                near.sendall(data)
                if left is not None and (left := left - len(data)) <= 0:
                    break
        for end in (near, far):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        up.join()
        near.close()
        far.close()

    @staticmethod
    def _pump(near: socket.socket, far: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := near.recv(1 << 14):
                far.sendall(data)


@pytest.fixture
def bundle_folder(tmp_path) -> Path:
    return fake_bundle(tmp_path / "small-draft", SIZE)


@contextlib.contextmanager
def offering(folder: Path, certificate) -> Iterator[tuple[str, dict]]:
    """A base station over TLS that wants a token: its address, and what a device needs for it."""
    chain, key, signer = certificate
    target = FakeTarget(random_logits(1, 20))
    options = {"tokens": tokens(), "offer": Offered(folder)}
    with served(target, tls=tls_context(chain, key), **options) as url:
        yield url, {"token": TOKEN, "ca": signer}


def no_pause(seconds: float) -> None:
    assert 0.0 < seconds <= 5.0


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_cut_at_twenty_places_it_goes_on_at_the_byte(bundle_folder, certificate, tmp_path):
    rng = random.Random(5)
    with offering(bundle_folder, certificate) as (url, given):
        way = Cutting(url, [])
        station = Station(way.url, **given)
        offer = ask(station)
        # Of all that comes, handshakes and heads included: from the first byte on.
        way.places += [1, 700, *(rng.randrange(3_000, SIZE // 8) for _ in range(18))]
        way.carried = way.connections = 0
        taken = pull(station, offer, tmp_path / "taken", pause=no_pause)
        way.close()
    assert not way.places and way.connections >= 21
    assert way.carried < SIZE + 25 * 8_000  # what was here never came again: a TLS handshake each
    assert contents(taken.path) == contents(bundle_folder)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_what_was_given_up_is_gone_on_with_by_the_next_command(
    bundle_folder, certificate, tmp_path
):
    with offering(bundle_folder, certificate) as (url, given):
        way = Cutting(url, [])
        station = Station(way.url, **given)
        offer = ask(station)
        way.places += [100_000, 100_000, *[100] * 2 * ATTEMPTS]
        with pytest.raises(LinkError, match="what has come is kept: pull again"):
            pull(station, offer, tmp_path / "taken", pause=no_pause)
        assert not (tmp_path / "taken").exists()
        way.places.clear()
        way.carried = 0
        told = []
        pull(station, offer, tmp_path / "taken", lambda *one: told.append(one), no_pause)
        way.close()
    assert way.carried < SIZE - 50_000
    assert told[-1][1] == told[-1][2]
    assert contents(tmp_path / "taken") == contents(bundle_folder)


@pytest.mark.parametrize("name", [MANIFEST, GRAPH])
def test_a_changed_byte_is_refused(bundle_folder, certificate, tmp_path, name):
    """Changed on the base station's disk after it was offered, or anywhere on the way."""
    with offering(bundle_folder, certificate) as (url, given):
        station = Station(url, **given)
        offer = ask(station)
        with (bundle_folder / name).open("r+b") as file:
            file.seek(10)
            byte = file.read(1)
            file.seek(10)
            file.write(bytes([byte[0] ^ 1]))
        with pytest.raises(LinkError, match="its checksum differs"):
            pull(station, offer, tmp_path / "taken", pause=no_pause)
        assert not (tmp_path / "taken").exists()
        with (bundle_folder / name).open("r+b") as file:  # the control: as it was, it is taken
            file.seek(10)
            file.write(byte)
        pull(station, offer, tmp_path / "taken", pause=no_pause)


def test_a_changed_byte_of_a_part_that_was_here_is_refused(bundle_folder, certificate, tmp_path):
    with offering(bundle_folder, certificate) as (url, given):
        way = Cutting(url, [])
        station = Station(way.url, **given)
        offer = ask(station)
        way.places += [100_000, 100_000, *[100] * 2 * ATTEMPTS]
        with pytest.raises(LinkError):
            pull(station, offer, tmp_path / "taken", pause=no_pause)
        way.places.clear()
        way.close()
        (graph,) = tmp_path.glob(f".taken.partial-*/{GRAPH}")
        data = bytearray(graph.read_bytes())
        assert 0 < len(data) < SIZE
        data[len(data) // 2] ^= 1
        graph.write_bytes(data)
        station = Station(url, **given)
        with pytest.raises(LinkError, match="its checksum differs"):
            pull(station, offer, tmp_path / "taken", pause=no_pause)
        pull(station, offer, tmp_path / "taken", pause=no_pause)  # it begins anew


@pytest.mark.parametrize(
    ("token", "words"),
    [(None, "a bearer token is needed"), ("another-token-of-16", "may not"), (OPS, "may not")],
)
def test_without_the_token_nothing_is_told_or_sent(bundle_folder, certificate, token, words):
    with offering(bundle_folder, certificate) as (url, given):
        offer = ask(Station(url, **given))
        station = Station(url, **given | {"token": token})
        with pytest.raises(LinkError, match=words):
            ask(station)
        file = offer.files[GRAPH]
        with (
            pytest.raises(LinkError, match=words),
            station.get(f"{offered.PATH}/{file.sha256}"),
        ):
            pass


def test_where_nothing_is_offered_it_is_told_what_to_do():
    refused = pytest.raises(LinkError, match=r"offers no bundle; .*--offer BUNDLE")
    with served(FakeTarget(random_logits(1, 20))) as url, refused as caught:
        ask(Station(url))
    assert "no base station" not in str(caught.value)


def test_a_certificate_that_nobody_vouches_for_is_refused(bundle_folder, certificate):
    with (
        offering(bundle_folder, certificate) as (url, _),
        pytest.raises(LinkError, match="not trusted"),
    ):
        ask(Station(url, token=TOKEN))


def test_a_token_does_not_cross_a_network_in_clear():
    with pytest.raises(LinkError, match="in clear"):
        Station("ws://base.example:8765", token=TOKEN)
    Station("ws://base.example:8765", token=TOKEN, insecure=True)
    Station("https://base.example", token=TOKEN)


@pytest.mark.parametrize(
    ("header", "size", "part"),
    [
        (None, 10, (0, 10)), ("bytes=0-", 10, (0, 10)), ("bytes=4-", 10, (4, 10)),
        ("bytes=4-5", 10, (4, 6)), ("bytes=4-99", 10, (4, 10)), ("bytes=10-", 10, None),
        ("bytes=-3", 10, (0, 10)), ("bytes=1-2,4-5", 10, (0, 10)), ("bytes=5-4", 10, None),
        ("lines=1-2", 10, (0, 10)), ("bytes=" + "9" * 400 + "-", 10, (0, 10)),
    ],
)  # fmt: skip
def test_ranges(header, size, part):
    assert span(header, size) == part


@pytest.mark.parametrize(
    "path",
    [
        "/../../etc/passwd", "/%2e%2e%2fmanifest.json", "/..%2f..%2fetc%2fpasswd", "/manifest.json",
        "/" + "0" * 64, "/", "/" + "a" * 5000,
    ],
)  # fmt: skip
def test_nothing_but_the_bundle_s_files_is_there(bundle_folder, certificate, path):
    (bundle_folder / "secret").write_text("not listed")
    with offering(bundle_folder, certificate) as (url, given):
        station = Station(url, **given)
        assert set(ask(station).files) == {MANIFEST, GRAPH, "tokenizer.json"}
        with pytest.raises(LinkError), station.get(offered.PATH + path):
            pass


def test_a_link_out_of_the_folder_is_not_offered(bundle_folder, tmp_path):
    (bundle_folder / GRAPH).rename(tmp_path / "elsewhere")
    (bundle_folder / GRAPH).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OfferError, match="cannot be offered"):
        Offered(bundle_folder)


def test_what_is_offered_is_of_the_target_s_tokenizer(tmp_path):
    with pytest.raises(OfferError, match="has another tokenizer than the target"):
        Offered(fake_bundle(tmp_path / "one", 10)).check("another")


def test_downloads_have_limits_and_cost_no_session(bundle_folder, certificate, monkeypatch):
    """Who holds all that it may have is told to come again; what it holds ends with it."""
    monkeypatch.setattr(downloads, "MOST_EACH", 1)
    big = fake_bundle(bundle_folder.parent / "big", 1 << 25)
    with offering(big, certificate) as (url, given):
        station = Station(url, **given)
        path = f"{offered.PATH}/{ask(station).files[GRAPH].sha256}"
        with station.get(path) as answer:
            assert answer.read(10)
            with (
                pytest.raises(Exception, match="as many downloads as may be") as caught,
                station.get(path),
            ):
                pass
            assert caught.value.retry_after_s == downloads.AGAIN_S
            ask(station)  # what is offered is still told
        for _ in range(200):  # the base station has noticed that it went
            with contextlib.suppress(Exception), station.get(path) as answer:
                assert answer.read(10)
                break
        else:
            pytest.fail("a place is not given back")


def test_a_download_is_not_ended_as_a_stranger_is_nor_does_it_end_a_device(tmp_path):
    """It keeps no place among the pending, and devices are served beside it."""
    big = fake_bundle(tmp_path / "big", 1 << 24)
    table = random_logits(1, 20)

    async def written(url: str) -> list[int]:
        async with fake_device(url, table) as device:
            generation = device.generate([1, 2, 3], max_tokens=20, seed=3)
            async for _ in generation:
                pass
            return generation.result.tokens

    with serving(FakeTarget(table), offer=Offered(big), sessions=1) as (url, server):
        station = Station(url)
        path = f"{offered.PATH}/{ask(station).files[GRAPH].sha256}"
        with station.get(path) as one, station.get(path) as other:
            assert one.read(10) and other.read(10)
            assert len(server.pending) == 0
            assert len(asyncio.run(written(url))) == 20
            assert one.read(10) and other.read(10)


def test_who_takes_nothing_loses_its_place(tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "STALL_S", 0.05)
    monkeypatch.setattr(downloads, "MOST_EACH", 1)
    big = fake_bundle(tmp_path / "big", 1 << 25)
    with served(FakeTarget(random_logits(1, 20)), offer=Offered(big)) as url:
        station = Station(url)
        path = f"{offered.PATH}/{ask(station).files[GRAPH].sha256}"
        with station.get(path) as held:
            assert held.read(10)
            for _ in range(500):
                with contextlib.suppress(Lost), station.get(path) as answer:
                    assert answer.read(10)
                    break
            else:
                pytest.fail("its place is kept")

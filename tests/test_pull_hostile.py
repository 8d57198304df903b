"""What a base station offers is a stranger's word: names, sizes, checksums, answers."""

from __future__ import annotations

import contextlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bs_runtime.serving.offer import Offered
from device_runtime.model.bundle import GRAPH, MANIFEST, BundleError
from device_runtime.pull import ask, pull
from device_runtime.transport.connecting import LinkError
from device_runtime.transport.fetch import Station
from draftlink.host import offered
from draftlink.host.files import FileError
from draftlink.host.offered import Offer, OfferedFile, OfferError
from tests.bundles import fake_bundle
from tests.test_pull import SIZE, TOKEN, no_pause


@pytest.fixture
def bundle_folder(tmp_path) -> Path:
    return fake_bundle(tmp_path / "small-draft", SIZE)


GOOD = OfferedFile("0" * 64, 10)
ABSURD = [
    Offer(2, "name", {MANIFEST: GOOD}),
    Offer(1, "../name", {MANIFEST: GOOD}),
    Offer(1, ".name", {MANIFEST: GOOD}),
    Offer(1, "con", {MANIFEST: GOOD}),
    Offer(1, "a\x1b[2J", {MANIFEST: GOOD}),
    Offer(1, "name", {}),
    Offer(1, "name", {GRAPH: GOOD}),
    Offer(1, "name", {MANIFEST: GOOD, "../../.bashrc": GOOD}),
    Offer(1, "name", {MANIFEST: GOOD, "/etc/passwd": GOOD}),
    Offer(1, "name", {MANIFEST: GOOD, "a\\b": GOOD}),
    Offer(1, "name", {MANIFEST: GOOD, ".lock": GOOD}),
    Offer(1, "name", {MANIFEST: GOOD, "Manifest.json": GOOD}),
    Offer(1, "name", {MANIFEST: OfferedFile("0" * 64, -1)}),
    Offer(1, "name", {MANIFEST: OfferedFile("0" * 64, 1 << 50)}),
    Offer(1, "name", {MANIFEST: OfferedFile("../x", 10)}),
    Offer(1, "name", {MANIFEST: OfferedFile("0" * 64, 1 << 21)}),
    Offer(1, "name", {MANIFEST: GOOD} | {f"f{i}": GOOD for i in range(offered.MOST_FILES)}),
]


@pytest.mark.parametrize("offer", ABSURD, ids=range(len(ABSURD)))
def test_offers_that_cannot_be_taken(offer):
    with pytest.raises(OfferError) as caught:
        offered.decode(offered.encode(offer))
    assert "\n" not in str(caught.value)
    assert offered.decode(offered.encode(Offer(1, "name", {MANIFEST: GOOD, "a.b-c_1": GOOD})))


@contextlib.contextmanager
def hostile(answers: dict[str, tuple[int, dict[str, str], bytes]]) -> Iterator[tuple[str, list]]:
    """A server that answers what it likes; the headers that it was asked with."""
    asked: list = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, dict(self.headers)))
            status, headers, body = answers.get(self.path, (404, {}, b"no"))
            self.send_response(status)
            for name, value in {"content-length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"ws://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


def test_a_redirect_is_not_followed(tmp_path):
    with hostile({}) as (elsewhere, asked_there):
        to = {"location": elsewhere.replace("ws", "http") + offered.PATH}
        with (
            hostile({offered.PATH: (302, to, b"")}) as (url, asked),
            pytest.raises(LinkError, match=r"redirects to .* which is not followed"),
        ):
            ask(Station(url, token=TOKEN))
        assert len(asked) == 1 and asked[0][1]["Authorization"] == f"Bearer {TOKEN}"
        assert asked_there == []


def lying(folder: Path, **changes: tuple[int, dict[str, str], bytes]) -> tuple[Offer, dict]:
    """A bundle's offer, and the answers of a server that has it but for ``changes``."""
    given = Offered(folder)
    answers = {offered.PATH: (200, {}, offered.encode(given.offer))}
    for name, file in given.offer.files.items():
        body = (folder / name).read_bytes()
        answers[f"{offered.PATH}/{file.sha256}"] = changes.get(name, (200, {}, body))
    return given.offer, answers


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((200, {}, b"short"), "in another size"),
        ((200, {"content-length": str(SIZE + 1)}, bytes(SIZE + 1)), "in another size"),
        ((206, {"content-range": f"bytes 5-{SIZE - 1}/{SIZE}"}, bytes(SIZE - 5)), "in another"),
        ((206, {}, bytes(SIZE)), "did not say which"),
        ((206, {"content-range": "bytes 0-3/9"}, bytes(SIZE)), "did not say which"),
        ((200, {}, bytes(SIZE)), "its checksum differs"),
        ((302, {"location": "http://elsewhere/\x1b[2J"}, b""), "not followed"),
        ((500, {}, b"no"), "does not go on"),
    ],
)
def test_a_server_that_lies_is_not_believed(tmp_path, bundle_folder, answer, words):
    offer, answers = lying(bundle_folder, **{GRAPH: answer})
    with hostile(answers) as (url, _):
        station = Station(url)
        assert ask(station) == offer
        with pytest.raises(LinkError, match=words) as caught:
            pull(station, offer, tmp_path / "taken", pause=no_pause)
    assert "\x1b" not in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "taken").exists()


def test_a_manifest_that_tells_of_other_files_ends_it_before_they_come(tmp_path, bundle_folder):
    offer, answers = lying(bundle_folder)
    more = Offer(1, offer.name, {**offer.files, "extra.bin": OfferedFile("1" * 64, 5)})
    with hostile(answers) as (url, asked), pytest.raises(BundleError, match="other files"):
        pull(Station(url), more, tmp_path / "taken", pause=no_pause)
    assert [path for path, _ in asked] == [f"{offered.PATH}/{offer.files[MANIFEST].sha256}"]
    assert [path.name for path in tmp_path.iterdir()] == ["small-draft"]  # nothing is left of it


def test_more_than_the_disk_has_is_refused_before_it_comes(tmp_path, bundle_folder):
    offer, answers = lying(bundle_folder)
    huge = Offer(1, offer.name, {**offer.files, GRAPH: OfferedFile("1" * 64, 1 << 39)})
    with hostile(answers) as (url, asked), pytest.raises(FileError, match="are free"):
        pull(Station(url), huge, tmp_path / "taken", pause=no_pause)
    assert asked == []

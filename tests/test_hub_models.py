"""A model of the hub comes whole, is gone on with where it broke off, or is not there.

The hub is a server on this machine that answers as the real one does.
"""

from __future__ import annotations

import hashlib
import http.server
import json
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import huggingface_hub.file_download
import huggingface_hub.hf_api
import pytest

from bs_runtime.checkpoint import download
from bs_runtime.checkpoint import hub as asking
from bs_runtime.checkpoint.errors import CheckpointError

MODEL, COMMIT = "someone/tiny", "0" * 40
FILES = {
    "config.json": b"{}",
    "model.safetensors": random.Random(1).randbytes(300_000),
    "tokenizer.json": b"{}",
    "pytorch_model.bin": b"pickled",
    "onnx/model.onnx": b"another format",
    ".gitattributes": b"",
}


class Hub:
    """Answers for one model; ``broken``: downloads that end in the middle of the weights."""

    def __init__(self) -> None:
        self.broken = 0
        self.sent: list[tuple[str, str | None]] = []  # files, and the ranges that were asked for
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                self.do_GET()

            def do_GET(self) -> None:
                hub.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        path = request.path.partition("?")[0]
        if path.startswith("/api/models/"):
            if MODEL not in path:
                self._say(request, 404, b"{}", {"x-error-code": "RepoNotFound"})
                return
            listed = [{"rfilename": name, "size": len(data)} for name, data in FILES.items()]
            about = {"id": MODEL, "sha": COMMIT, "siblings": listed}
            self._say(request, 200, json.dumps(about).encode(), {})
            return
        name = path.rpartition(f"/resolve/{COMMIT}/")[2]
        data = FILES[name]
        tag = hashlib.sha256(data).hexdigest()
        headers = {"etag": f'"{tag}"', "x-repo-commit": COMMIT, "accept-ranges": "bytes"}
        if request.command == "HEAD":
            self._say(request, 200, data, headers)
            return
        wanted = request.headers.get("range")
        self.sent.append((name, wanted))
        begin = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        if begin:
            headers["content-range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
        self._say(request, 206 if begin else 200, data[begin:], headers, cut=name[-6:] == "ensors")

    def _say(
        self,
        request: http.server.BaseHTTPRequestHandler,
        status: int,
        body: bytes,
        headers: dict[str, str],
        *,
        cut: bool = False,
    ) -> None:
        request.send_response(status)
        for name, value in {"content-length": str(len(body)), **headers}.items():
            request.send_header(name, value)
        request.end_headers()
        if request.command == "HEAD":
            return
        if cut and self.broken:
            self.broken -= 1
            request.wfile.write(body[: len(body) // 2])
            request.close_connection = True
        else:
            request.wfile.write(body)


@pytest.fixture
def hub(monkeypatch) -> Iterator[Hub]:
    made = Hub()
    thread = threading.Thread(target=made.server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    template = made.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", made.url)
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(huggingface_hub.file_download, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 10_000)
    asking._asked.clear()
    try:
        yield made
    finally:
        made.server.shutdown()
        made.server.server_close()


def test_what_is_read_of_a_model_comes_and_nothing_else(hub, tmp_path):
    place = tmp_path / "hub" / "someone--tiny"
    told = []
    assert download.fetch(MODEL, place, lambda *one: told.append(one)) == place
    wanted = {"config.json", "model.safetensors", "tokenizer.json"}
    assert {path.name for path in place.iterdir()} == wanted
    assert all((place / name).read_bytes() == FILES[name] for name in wanted)
    assert told[0] == (MODEL, sum(len(FILES[name]) for name in wanted), 0)
    with pytest.raises(CheckpointError, match="is there already"):
        download.fetch(MODEL, place)


def test_what_broke_off_is_gone_on_with(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.file_download.time, "sleep", lambda seconds: None)
    place = tmp_path / "tiny"
    hub.broken = 50
    with pytest.raises(CheckpointError, match="pull again to go on") as caught:
        download.fetch(MODEL, place)
    assert "\n" not in str(caught.value) and not place.exists()
    hub.broken = 0
    hub.sent.clear()
    download.fetch(MODEL, place)
    assert (place / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    assert [name for name, _ in hub.sent] == ["model.safetensors"]  # the others were here
    assert hub.sent[0][1] is not None  # and of this one what was missing


def test_a_model_that_is_not_there_is_one_line(hub, tmp_path):
    with pytest.raises(CheckpointError, match="the Hugging Face hub does not give it") as caught:
        download.fetch("someone/else", tmp_path / "else")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("model-00001-of-2.safetensors", True), ("../x.json", False), ("a/b.json", False),
        ("..\\x.json", False), (".hidden.json", False), ("modeling.py", False),
        ("chat_template.jinja", True), ("weights.bin", False),
    ],
)  # fmt: skip
def test_names_come_from_a_hub(name, wanted):
    assert download.is_wanted(name) == wanted


def test_a_disk_without_room_is_told_before_anything_comes(hub, tmp_path, monkeypatch):
    usage = download.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(CheckpointError, match="has no room"):
        download.fetch(MODEL, Path(tmp_path / "tiny"))
    assert hub.sent == []

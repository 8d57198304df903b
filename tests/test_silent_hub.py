"""A hub that accepts a connection and never answers is given up in a time that a user waits for."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import huggingface_hub.constants
import huggingface_hub.hf_api
import pytest

from bs_runtime.checkpoint import hub as asking
from bs_runtime.checkpoint.errors import CheckpointError
from bs_runtime.model.errors import TargetError
from bs_runtime.model.target import Target
from draftlink.host import children
from export import ExportError, source

NOBODYS = "nonexistent/name"
PATIENCE_S = asking.PATIENCE_S
SHORT_S, SLACK_S = 0.5, 2.0  # for a machine that has other things to do


@contextmanager
def silent(drip: bytes = b"") -> Iterator[str]:
    """The address of a server that never answers; or a byte at a time, as long as it is heard."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        heard: list[socket.socket] = []
        over = threading.Event()

        def serve() -> None:
            while True:
                try:
                    heard.append(server.accept()[0])
                except OSError:
                    return
                while drip and not over.wait(0.2):
                    try:
                        heard[-1].send(drip)
                    except OSError:
                        break

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}"
        finally:
            over.set()
            server.shutdown(socket.SHUT_RDWR)
            for each in heard:
                each.close()
            thread.join(10)


@pytest.fixture(params=[b"", b"H"], ids=["silent", "a byte at a time"])
def hub(request, monkeypatch) -> Iterator[str]:
    with silent(request.param) as address:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
        monkeypatch.setattr(huggingface_hub.hf_api.constants, "ENDPOINT", address)
        monkeypatch.setattr(asking, "PATIENCE_S", SHORT_S)
        yield address


def test_it_is_given_up(hub):
    """A command has 10 s, of which PyTorch's import takes 4 or less, at the same time."""
    assert PATIENCE_S <= 3.0
    begun = time.monotonic()
    assert not asking.hub_answers(NOBODYS)
    assert SHORT_S / 2 < time.monotonic() - begun < SHORT_S + SLACK_S


def test_who_asked_before_waits_less(hub):
    asking.ask(NOBODYS)
    time.sleep(SHORT_S)  # as importing PyTorch does
    begun = time.monotonic()
    assert not asking.hub_answers(NOBODYS)
    assert time.monotonic() - begun < SHORT_S / 2
    asking.ask(__file__)  # a path is not the hub's
    assert asking._asked == {}


def test_without_the_hub_a_command_ends_unless_the_model_is_kept_here(hub, monkeypatch, tmp_path):
    begun = time.monotonic()
    with pytest.raises(CheckpointError, match="it does not answer") as caught:
        asking.need(NOBODYS)
    assert time.monotonic() - begun < SHORT_S + SLACK_S
    assert "\n" not in str(caught.value)

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    kept = tmp_path / "models--someone--else"
    snapshot = kept / "snapshots" / "1" / asking.ANY_MODELS
    for path, text in ((snapshot, "{}"), (kept / "refs" / "main", "1")):
        path.parent.mkdir(parents=True)
        path.write_text(text)
    begun = time.monotonic()
    asking.need("someone/else")
    assert time.monotonic() - begun < SHORT_S / 2  # whoever loads it waits, meanwhile
    assert not asking.hub_answers("someone/else")


@pytest.mark.parametrize(
    "command",
    [
        ("export", NOBODYS, "-o", "nowhere"),
        ("export", "tinypair", "-o", "nowhere", "--target", NOBODYS),
        ("bs", NOBODYS, "--port", "0"),
        ("pull", NOBODYS),
    ],
)
def test_a_command_says_so_before_it_imports_pytorch(command):
    """It takes longer than the hub is given."""
    program = (
        "import sys\n"
        "from draftlink.cli import main\n"
        "try:\n    main()\n"
        "finally:\n    print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *command],
        env=children.environment() | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (1, "[]\n")
    assert "the Hugging Face hub does not give it (it does not answer)" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("load", "error", "words"),
    [
        (source.load, ExportError, "the Hugging Face hub does not give it (it does not answer)"),
        (Target.load, TargetError, "or a hub id that this machine can reach"),
    ],
)
def test_loading_says_so_in_a_line_within_seconds(hub, load, error, words):
    begun = time.monotonic()
    with pytest.raises(error) as caught:
        load(NOBODYS)
    assert time.monotonic() - begun < SHORT_S + SLACK_S
    assert words in str(caught.value) and "\n" not in str(caught.value)

"""A base station as a real process: what a signal does to texts and to the exit code."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from device_runtime.device import Device, Sampling
from device_runtime.transport.connecting import LinkError

TOKEN = "a-token-for-the-real-process"


@contextmanager
def station(model: str, *options: str) -> Iterator[tuple[subprocess.Popen, str, list[str]]]:
    """The process, its address, and the lines of its log."""
    command = [sys.executable, "-m", "draftlink.cli", "bs", model, *options]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, **pipes)
    lines: list[str] = []
    reader = threading.Thread(target=lambda: lines.extend(process.stderr), daemon=True)
    reader.start()
    try:
        yield process, process.stdout.readline().split()[2], lines
    finally:
        process.kill()
        process.wait(20)
        reader.join(20)


def device(bundle, url: str) -> Device:
    return Device(bundle, url, token=TOKEN)


def options(tmp_path, port: str = "0") -> list[str]:
    path = tmp_path / "tokens"
    path.write_text(f"{TOKEN} phone\n")
    key = str(tmp_path / "ticket.key")
    given = ["--tokens", str(path), "--log-format", "json", "--ticket-key", key]
    # An unpaced toy writes its whole text before a signal can reach the process.
    return ["--port", port, "--pace-target", "20ms", *given]


@pytest.mark.parametrize("mode", ["stream", "stop-and-wait"])
def test_a_text_goes_on_over_a_stop_and_a_restart(bundle, model_folder, tmp_path, mode):
    folder, model = bundle().path, str(model_folder("llama"))
    given = {"max_tokens": 60, "seed": 5, "sampling": Sampling(temperature=0.8), "mode": mode}

    async def write(url: str, stop=None) -> list[int]:
        async with device(folder, url) as opened:
            seen = []
            async for token in opened.generate("a boat", gamma=3, **given):
                seen.append(token.id)
                if stop is not None and len(seen) == 10:
                    await asyncio.get_running_loop().run_in_executor(None, stop)
            assert opened.client.reconnects == (stop is not None)
            return seen

    with station(model, *options(tmp_path)) as (first, url, lines):
        alone = asyncio.run(write(url))
        port = url.rsplit(":", 1)[1]
        seconds = []

        def stop_and_restart() -> None:
            first.send_signal(signal.SIGTERM)
            first.wait(20)
            seconds.append(first.returncode)
            restarted.append(station(model, *options(tmp_path, port)))
            restarted[0].__enter__()

        restarted: list = []
        try:
            assert asyncio.run(write(url, stop_and_restart)) == alone
        finally:
            for one in restarted:
                one.__exit__(None, None, None)
        assert seconds == [0]
    entries = [json.loads(line) for line in lines]  # every line is an object
    begun = [entry for entry in entries if entry["event"] == "generation begins"]
    assert all(entry["request"].endswith("-1") and entry["tenant"] == "phone" for entry in begun)
    assert len({entry["request"] for entry in begun}) == 2
    assert [entry["event"] for entry in entries].count("stopping") == 1
    assert not any("boat" in line or TOKEN in line for line in lines)


def test_sigint_exits_0_and_strangers_are_told(bundle, model_folder, tmp_path):
    with station(str(model_folder("llama")), *options(tmp_path)) as (process, url, _):
        ready = urllib.request.urlopen(url.replace("ws:", "http:") + "/readyz", timeout=20)
        assert ready.status == 200
        with pytest.raises(LinkError, match="DRAFTLINK_TOKEN"):
            asyncio.run(Device(bundle().path, url, token="some-other-token").open())
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0


def test_a_signal_while_the_model_loads(model_folder, tmp_path):
    command = [sys.executable, "-m", "draftlink.cli", "bs", str(model_folder("llama"))]
    process = subprocess.Popen(
        [*command, *options(tmp_path)], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) in (0, -signal.SIGTERM)  # before Python looks for signals it just ends
    assert "Traceback" not in process.stderr.read()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--host", "0.0.0.0"], 1, "--tokens FILE"),
        (["--tls-cert", "x.pem"], 2, "go together"),
        (["--tls-cert", "x.pem", "--tls-key", "y.pem"], 1, "no PEM certificate"),
        (["--tokens", "./no-such-file"], 1, "cannot be read"),
        (["--limit", "speed=1"], 1, "is no limit"),
        (["--log-format", "xml"], 2, "not text or json"),
    ],
)
def test_options_that_cannot_work(arguments, code, words):
    command = [sys.executable, "-m", "draftlink.cli", "bs", "tinypair", "--port", "0", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == code and words in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr

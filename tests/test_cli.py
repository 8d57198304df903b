"""The commands as a user runs them: bad input is one clear line and an exit code."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from urllib.parse import urlsplit

import pytest
from typer.testing import CliRunner

from draftlink.cli.common import app
from export import ExportError


def draftlink(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "draftlink.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["bs", "./no-such-model", "--port", "0"], "there is no folder"),
        (["export", "./no-such-model", "-o", "out"], "there is no folder"),
        (["device", "./no-such-bundle", "Hi"], "there is no folder no-such-bundle"),
    ],
)
def test_failures_are_one_line(arguments, words, tmp_path):
    done = draftlink(*arguments)
    assert done.returncode == 1
    assert words in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_device_failures_are_one_line(bundle):
    path = str(bundle().path)
    nobody = draftlink("device", path, "Hi", "--bs", "ws://127.0.0.1:9")
    assert nobody.returncode == 1
    assert "no base station at ws://127.0.0.1:9 (Connection refused); start one" in nobody.stderr
    address = draftlink("device", path, "Hi", "--bs", "nonsense")
    assert address.returncode == 1 and "not a WebSocket address" in address.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["export", "tinypair", "-o", "out", "--precision", "int3"],
        ["export", "tinypair", "-o", "out", "--graph", "square"],
        ["export", "tinypair", "-o", "out", "--effort", "high"],
        ["device"],
        ["device", "bundle", "Hi", "--sampling", "mine"],
    ],
)
def test_wrong_usage_is_exit_code_2(arguments):
    assert draftlink(*arguments).returncode == 2


def test_export_searches_unless_it_is_told_what_to_take(monkeypatch, tmp_path):
    asked = []

    def export(model, out, precision, **options):
        asked.append((precision, options["graph"]))
        raise ExportError("enough")

    monkeypatch.setattr("export.bundle.export_bundle", export)
    for more in ([], ["--precision", "int8"], ["--npu", "--calibrate", "text.txt"]):
        done = CliRunner().invoke(app, ["export", "tinypair", "-o", str(tmp_path / "out"), *more])
        assert str(done.exception) == "enough"
    assert asked == [("auto", "shared"), ("int8", "shared"), ("int8", "static")]


def test_export_by_hand(model_folder, tmp_path):
    """The portable graph, its manifest as JSON, and the device's word on it once it is corrupt."""
    out, told = tmp_path / "draft", tmp_path / "manifest.json"
    options = ["-o", str(out), "--graph", "portable", "--json", str(told), "--precision", "int8"]
    done = draftlink("export", str(model_folder("qwen2")), *options)
    assert done.returncode == 0, done.stderr
    assert "int8, portable graph" in done.stdout and "rollback exact" in done.stdout
    manifest = json.loads(told.read_text())
    assert manifest["graph"] == "portable" and manifest["check"]["passed"]
    (out / "model.onnx").write_bytes(b"")
    refused = draftlink("device", str(out), "Hi")
    assert refused.returncode == 1 and "is corrupt" in refused.stderr


def test_by_hand_in_two_terminals(bundle, model_folder, tmp_path):
    """The real processes: base station, device, JSON; and what a base station refuses."""
    folder = bundle().path
    model = str(model_folder("llama"))
    station = subprocess.Popen(
        [sys.executable, "-m", "draftlink.cli", "bs", model, "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        url = station.stdout.readline().split()[2]
        out = tmp_path / "result.json"
        options = ["--mode", "stop-and-wait", "--json", str(out)]
        done = draftlink(
            "device", str(folder), "a table", "--bs", url, "--max-tokens", "12", *options
        )
        assert done.returncode == 0, done.stderr
        result = json.loads(out.read_text())
        assert 1 <= len(result["tokens"]) <= 12
        assert result["uplink_bytes"] > result["uplink_payload_bits"] / 8 > 0
        texts = []  # greedy: the same model in the other graph says the same
        for draft in (folder, bundle(graph="portable").path):
            given = ["device", str(draft), "a", "--bs", url, "--temperature", "0", *options]
            assert draftlink(*given).returncode == 0
            texts.append(json.loads(out.read_text()))
        assert texts[0]["tokens"] == texts[1]["tokens"]
        assert texts[1]["accepted"] > 0
        for arguments, words in [
            ([""], "prompt is empty"),
            (["a boat " * 200], "the target's context is 128"),
            (["a", "--sampling", "target"], "the target's files suggest no sampling"),
            (["a", "--k", "5000"], "k must be between 1 and the vocabulary size"),
        ]:
            refused = draftlink("device", str(folder), *arguments, "--bs", url)
            assert refused.returncode == 1
            assert words in " ".join(refused.stderr.split())
            assert "Traceback" not in refused.stderr
    finally:
        station.terminate()
        station.wait(20)


def test_a_base_station_started_by_a_command_ends_with_it(model_folder):
    """Told to terminate, as by ``timeout`` or a service manager, a command leaves none behind."""
    code = (
        "import signal, sys\n"
        "from draftlink.cli.common import err\n"
        "from tinypair.loopback import base_station\n"
        "with base_station(err, sys.argv[1]) as url:\n"
        "    print(url, flush=True)\n"
        "    signal.pause()\n"
    )
    command = [sys.executable, "-c", code, str(model_folder("llama"))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        address = urlsplit(parent.stdout.readline().strip())
        with socket.create_connection((address.hostname, address.port), timeout=10):
            parent.terminate()
        assert parent.wait(30) == 128 + signal.SIGTERM
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address.hostname, address.port), timeout=10)

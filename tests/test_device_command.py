"""``draftlink device``: where the prompt comes from, and in which form the text goes out."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from bs_runtime.model.target import Target
from device_runtime.model.bundle import load_bundle
from tests.fakes import served

GREEDY = ("--temperature", "0", "--max-tokens", "8", "--threads", "1")
TEMPLATE = "{% for m in messages %}{{ bos_token }}{{ m.content }} {% endfor %}two"


@pytest.fixture(scope="module")
def folder(bundle, tmp_path_factory):
    """A bundle with a chat template, as an exporter finds one in a model's files."""
    source, path = bundle().path, tmp_path_factory.mktemp("chat") / "draft"
    path.mkdir()
    for file in source.iterdir():
        (path / file.name).write_bytes(file.read_bytes())
    manifest = json.loads((path / "manifest.json").read_text())
    assert manifest["tokens"]["eos_token"]  # the exporter names what templates may
    manifest["chat_template"] = TEMPLATE
    (path / "manifest.json").write_text(json.dumps(manifest))
    return path


@pytest.fixture(scope="module")
def url(model_folder):
    with served(Target.load(str(model_folder("llama")))) as url:
        yield url


def device(folder, url, *options: str, said: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "draftlink.cli", "device", str(folder), "--bs", url]
    return subprocess.run(
        [*command, *GREEDY, *options], input=said, capture_output=True, timeout=120
    )


def test_a_prompt_from_anywhere_is_the_same_prompt(folder, url, tmp_path):
    (tmp_path / "prompt.txt").write_bytes(b"a table")
    stated = device(folder, url, "a table", "--json", "-")
    assert stated.returncode == 0, stated.stderr
    result = json.loads(stated.stdout)  # and nothing else
    assert len(result["tokens"]) > 0 and result["prompt_tokens"] > 0
    for options, said in [
        (("-",), b"a table"),
        ((), b"a table"),
        (("--file", str(tmp_path / "prompt.txt")), b""),
    ]:
        done = device(folder, url, *options, "--quiet", said=said)
        assert done.returncode == 0 and done.stdout.decode() == result["text"]
        assert done.stderr == b""
    both = device(folder, url, "a table", "--file", str(tmp_path / "prompt.txt"))
    assert both.returncode == 2
    assert device(folder, url, said=b"\xff").returncode == 1


def test_tokens_as_lines_of_json(folder, url):
    done = device(folder, url, "a table", "--stream-json")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0 and set(lines[-1]) == {"result"}
    result = lines[-1]["result"]
    assert "".join(line["text"] for line in lines[:-1]) == result["text"]
    assert [line["id"] for line in lines[:-1]] == result["tokens"]
    assert {line["kind"] for line in lines[:-1]} <= {"draft", "correction", "bonus", "stream"}
    assert all(line["logprob"] is None and not line["top_logprobs"] for line in lines[:-1])


def test_log_probabilities_as_lines_of_json(folder, url):
    done = device(folder, url, "a table", "--stream-json", "--logprobs", "2")
    *lines, last = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stderr
    for line, told in zip(lines, last["result"]["logprobs"], strict=True):
        first, second = line["top_logprobs"]
        assert first["id"] == line["id"] and first["logprob"] == line["logprob"]  # it is greedy
        assert second["logprob"] <= line["logprob"] <= 0.0
        assert told == [line["logprob"], [[e["id"], e["logprob"]] for e in (first, second)]]
    done = device(folder, url, "a table", "--logprobs", "2")
    assert done.returncode == 2 and b"--stream-json" in done.stderr


def test_a_chat_is_what_the_template_makes_of_it(folder, url):
    loaded = load_bundle(folder)
    template, tokenizer = loaded.template(), loaded.tokenizer()
    text = template.render([{"role": "user", "content": "a table"}])
    template.close()
    assert text == loaded.tokens()["bos_token"] + "a table two"
    done = device(folder, url, "a table", "--chat", "--json", "-")
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert json.loads(done.stdout)["prompt_tokens"] == len(ids)


def test_chat_needs_a_template(bundle, url):
    done = device(bundle().path, url, "a table", "--chat")
    assert done.returncode == 1 and b"no chat template" in done.stderr

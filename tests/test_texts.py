"""The same text from the Python API, on stdout and through a pipe, byte for byte.

A scripted target writes these ids, whatever they say; the draft agrees at most places.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

import device_runtime.device
from device_runtime.device import Device, Sampling
from draftlink.cli.common import app
from tests.device_runtime.tokenizers_by_kind import KINDS
from tests.fake_models import FakeModel
from tests.fakes import FakeTarget, served
from tests.scripted import device, rows

ROOT = Path(__file__).parent.parent
GREEDY = Sampling(temperature=0.0)
NASTY = (
    'a\tb :smile: [bold]x[/] [/] C:\\[new]\\ \r\n\x07\x1b]0;title\x07 \x1b[2J "wide" ' + "w " * 60
)


@dataclass(frozen=True)
class Case:
    """``tokens``: text to encode, or words of the vocabulary; ``text``: what comes out."""

    kind: str
    prompt: str
    tokens: str | list[str]
    text: str
    stop: tuple[str, ...] = ()
    ends: str = "length"


DUCK = [f"<0x{byte:02X}>" for byte in "🦆".encode()]
CASES = {
    "bytes, half a character and a word": Case(
        "phi-3", "I see", [*DUCK, "<0xF0>", "▁s"], "\ufffd" * 5 + " s"
    ),
    "bytes and a word": Case("phi-3", "I see", [*DUCK, "▁s"], "🦆 s"),
    "a space behind the prompt": Case("llama-2", "I see", "sky blue", " sky blue"),
    "the same without a first space": Case("gemma", "I see", " sky", " sky"),
    "unigram": Case("t5", "I see", "the sky", " the sky"),
    "word pieces": Case("bert", "I see", "the sky is", " the sky is"),
    "half a character": Case("llama-2", "I see", DUCK[:3], "\ufffd" * 3),
    "half a character in byte level": Case("gpt-2", "I see", ["a", "ð", "Ł"], "a\ufffd"),
    "a real replacement character": Case("gpt-2", "I see", " a\ufffd", " a\ufffd"),
    "a stop": Case("llama-3", "I see", " the sky is blue", " the sk", ("y is", "is"), "stop"),
    "a stop in bytes": Case("llama-2", "I", ["s", "<0x0A>", "<0x0A>", "s"], "s", ("\n\n",), "stop"),
    "a stop of emoji": Case("qwen", "I see", " a 😀🦆 b", " a ", ("😀🦆",), "stop"),
    "half of a stop": Case("llama-3", "I see", " a 😀🦆", " a 😀🦆", ("😀🦆 c",)),
    "what others take for markup": Case("gpt-2", NASTY, NASTY, NASTY),
}


class Script(FakeModel):
    """A model whose row depends on the position alone."""

    def forward(self, ids, *, last=False):
        begins = len(self.cache)
        self.cache += ids
        return self.table[len(self.cache) - 1 if last else begins : len(self.cache)]


class ScriptedTarget(FakeTarget):
    def __init__(self, table: np.ndarray) -> None:
        super().__init__(table)
        self.vocab_size = table.shape[1]

    def open(self) -> FakeModel:
        self.slots.append(Script(self.table, rows=True))
        return self.slots[-1]


def script(tokenizer: Tokenizer, prompt: str, tokens: str | list[str]) -> tuple[list[int], int]:
    """The ids to write, and at which position they begin."""
    if isinstance(tokens, str):
        ids = tokenizer.encode(tokens, add_special_tokens=False).ids
    else:
        ids = [tokenizer.token_to_id(word) for word in tokens]
    assert None not in ids
    return ids, len(tokenizer.encode(prompt).ids)


@pytest.fixture(params=CASES)
def case(request):
    one = CASES[request.param]
    tokenizer = KINDS[one.kind]()
    ids, begins = script(tokenizer, one.prompt, one.tokens)
    with served(ScriptedTarget(rows(tokenizer, ids, begins, wrong=False))) as url:
        yield one, tokenizer, ids, begins, url


def test_the_api_and_stdout(case, monkeypatch, capfdbinary):
    one, tokenizer, ids, begins, url = case

    async def write(mode: str) -> tuple[str, str, str]:
        async with device(tokenizer, ids, begins, url) as opened:
            generation = opened.generate(
                one.prompt, max_tokens=len(ids), sampling=GREEDY, mode=mode, stop=one.stop, gamma=4
            )
            pieces = [token.text async for token in generation]
            return "".join(pieces), generation.result.text, generation.result.stop_reason

    for mode in ("stop-and-wait", "run-ahead", "stream", "auto"):
        assert asyncio.run(write(mode)) == (one.text, one.text, one.ends)

    def parts(*_: object, **__: object) -> Device:
        return device(tokenizer, ids, begins, url)

    monkeypatch.setattr(device_runtime.device, "Device", parts)
    options = [f"--stop={stop}" for stop in one.stop]
    fixed = ["--bs", url, "--temperature", "0", "--max-tokens", str(len(ids))]
    capfdbinary.readouterr()
    app(["device", "no-folder", one.prompt, *fixed, *options], standalone_mode=False)
    assert capfdbinary.readouterr().out == one.text.encode()


def program(tokenizer: Tokenizer, prompt: str, ids: list[int], begins: int, url: str) -> list[str]:
    """The real program with a scripted draft, as a command line."""
    given = {"tokenizer": tokenizer.to_str(), "ids": ids, "begins": begins, "url": url}
    command = [sys.executable, "-m", "tests.scripted", json.dumps(given)]
    command += ["device", "no-folder", prompt, "--bs", url, "--temperature", "0"]
    return [*command, "--max-tokens", str(len(ids)), "--mode", "stop-and-wait"]


ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}


@pytest.mark.parametrize(
    ("environment", "then", "count"),
    [({}, "cat", None), ({}, "head -c 10", 10), (ASCII, "cat", None)],
    ids=["pipe", "closed pipe", "ascii"],
)
def test_a_pipe_has_the_text(environment, then, count):
    """The real program and a real pipe, where the locale has emoji and where it has none."""
    tokenizer = KINDS["gpt-2"]()
    prompt, text = NASTY + "ü🦆", NASTY + "🦆 \ufffd"
    ids, begins = script(tokenizer, prompt, text)
    with served(ScriptedTarget(rows(tokenizer, ids, begins, wrong=False))) as url:
        done = subprocess.run(
            ["sh", "-c", f'"$@" | {then}', "sh", *program(tokenizer, prompt, ids, begins, url)],
            env=os.environ | {"COLUMNS": "40", "FORCE_COLOR": "1"} | environment,
            capture_output=True,
            check=True,
            cwd=ROOT,
        )
    assert done.stdout == text.encode()[:count]
    assert b"Traceback" not in done.stderr and b"rror" not in done.stderr, done.stderr


def test_an_ascii_terminal_has_what_it_can_show():
    """The real program on a pseudo-terminal: no wrapping of ours, no pictures, no error."""
    tokenizer = KINDS["gpt-2"]()
    ids, begins = script(tokenizer, "I see\\ ", NASTY + "🦆 ü")
    leader, follower = os.openpty()
    with served(ScriptedTarget(rows(tokenizer, ids, begins, wrong=False))) as url:
        done = subprocess.run(
            program(tokenizer, "I see\\ ", ids, begins, url),
            env=os.environ | {"COLUMNS": "40", "TERM": "xterm"} | ASCII,
            stdin=subprocess.DEVNULL,
            stdout=follower,
            stderr=subprocess.PIPE,
            check=True,
            cwd=ROOT,
        )
    os.close(follower)
    raw = os.read(leader, 1 << 16).decode("ascii")
    os.close(leader)
    assert "\x1b[2m" in raw and "\x1b[32m" in raw  # dim, and green
    text = re.sub(r"\x1b\[[0-9;]*m", "", raw).replace("\r\n", "\n")
    plain = "".join(c for c in NASTY if c in "\n\t" or c.isprintable())
    assert text == "I see\\ " + plain + "? ?\n"
    assert b"rror" not in done.stderr, done.stderr

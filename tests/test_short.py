"""The short forms: a text or a chat in one line, with and without a running loop."""

from __future__ import annotations

import asyncio
import threading

import pytest

import draftlink
from bs_runtime.model.target import Target
from device_runtime.device import Device, Sampling
from device_runtime.streams import Loop, Stream
from tests.fake_models import fake_device, random_logits
from tests.fakes import FakeTarget, served

GREEDY = {"sampling": Sampling(temperature=0.0), "max_tokens": 8}
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"


@pytest.fixture(scope="module")
def url(model_folder):
    with served(Target.load(str(model_folder("llama")))) as url:
        yield url


@pytest.fixture(scope="module")
def folder(bundle) -> str:
    return str(bundle().path)


def test_a_text_in_one_line_and_token_by_token(folder, url):
    result = draftlink.generate(folder, url, "a table", **GREEDY)
    assert result.text and result.drafted + len(result.tokens) > 0
    stream = draftlink.generate(folder, url, "a table", stream=True, **GREEDY)
    with pytest.raises(RuntimeError, match="iterate to its end first"):
        _ = stream.result
    assert "".join(token.text for token in stream) == result.text == stream.text
    assert stream.result.tokens == result.tokens
    assert list(stream) == []  # it has ended
    assert not [t for t in threading.enumerate() if t.name == "draftlink" and t.is_alive()]


def test_in_a_running_loop_as_a_notebook_has(folder, url):
    async def cell() -> tuple[str, str]:
        whole = draftlink.generate(folder, url, "a table", **GREEDY).text
        parts = [
            token.text
            async for token in draftlink.generate(folder, url, "a table", stream=True, **GREEDY)
        ]
        return whole, "".join(parts)

    whole, parts = asyncio.run(cell())
    assert whole == parts


def test_a_stream_that_is_left_ends():
    """At the base station too, long before its limit."""
    table = random_logits(7, 20, 1.5)
    loop = Loop()
    with served(FakeTarget(table)) as where:
        opened = loop.run(fake_device(where, table).open())
        generation = opened.generate([1], max_tokens=30_000, sampling=Sampling())

        async def ended(_: object) -> None:
            await opened.close()

        with Stream(loop, generation, ended) as stream:
            assert next(stream).text == next(iter(stream.text))
        assert stream.result.stop_reason == "cancel"
        assert len(stream.result.tokens) < 30_000 and list(stream) == []
    loop.close()


def test_a_chat_in_one_line(folder, url):
    with draftlink.chat(folder, url, template=TEMPLATE, system="a boat", **GREEDY) as chat:
        first = chat.say("a table")
        assert first and chat.turns[-1] == {"role": "assistant", "content": first}
        with chat.say("two", stream=True) as stream:
            second = "".join(token.text for token in stream)
        assert [turn["role"] for turn in chat.turns] == ["user", "assistant"] * 2
        assert chat.turns[-1]["content"] == second
        assert stream.result.target_cached_tokens > 10
        chat.reset()
        assert chat.say("a table") == first  # nothing of the turns between
    with pytest.raises(ValueError, match="no chat template"):
        draftlink.chat(folder, url)


def test_what_is_wrong_is_named(folder, url):
    for wrong, kind, says in [
        ({"bundle": 5}, TypeError, "bundle must be the path"),
        ({"url": None}, TypeError, "url must be an address"),
        ({"prompt": 5}, ValueError, "neither text nor ids"),
        ({"max_tokens": "many"}, ValueError, "max_tokens must be a whole number"),
        ({"stop": 5}, ValueError, "stop must be a text"),
        ({"stop": ["a", 5]}, ValueError, "a stop string must be"),
        ({"sampling": 0.7}, ValueError, "sampling must be a Sampling"),
        ({"sampling": Sampling(temperature="hot")}, ValueError, "temperature must be a number"),
        ({"scheme": "coupled"}, ValueError, "the scheme must be one of"),
        ({"mode": "fast"}, ValueError, "mode must be one of"),
        ({"seed": "x"}, ValueError, "seed must be a whole number"),
        ({"eos_ids": "</s>"}, ValueError, "eos_ids must be ids"),
        ({"offline_after_s": "2s"}, ValueError, "offline_after_s must be a number"),
    ]:
        asked = {"bundle": folder, "url": url, "prompt": "a table"} | wrong
        with pytest.raises(kind, match=says):
            draftlink.generate(**asked)
    assert draftlink.generate(folder, url, "a table", stop="zzz", **GREEDY).text


def test_a_result_before_the_end_says_so(folder, url):
    async def main() -> None:
        async with Device(folder, url, ca=None) as device:
            generation = device.generate("a table", **GREEDY)
            with pytest.raises(RuntimeError, match="iterate to its end first"):
                _ = generation.result
            async for _ in generation:
                pass
            assert generation.result.text == generation.text

    asyncio.run(main())

"""What requests may say, and what answers tell, without a server."""

from __future__ import annotations

import json
import logging

import msgspec
import pytest

from device_runtime.result import Tally
from device_runtime.serve import asked, shapes
from device_runtime.serve.asked import ChatRequest, TextRequest, read
from device_runtime.serve.errors import ApiError
from draftlink.distribution.sampling import Sampling

HI = [{"role": "user", "content": "hi"}]


def chat(**body: object) -> ChatRequest:
    return read(ChatRequest, json.dumps({"messages": HI} | body).encode())


def test_the_histogram_counts_steps_as_vllms_does():
    """By hand: five verdicts, which accepted 3, 0, 1, 3 and 2 tokens of blocks of 3."""
    tally = Tally(0.0)
    for accepted in (3, 0, 1, 3, 2):
        tally.verdict(0, accepted, rejected=accepted < 3)
    assert tally.histogram == [4, 3, 2]  # ours, by position
    found = shapes.exactly(tally.histogram, tally.rounds)
    assert found == [1, 1, 1, 2]  # steps that accepted exactly 0, 1, 2, 3
    assert sum(found) == 5 and sum(j * n for j, n in enumerate(found)) == tally.accepted == 9


def test_vllms_own_example():
    """Of its documentation: 43 steps of 3 drafted tokens, of which 10 were accepted."""
    by_position = [4, 3, 3]
    assert shapes.exactly(by_position, 43) == [39, 1, 0, 3]
    assert shapes.exactly([], 0) == [0] and shapes.exactly([], 7) == [7]


def test_what_is_asked_is_read():
    found = chat(
        temperature=0, top_p=0.5, top_k=-1, min_p=0.1, repetition_penalty=1.1, n=2, seed=7,
        stop="x", max_tokens=3, max_completion_tokens=4, stream=True,
        stream_options={"include_usage": True}, chat_template_kwargs={"enable_thinking": False},
    )  # fmt: skip
    assert found.sampling(Sampling(0.6, top_k=40)) == Sampling(0.0, 0, 0.5, 0.1, 1.1)
    assert found.most == 4 and found.stops == ("x",) and found.usage and found.choices == 2
    assert [found.seed_of(i) for i in range(2)] == [7, 8]
    assert chat().sampling(Sampling(0.6, top_k=40)) == Sampling(0.6, top_k=40)
    assert chat(stop=["", "b"]).stops == ("b",) and chat(stop=None).stops == ()
    assert chat(tools=[], response_format={"type": "text"}, logprobs=False, n=None)


def test_turns_are_what_templates_take():
    messages = [
        {"role": "developer", "content": "be kind"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": "c", "tool_calls": None, "reasoning_content": "d"},
        {"role": "user", "content": "e", "name": "f"},
    ]
    assert chat(messages=messages).turns() == [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "a\nb"},
        {"role": "assistant", "content": "c"},
        {"role": "user", "content": "e"},
    ]


WRONG = [
    ({"temperature": "hot"}, "temperature"),
    ({"temperature": -1}, "temperature"),
    ({"top_p": 0}, "top_p"),
    ({"n": 0}, "n"),
    ({"n": 17}, "n"),
    ({"messages": []}, "messages"),
    ({"messages": "hi"}, "messages"),
    ({"messages": None}, "messages"),
    ({"messages": [{"content": "hi"}]}, None),
    ({"messages": [{"role": "tool", "content": "hi"}]}, "messages[0].role"),
    ({"messages": [{"role": "user"}]}, "messages[0].content"),
    ({"tools": [{"type": "function"}]}, "tools"),
    ({"functions": [{}]}, "functions"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"response_format": {"type": "json_object"}}, "response_format"),
    ({"logprobs": 5}, "logprobs"),
    ({"top_logprobs": 5}, "top_logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"prompt_logprobs": 1}, "prompt_logprobs"),
    ({"modalities": ["text", "audio"]}, "modalities"),
    ({"stop": 5}, "stop"),
    ({"stream_options": True}, "stream_options"),
    ({"seed": "a"}, "seed"),
    ({"min_tokens": 5}, "min_tokens"),
]


@pytest.mark.parametrize(("body", "param"), WRONG)
def test_what_cannot_be_names_its_parameter(body, param):
    with pytest.raises(ApiError) as caught:
        found = chat(**body)
        found.turns()
        assert found.choices and found.sampling(Sampling()) and found.likeliest
    assert caught.value.status == 400
    if param is not None:
        assert (caught.value.param or "").startswith(param)
        assert param.partition("[")[0] in str(caught.value)
    assert set(caught.value.body["error"]) == {"message", "type", "param", "code"}


def test_an_image_is_refused_where_it_stands():
    image = {"type": "image_url", "image_url": {"url": "data:,"}}
    messages = [{"role": "user", "content": [{"type": "text", "text": "what is it?"}, image]}]
    with pytest.raises(ApiError) as caught:
        chat(messages=messages).turns()
    assert caught.value.param == "messages[0].content[1].type"


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff", b"[" * 100_000, b"null", b'"a"'])
def test_a_body_that_is_none(body):
    with pytest.raises(ApiError) as caught:
        read(ChatRequest, body)
    assert caught.value.status == 400


@pytest.mark.parametrize("prompt", [[1, "a"], [], [[1], "a", 2], [["a"]], 5, None, ["a"] * 17])
def test_a_prompt_that_is_none(prompt):
    with pytest.raises(ApiError) as caught:
        read(TextRequest, json.dumps({"prompt": prompt}).encode()).prompts()
    assert caught.value.param.startswith("prompt")


def test_prompts_of_all_kinds():
    def prompts(prompt: object) -> list:
        return read(TextRequest, json.dumps({"prompt": prompt}).encode()).prompts()

    assert prompts("a") == ["a"] and prompts(["a", "b"]) == ["a", "b"]
    assert prompts([1, 2]) == [[1, 2]] and prompts([[1, 2], [3]]) == [[1, 2], [3]]


def test_a_field_that_nobody_knows_is_told_once(caplog):
    asked._told.clear()
    with caplog.at_level(logging.WARNING, "draftlink.serve"):
        for _ in range(3):
            chat(user="me", **{"no\x1bsuch": 1})
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2 and any("field user " in line for line in lines)
    assert any("no\\x1bsuch" in line for line in lines)


def test_answers_are_json():
    """As msgspec writes them, which knows no other types than JSON's."""
    assert msgspec.json.encode(ApiError(400, "a\nb").body)
    assert ApiError(400, "a\nb").body["error"]["message"] == "a\\x0ab"

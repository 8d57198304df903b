"""The endpoint's log-probabilities: the target's own, in OpenAI's two shapes, streamed and not."""

from __future__ import annotations

import numpy as np
import pytest

from draftlink.protocol import frames
from tests.endpoints import SIZE, TABLE, endpoint, events, post, refused
from tests.fakes import FakeTarget, served

LAW = TABLE - np.logaddexp.reduce(TABLE, axis=1, keepdims=True)
CHAT = {"messages": [{"role": "user", "content": "abc"}], "max_tokens": 30, "seed": 3}
SHAPED = {"temperature": 0.7, "top_k": 8, "presence_penalty": 0.5}


def checked(letters: str, before: str, logprobs: list[float], tops: list[dict], count: int) -> None:
    """Each letter's is the table's, as are those of the likeliest."""
    for last, letter, value, top in zip(before + letters, letters, logprobs, tops, strict=False):
        row = LAW[ord(last) - 97]
        assert value == pytest.approx(row[ord(letter) - 97], abs=1e-4)
        likeliest = np.sort(row)[::-1][:count]
        assert list(top.values())[:count] == pytest.approx(likeliest.tolist(), abs=1e-4)
        assert all(abs(p - row[ord(each) - 97]) <= 1e-4 for each, p in top.items())
    assert len(letters) == len(logprobs) == len(tops) == 30


@pytest.mark.parametrize("count", [None, 0, 5, SIZE])
@pytest.mark.parametrize("streamed", [False, True])
def test_a_chats(address, streamed, count):
    body = CHAT | SHAPED | {"logprobs": True} | ({} if count is None else {"top_logprobs": count})
    if streamed:
        choices = [part["choices"][0] for part in events(address, "/v1/chat/completions", body)]
        text = "".join(choice["delta"].get("content", "") for choice in choices)
        content = [e for c in choices if c["logprobs"] for e in c["logprobs"]["content"]]
    else:
        (choice,) = post(address, "/v1/chat/completions", body)["choices"]
        text, content = choice["message"]["content"], choice["logprobs"]["content"]
        assert choice["logprobs"]["refusal"] is None
    assert "".join(each["token"] for each in content) == text
    assert bytes(byte for each in content for byte in each["bytes"]).decode() == text
    tops = [{top["token"]: top["logprob"] for top in each["top_logprobs"]} for each in content]
    checked(text, "r", [each["logprob"] for each in content], tops, count or 0)
    assert post(address, "/v1/chat/completions", CHAT | SHAPED)["choices"][0]["logprobs"] is None


@pytest.mark.parametrize("count", [0, 5])
@pytest.mark.parametrize("streamed", [False, True])
def test_a_completions(address, streamed, count):
    body = {"prompt": "abc", "max_tokens": 30, "seed": 3, "logprobs": count, **SHAPED}
    if streamed:
        choices = [part["choices"][0] for part in events(address, "/v1/completions", body)]
        text = "".join(choice["text"] for choice in choices)
        told = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
        for choice in choices:
            for name, values in (choice["logprobs"] or {}).items():
                told[name] += values
    else:
        (choice,) = post(address, "/v1/completions", body)["choices"]
        text, told = choice["text"], choice["logprobs"]
    assert told["tokens"] == list(text) and told["text_offset"] == list(range(30))
    checked(text, "c", told["token_logprobs"], told["top_logprobs"], count)
    # The token's own stands beside them, as OpenAI's does.
    assert all(token in top for token, top in zip(text, told["top_logprobs"], strict=True))


def test_each_of_several_choices_has_its_own(address):
    body = CHAT | {"n": 2, "logprobs": True}
    for choice in post(address, "/v1/chat/completions", body)["choices"]:
        said = "".join(each["token"] for each in choice["logprobs"]["content"])
        assert said == choice["message"]["content"]


def test_what_cannot_be_is_named(address):
    for path, body, param in [
        ("chat/completions", CHAT | {"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ("chat/completions", CHAT | {"top_logprobs": 2}, "top_logprobs"),
        ("chat/completions", CHAT | {"logprobs": 3}, "logprobs"),
        ("completions", {"prompt": "abc", "logprobs": True}, "logprobs"),
        ("completions", {"prompt": "abc", "logprobs": -1}, "logprobs"),
    ]:
        code, error = refused(address, f"/v1/{path}", body)
        assert (code, error["param"]) == (400, param), error
    plain = {"prompt": "abc", "logprobs": False, "max_tokens": 2}
    assert post(address, "/v1/completions", plain)["choices"][0]["logprobs"] is None


def test_a_base_station_that_cannot_tell_them_is_named(monkeypatch):
    others = tuple(name for name in frames.FEATURES if name != frames.LOGPROBS)
    monkeypatch.setattr(frames, "FEATURES", others)
    with served(FakeTarget(TABLE)) as url, endpoint(url) as (where, _):
        code, error = refused(where, "/v1/chat/completions", CHAT | {"logprobs": True})
        assert (code, error["param"]) == (400, "logprobs") and "update it" in error["message"]
        assert post(where, "/v1/chat/completions", CHAT)

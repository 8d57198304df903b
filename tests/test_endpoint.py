"""The endpoint's texts are the API's and the target's own, and the device drafts for them."""

from __future__ import annotations

import asyncio
import time

import pytest

from device_runtime.device import Coupled, Sampling
from device_runtime.serve.service import Choices
from draftlink.distribution import gumbel, noise, sampling
from draftlink.link.pacing import pace
from tests.endpoints import DRAFT, TABLE, device, endpoint, events, post, refused
from tests.fakes import FakeTarget, served

PROMPT, SEEDS, TOKENS = "qabct", range(4), 60


def own(ids: list[int], seed: int, greedy: bool) -> str:
    """The target's text, by its definition."""
    key, past = noise.key_from_seed(seed, "coupled"), list(ids)
    for _ in range(TOKENS):
        row = TABLE[past[-1]]
        p = sampling.distribution(row, Sampling(), past)
        token = row.argmax() if greedy else gumbel.pick_many([key], [len(past)], p[None])[0]
        past.append(int(token))
    return "".join(chr(97 + token) for token in past[len(ids) :])


async def by_api(url: str, seed: int, greedy: bool, mode: str):
    async with device(url) as opened:
        generation = opened.generate(
            [ord(c) - 97 for c in PROMPT + "r"], max_tokens=TOKENS, scheme=Coupled(), seed=seed,
            sampling=Sampling(0.0 if greedy else 1.0), mode=mode,
        )  # fmt: skip
        async for _ in generation:
            pass
        return generation.result


@pytest.fixture(scope="module")
def slow():
    """A base station whose target takes its time, so that drafting pays."""
    target = FakeTarget(TABLE)
    target.forward = pace(target.forward, 0.004, time.perf_counter, time.sleep)
    with served(target) as url:
        yield url


@pytest.mark.parametrize("mode", ["auto", "run-ahead"])
@pytest.mark.parametrize("greedy", [False, True], ids=["coupled", "greedy"])
def test_texts_are_the_targets_and_the_device_drafts(slow, greedy, mode):
    """A server that only streams fails here: nothing would be drafted."""
    results, parts = [], []
    with endpoint(slow, choices=Choices(Coupled(), mode)) as (where, _):
        for seed in SEEDS:
            body = {
                "messages": [{"role": "user", "content": PROMPT[1:-1]}],
                "seed": seed, "max_tokens": TOKENS, "temperature": 0.0 if greedy else 1.0,
            }  # fmt: skip
            answer = post(where, "/v1/chat/completions", body)
            text = answer["choices"][0]["message"]["content"]
            assert text == own([ord(c) - 97 for c in PROMPT + "r"], seed, greedy)
            assert answer["choices"][0]["finish_reason"] == "length"
            parts.append(answer["draftlink"]["choices"][0])
            results.append(asyncio.run(by_api(slow, seed, greedy, mode)))
            assert text == results[-1].text and parts[-1]["seed"] == seed
            assert (parts[-1]["drafted"] == 0) == bool(answer["draftlink"]["base_station_alone"])
    assert sum(told["drafted"] for told in parts) > TOKENS
    if mode == "run-ahead":  # where every token is judged, whatever time things take
        for told, result in zip(parts, results, strict=True):
            assert told["alpha"] == pytest.approx(result.alpha, abs=0.02)


def test_a_stream_is_the_same_text(address):
    body = {"model": None, "messages": [{"role": "user", "content": "abc"}], "seed": 3,
            "max_tokens": TOKENS}  # fmt: skip
    whole = post(address, "/v1/chat/completions", body)
    parts = events(address, "/v1/chat/completions", body)
    assert parts[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert len(parts) > 10  # it came in pieces
    text = "".join(part["choices"][0]["delta"].get("content", "") for part in parts)
    assert text == whole["choices"][0]["message"]["content"]
    assert [part["choices"][0]["finish_reason"] for part in parts[:-1]] == [None] * (len(parts) - 1)
    assert parts[-1]["choices"][0]["finish_reason"] == "length" and parts[-1]["metrics"]
    asked = body | {"stream_options": {"include_usage": True}}
    parts = events(address, "/v1/chat/completions", asked)
    assert all(part["usage"] is None for part in parts[:-1]) and parts[-1]["choices"] == []
    assert parts[-1]["usage"]["completion_tokens"] == TOKENS
    assert parts[-1]["usage"]["total_tokens"] == TOKENS + len("qabctr")


def test_completions_of_texts_and_ids(address):
    body = {"prompt": ["abc", "abd"], "n": 2, "seed": 5, "max_tokens": 20}
    answer = post(address, "/v1/completions", body)
    assert answer["object"] == "text_completion"
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
    texts = [choice["text"] for choice in answer["choices"]]
    alone = post(address, "/v1/completions", {"prompt": [0, 1, 2], "seed": 6, "max_tokens": 20})
    assert texts[1] == alone["choices"][0]["text"]  # the second choice's seed is the next one
    assert texts[0] != texts[1] and texts[2] != texts[3]
    assert answer["usage"]["completion_tokens"] == 80
    streamed: dict[int, str] = {}
    for part in events(address, "/v1/completions", body):
        choice = part["choices"][0]
        streamed[choice["index"]] = streamed.get(choice["index"], "") + choice["text"]
    assert list(streamed.values()) == texts


def test_the_next_turn_of_a_chat_is_in_the_cache(station):
    """Of several chats in turns: each finds the conversation that it was written on."""
    with endpoint(station) as (where, _):
        chats = [[{"role": "user", "content": text}] for text in ("abcd", "bcde", "cdef")]
        for turn in range(3):
            for turns in chats:
                answer = post(
                    where, "/v1/chat/completions", {"messages": turns, "max_tokens": 20, "seed": 1}
                )
                cached = answer["usage"]["prompt_tokens_details"]["cached_tokens"]
                said = answer["choices"][0]["message"]["content"]
                # All that was there at the turn before, but for the last token's own row.
                before = sum(len(each["content"]) + 2 for each in turns[:-1])
                assert cached >= before - 1 if turn else cached == 0
                turns += [
                    {"role": "assistant", "content": said}, {"role": "user", "content": "abc"}
                ]  # fmt: skip


def test_what_is_drafted_matters(station):
    """The control: a draft that is always wrong changes no text, and little is accepted."""
    body = {"prompt": "abc", "seed": 2, "max_tokens": 40}
    found = []
    for draft in (DRAFT, -TABLE):
        choices = Choices(Coupled(), "stop-and-wait")
        with endpoint(station, made=device(station, draft), choices=choices) as (where, _):
            answer = post(where, "/v1/completions", body)
            told = answer["draftlink"]["choices"][0]
            found.append((answer["choices"][0]["text"], told["alpha"]))
    assert found[0][0] == found[1][0] and found[0][1] > found[1][1] + 0.2


def test_penalties_and_bias_change_the_text(address):
    body = {"prompt": "abc", "seed": 2, "max_tokens": 40}

    def text(**more: object) -> str:
        return post(address, "/v1/completions", body | more)["choices"][0]["text"]

    plain = text()
    assert plain == text(presence_penalty=0, frequency_penalty=0.0, logit_bias={})
    banned = plain[0]
    without = text(logit_bias={str(ord(banned) - 97): -100})
    assert banned not in without and len(without) == 40
    greedy = text(temperature=0)
    assert len(set(text(temperature=0, frequency_penalty=2.0))) > len(set(greedy))
    for wrong, param in [
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"logit_bias": {"99": 1}}, "logit_bias"),
        ({"presence_penalty": 3}, "presence_penalty"),
    ]:
        code, error = refused(address, "/v1/completions", body | wrong)
        assert (code, error["param"]) == (400, param)

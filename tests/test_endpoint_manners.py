"""The endpoint towards clients that are wrong or gone, strangers, and over a link that breaks."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import urllib.request

import numpy as np
import pytest
from starlette.requests import Request
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from device_runtime.serve import app
from device_runtime.serve.app import Access
from device_runtime.serve.errors import ApiError
from tests.endpoints import TABLE, device, endpoint, events, got, leave, post, refused, until
from tests.fakes import FakeTarget, served

CHAT = {"messages": [{"role": "user", "content": "abc"}], "max_tokens": 10}


def test_what_there_is(address):
    (card,) = json.loads(got(address, "/v1/models"))["data"]
    assert card["id"] == "fake" and card["object"] == "model"
    assert json.loads(got(address, "/v1/models/fake"))["id"] == "fake"
    assert json.loads(got(address, "/health"))["status"] == "ok"
    assert "v1/chat/completions" in got(address, "/")
    post(address, "/v1/chat/completions", CHAT | {"model": "fake"})
    text = got(address, "/metrics")
    assert 'draftlink:request_success_total{finished_reason="length"}' in text
    assert "draftlink:num_requests_running 0.0" in text


def test_errors_have_openais_shape(address):
    path = "/v1/chat/completions"
    for body, status, param in [
        (CHAT | {"model": "gpt-4"}, 404, "model"),
        (CHAT | {"tools": [{}]}, 400, "tools"),
        (CHAT | {"max_tokens": 0}, 400, "max_tokens"),
        (CHAT | {"stop": ["a"] * 2, "temperature": 1e-9}, 400, "temperature"),
        (b"{", 400, None),
    ]:
        code, error = refused(address, path, body)
        assert (code, error["param"]) == (status, param)
        assert error["message"] and error["type"] == "invalid_request_error"
    code, error = refused(address, "/v1/nothing", CHAT)
    assert code == 404 and "/v1/nothing" in error["message"]
    assert post(address, path, CHAT)  # nothing of that has hurt


def test_a_body_has_an_end():
    async def receive() -> dict:
        return {"type": "http.request", "body": b" " * (1 << 22), "more_body": True}

    request = Request({"type": "http", "method": "POST", "headers": []}, receive)
    with pytest.raises(ApiError) as caught:
        asyncio.run(app._body(request))
    assert caught.value.status == 413


def test_a_model_without_a_template_says_what_to_do(station):
    with endpoint(station, template=None) as (where, _):
        code, error = refused(where, "/v1/chat/completions", CHAT)
        assert code == 400 and "--chat-template" in error["message"]
        assert post(where, "/v1/completions", {"prompt": "abc"})["choices"][0]["text"]


def test_only_who_has_the_key_may_ask(station):
    key = "s3cret-\u00e9"
    with endpoint(station, access=Access(key=key)) as (where, _):
        for headers in ({}, {"authorization": "Bearer no"}, {"authorization": f"Basic {key}"}):
            code, error = refused(where, "/v1/chat/completions", CHAT, **headers)
            assert code == 401 and error["code"] == "invalid_api_key"
        good = {"authorization": "Bearer " + key.encode().decode("latin-1")}
        assert post(where, "/v1/chat/completions", CHAT, **good)
        assert json.loads(got(where, "/health"))["status"] == "ok"


def test_pages_elsewhere_may_not_ask(station):
    origin = {"origin": "http://evil.example"}
    with endpoint(station) as (where, _):
        code, error = refused(where, "/v1/chat/completions", CHAT, **origin)
        assert code == 403 and error["code"] == "origin_not_allowed"
        code, error = refused(where, "/v1/chat/completions", CHAT, host="evil.example")
        assert code == 421
        assert post(where, "/v1/chat/completions", CHAT, origin=where)  # its own page
    with endpoint(station, access=Access(origins=("http://evil.example",))) as (where, _):
        assert post(where, "/v1/chat/completions", CHAT, **origin)
        asked = urllib.request.Request(where + "/v1/models", headers=origin)
        with urllib.request.urlopen(asked) as answer:
            assert answer.headers["access-control-allow-origin"] == "http://evil.example"


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_ends_its_text(stream):
    """At the base station too: no text of 30,000 tokens is written for nobody."""
    target = FakeTarget(TABLE)
    body = CHAT | {"max_tokens": 30_000, "stream": stream}
    with served(target) as url, endpoint(url, most=1) as (where, service):
        for _ in range(3):
            leave(where, body, 400 if stream else 0)
        # The one conversation comes free again, and what was written is not much.
        assert post(where, "/v1/chat/completions", CHAT)["usage"]["completion_tokens"] == 10
        assert service.conversations.waiting == 0
        until(lambda: "draftlink:request_left_total 3.0" in got(where, "/metrics"), "three left")
        assert "num_requests_running 0.0" in got(where, "/metrics")
    assert max(slot.forwards for slot in target.slots) < 25_000


def test_a_base_station_that_is_gone_is_told():
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(served(FakeTarget(TABLE)))
        made = device(url)
        made.patience_s = 0.2
        with endpoint(url, made=made, most=1) as (where, _):
            assert post(where, "/v1/chat/completions", CHAT)
            stack.close()
            for _ in range(2):  # over the connection that was there, and over a new one
                code, error = refused(where, "/v1/chat/completions", CHAT)
                assert code == 503 and error["code"] == "base_station"
                assert error["type"] == "server_error"


def test_those_who_wait_are_served_or_told(station):
    with endpoint(station, most=1) as (where, _):
        found: list[int] = []
        threads = [
            threading.Thread(
                target=lambda: found.append(
                    post(where, "/v1/chat/completions", CHAT)["usage"]["completion_tokens"]
                )
            )
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert found == [10] * 8


def test_characters_and_stop_strings_over_several_tokens():
    """A token is a byte: a stream has whole characters, and nothing of a stop string."""
    said = "é日🙂!x"  # no byte of it is there twice: each is followed by the next, in a ring
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    ids = tokenizer.encode(said).ids
    table = np.full((256, 256), -50.0)
    for now, then in zip(ids, [*ids[1:], ids[0]], strict=True):
        table[now, then] = 50.0
    body = {"prompt": [ids[-1]], "temperature": 0, "max_tokens": 2 * len(ids)}
    with (
        served(FakeTarget(table)) as url,
        endpoint(url, made=device(url, table, tokenizer)) as (where, _),
    ):
        parts = [part["choices"][0] for part in events(where, "/v1/completions", body)]
        assert "".join(part["text"] for part in parts) == said * 2
        assert not any("\ufffd" in part["text"] for part in parts)
        body["stop"] = ["🙂!x"]
        parts = [part["choices"][0] for part in events(where, "/v1/completions", body)]
        assert "".join(part["text"] for part in parts) == "é日"
        assert parts[-1]["finish_reason"] == "stop"

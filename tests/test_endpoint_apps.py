"""Requests of real chat apps: their fields and forms, read in their source; the words are ours."""

from __future__ import annotations

import pytest

from tests.endpoints import events, post, refused

SYSTEM = {"role": "system", "content": "abc"}
USER = {"role": "user", "content": "abc"}
PARTS = {"role": "user", "content": [{"type": "text", "text": "ab"}, {"type": "text", "text": "c"}]}
TURNS = [USER, {"role": "assistant", "content": "abd"}, USER]

CHATS = {
    # ChatGPTNextWeb/NextChat, app/client/platforms/openai.ts.
    "NextChat": {
        "messages": [SYSTEM, PARTS], "stream": True, "model": "fake", "temperature": 0.5,
        "presence_penalty": 0, "frequency_penalty": 0, "top_p": 1,
    },
    # open-webui/open-webui, backend/open_webui/utils/payload.py: what its settings add.
    "Open WebUI": {
        "model": "fake", "messages": TURNS, "stream": True,
        "stream_options": {"include_usage": True}, "temperature": 0.8, "top_p": 0.9,
        "max_tokens": 24, "frequency_penalty": 1.1, "seed": 42, "stop": ["\n\n"],
        "user": {"name": "me", "id": "1", "role": "user"},
    },
    # The same, routers/openai.py: the chat's title, asked for beside it.
    "Open WebUI, a title": {"model": "fake", "messages": [USER], "stream": False},
    # SillyTavern/SillyTavern, src/endpoints/backends/chat-completions.js: its own OpenAI source and
    # the custom one; what is undefined there is not sent.
    "SillyTavern": {
        "messages": [SYSTEM, *TURNS], "model": "fake", "temperature": 1, "max_tokens": 24,
        "stream": True, "presence_penalty": 0, "frequency_penalty": 0, "top_p": 1, "stop": [],
        "logit_bias": {}, "seed": 7, "logprobs": True, "top_logprobs": 10,
    },
    "SillyTavern, several": {
        "messages": TURNS, "model": "fake", "temperature": 0.9, "max_tokens": 24, "stream": False,
        "presence_penalty": 0.3, "frequency_penalty": 0.2, "top_p": 0.95, "top_k": 40, "n": 2,
        "stop": ["zz"], "logit_bias": {"3": -5}, "seed": 7,
    },
    # continuedev/continue, core/llm/openaiTypeConverters.ts (toChatBody).
    "Continue": {
        "messages": [SYSTEM, *TURNS], "model": "fake", "max_tokens": 24, "temperature": 0.2,
        "top_p": 0.9, "frequency_penalty": 0, "presence_penalty": 0, "stream": True, "stop": ["zz"],
        "prediction": None,
    },
}  # fmt: skip


@pytest.mark.parametrize("app", CHATS)
def test_what_chat_apps_send_is_answered(address, app):
    body = {"max_tokens": 24} | CHATS[app]
    path = "/v1/chat/completions"
    if not body["stream"]:
        answer = post(address, path, body)
        assert len(answer["choices"]) == body.get("n", 1)
        assert all(len(choice["message"]["content"]) == 24 for choice in answer["choices"])
        return
    parts = events(address, path, body)
    choices = [choice for part in parts for choice in part["choices"]]
    assert len("".join(choice["delta"].get("content", "") for choice in choices)) == 24
    assert all(part["object"] == "chat.completion.chunk" for part in parts)
    if "stream_options" in body:
        assert parts[-1]["usage"]["completion_tokens"] == 24
    told = [
        each for choice in choices for each in (choice["logprobs"] or {"content": []})["content"]
    ]
    assert len(told) == 24 * bool(body.get("logprobs"))
    assert all(len(each["top_logprobs"]) == body["top_logprobs"] for each in told)


TEXTS = {
    # continue: toCompleteBody, for a code editor.
    "Continue": {
        "prompt": "abc", "model": "fake", "max_tokens": 24, "temperature": 0.01, "top_p": 0.9,
        "frequency_penalty": 0, "presence_penalty": 0, "stream": True, "stop": ["zz"],
    },
    # SillyTavern with a text model: the number alone asks for log-probabilities.
    "SillyTavern": {
        "prompt": "abc", "model": "fake", "temperature": 1, "max_tokens": 24, "stream": True,
        "presence_penalty": 0, "frequency_penalty": 0, "top_p": 1, "top_k": 0, "logit_bias": {},
        "seed": 7, "n": 1, "logprobs": 10,
    },
}  # fmt: skip


@pytest.mark.parametrize("app", TEXTS)
def test_texts_that_go_on(address, app):
    choices = [part["choices"][0] for part in events(address, "/v1/completions", TEXTS[app])]
    assert len("".join(choice["text"] for choice in choices)) == 24
    told = [
        each for choice in choices if choice["logprobs"] for each in choice["logprobs"]["tokens"]
    ]
    assert len(told) == 24 * ("logprobs" in TEXTS[app])


def test_what_apps_send_that_cannot_be_had_is_named(address):
    """Tools, as Continue's agent sends them; a picture, as all do; a fill in the middle."""
    tool = {"type": "function", "function": {"name": "a", "parameters": {}}}
    picture = {
        "type": "image_url",
        "image_url": {"url": "data:image/png;base64,", "detail": "auto"},
    }
    chat = {"messages": [USER], "model": "fake"}
    for path, body, param in [
        ("chat/completions", chat | {"tools": [tool]}, "tools"),
        ("chat/completions", chat | {"messages": [{"role": "user", "content": [picture]}]},
         "messages[0].content[0].type"),
        ("completions", {"prompt": "abc", "suffix": "def", "stream": True}, "suffix"),
    ]:  # fmt: skip
        code, error = refused(address, f"/v1/{path}", body)
        assert (code, error["param"]) == (400, param)

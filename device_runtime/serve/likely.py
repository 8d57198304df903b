"""Log-probabilities in the shapes of OpenAI's two endpoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from device_runtime.result import Token
from device_runtime.spelling import Spelling

Kind = Literal["chat", "text"]


@dataclass(frozen=True)
class Placed:
    """A token, and how many characters of its text were there before it."""

    token: Token
    offset: int


def shaped(kind: Kind, tokens: Sequence[Placed], spelling: Spelling) -> dict[str, Any]:
    """What an answer says of tokens whose log-probabilities are known, each of them once."""
    return _chat(tokens, spelling) if kind == "chat" else _text(tokens, spelling)


def _chat(tokens: Sequence[Placed], spelling: Spelling) -> dict[str, Any]:
    content = []
    for placed in tokens:
        token = placed.token
        top = [_one(each, value, spelling) for each, value in token.top_logprobs]
        content.append(_one(token.id, token.logprob, spelling) | {"top_logprobs": top})
    return {"content": content, "refusal": None}


def _one(token: int, value: float | None, spelling: Spelling) -> dict[str, Any]:
    return {
        "token": spelling.text(token),
        "logprob": value,
        "bytes": list(spelling.octets(token)),
    }


def _text(tokens: Sequence[Placed], spelling: Spelling) -> dict[str, Any]:
    """OpenAI's older shape: of each token the likeliest by their texts, and its own beside them."""
    tops = []
    for placed in tokens:
        token = placed.token
        top = {spelling.text(each): value for each, value in reversed(token.top_logprobs)}
        tops.append({**dict(reversed(top.items())), spelling.text(token.id): token.logprob})
    return {
        "tokens": [spelling.text(placed.token.id) for placed in tokens],
        "token_logprobs": [placed.token.logprob for placed in tokens],
        "top_logprobs": tops,
        "text_offset": [placed.offset for placed in tokens],
    }

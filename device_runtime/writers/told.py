"""Tokens that stand, with what the base station says of each where the request asked for it."""

from __future__ import annotations

from collections.abc import Sequence

from device_runtime.result import Came, Kind
from device_runtime.writers.writing import Writing
from draftlink.protocol import logprobs
from draftlink.protocol.logprobs import Logprobs
from draftlink.schemes.split import unpack_row


def came(writing: Writing, ids: Sequence[int], kinds: Sequence[Kind], told: bytes) -> list[Came]:
    """Tokens, with the log-probabilities that a frame brought: ``told``.

    Nothing is made up where none came: the session has seen to it that they are there, and can be.
    """
    count = writing.start.tells
    if count is None:
        return [Came(token, kind) for token, kind in zip(ids, kinds, strict=True)]
    size = writing.device.client.welcome.vocab_size
    said = logprobs.decode(told, len(ids), count, size)
    return [Came(*each) for each in zip(ids, kinds, said, strict=True)]


def by_row(writing: Writing, row: bytes, token: int) -> Logprobs | None:
    """Those of a token that was drawn from the target's ``row``, if they are asked for."""
    count = writing.start.tells
    if count is None:
        return None
    return logprobs.of(unpack_row(row, writing.device.client.welcome.vocab_size), token, count)

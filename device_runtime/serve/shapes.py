"""Answers in the shapes of OpenAI's API, with what vLLM and we tell beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from device_runtime.result import Result

Kind = Literal["chat", "text"]
_REASONS = {"length": "length"}  # all others are a stop


@dataclass(frozen=True)
class Head:
    """What all parts of one answer begin with.

    ``created``: seconds since 1970. ``each``: texts for each prompt.
    """

    kind: Kind
    id: str
    model: str
    created: int
    each: int

    def _frame(self, part: bool) -> dict[str, Any]:
        name = "chat.completion" + ".chunk" * part if self.kind == "chat" else "text_completion"
        return {"id": self.id, "object": name, "created": self.created, "model": self.model}

    def whole(
        self,
        texts: Sequence[str],
        results: Sequence[Result],
        logprobs: Sequence[dict[str, Any] | None],
    ) -> dict[str, Any]:
        """All of an answer at once; ``logprobs``: of each text, in its endpoint's shape."""
        choices = []
        for i, (text, result) in enumerate(zip(texts, results, strict=True)):
            said: dict[str, Any] = (
                {"message": {"role": "assistant", "content": text, "refusal": None}}
                if self.kind == "chat"
                else {"text": text}
            )
            said |= {"logprobs": logprobs[i], "finish_reason": reason(result)}
            choices.append({"index": i, **said})
        usage = self._usage(results)
        return {**self._frame(False), "choices": choices, "usage": usage, **told(results)}

    def first(self, index: int) -> dict[str, Any] | None:
        """The part that begins a choice; completions have none."""
        if self.kind == "text":
            return None
        return self._part(index, {"role": "assistant", "content": ""}, None)

    def piece(
        self, index: int, text: str, logprobs: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """The part that brings a piece of a text, and what is told of its token."""
        return self._part(index, {"content": text}, None, logprobs)

    def last(self, index: int, result: Result) -> dict[str, Any]:
        """The part that ends a choice."""
        return self._part(index, {}, reason(result))

    def totals(self, results: Sequence[Result]) -> dict[str, Any]:
        """The part that ends a stream whose reader asked for that."""
        return {**self._frame(True), "choices": [], "usage": self._usage(results)}

    def _usage(self, results: Sequence[Result]) -> dict[str, Any]:
        """Tokens; a prompt's count once. Cached: in the base station's KV cache already."""
        firsts = results[:: self.each]
        prompt = sum(each.prompt_tokens for each in firsts)
        written = sum(len(each.tokens) for each in results)
        cached = sum(each.target_cached_tokens for each in firsts)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": written,
            "total_tokens": prompt + written,
            "prompt_tokens_details": {"cached_tokens": cached},
        }

    def _part(
        self,
        index: int,
        delta: dict[str, str],
        ended: str | None,
        logprobs: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        said = {"delta": delta} if self.kind == "chat" else {"text": delta.get("content", "")}
        choice = {"index": index, **said, "logprobs": logprobs, "finish_reason": ended}
        return {**self._frame(True), "choices": [choice]}


def reason(result: Result) -> str:
    """Why a text ended, in OpenAI's words."""
    return _REASONS.get(result.stop_reason, "stop")


def told(results: Sequence[Result]) -> dict[str, Any]:
    """What vLLM tells of speculative decoding, where there is one text, and what we do.

    Of each text, and of all together, why the base station wrote alone, if it did.
    """
    alone = [each.alone for each in results]
    common = None if None in alone else "; ".join(dict.fromkeys(filter(None, alone)))
    ours = [
        {
            "seed": each.seed,
            "scheme": each.scheme,
            "mode": each.mode,
            "alpha": each.alpha,
            "drafted": each.drafted,
            "accepted": each.accepted,
            "uplink_bytes": each.uplink_bytes,
            "downlink_bytes": each.downlink_bytes,
            "reconnects": each.reconnects,
            "draft_cached_tokens": each.cached_tokens,
            "base_station_alone": each.alone,
        }
        for each in results
    ]
    metrics = {"speculative_decoding": speculative(results[0])} | timing(results[0])
    return {
        "metrics": metrics if len(results) == 1 else None,
        "draftlink": {"choices": ours, "base_station_alone": common},
    }


def speculative(result: Result) -> dict[str, Any]:
    """``metrics.speculative_decoding`` as vLLM has it (docs: per-request acceptance metrics)."""
    histogram = exactly(result.accept_histogram, result.rounds)
    steps = sum(histogram)
    return {
        "mean_acceptance_length": 1 + result.accepted / steps if steps else 0.0,
        "draft_acceptance_rate": result.acceptance_rate,
        "acceptance_histogram": histogram,
        "num_spec_steps": steps,
        "num_accepted_draft_tokens": result.accepted,
        "num_draft_tokens": result.drafted,
        "num_spec_tokens": len(histogram) - 1,
    }


def exactly(by_position: Sequence[int], rounds: int) -> list[int]:
    """How many steps accepted exactly 0, 1, 2, ... tokens, where the tokens at each position of a
    block that were accepted are known.

    At position i a token is accepted in all steps that accept more than i. Of a run over several
    blocks the longest counts as the step, the others as steps of none.
    """
    steps = max([rounds, *by_position])
    return [more - less for more, less in pairwise([steps, *by_position, 0])]


def timing(result: Result) -> dict[str, float]:
    """vLLM's other metrics of a request."""
    count = len(result.tokens)
    return {
        "time_to_first_token_ms": 1e3 * result.ttft_s,
        "generation_time_ms": 1e3 * result.tpot_s * max(0, count - 1),
        "mean_itl_ms": 1e3 * result.tpot_s,
        "tokens_per_second": result.tokens_per_s,
    }

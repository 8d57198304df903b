"""A request as a value: everything that is asked of one generation, checked before any of it is
done, so that a request which cannot work leaves no trace."""

from __future__ import annotations

import math
import operator
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict

from msgspec import UNSET
from tokenizers import Tokenizer

from device_runtime import facts, modes
from device_runtime.prompt import prompt_ids
from device_runtime.result import Mode
from device_runtime.text import Detokenizer, stop_strings
from draftlink import schemes
from draftlink.distribution.sampling import Sampling
from draftlink.protocol import frames
from draftlink.protocol.logprobs import MOST
from draftlink.schemes import AnyScheme, topk

MOST_GAMMA = 64
PHASES: dict[str, frames.Phase] = {"stream": "stream", "auto": "stream", "both": "both"}


class Options(TypedDict, total=False):
    """What may be asked of a generation, apart from its prompt."""

    max_tokens: int
    sampling: Sampling | Literal["target"] | None
    scheme: AnyScheme | None
    mode: Mode
    gamma: int | None
    seed: int | None
    stop: str | Sequence[str]
    eos_ids: Sequence[int] | None
    suppressed_ids: Sequence[int] | None
    append: bool
    learn_temperature: bool
    offline_after_s: float | None
    draft_price: float | None
    branches: int | None
    logprobs: int | None


@dataclass(frozen=True)
class Models:
    """What the two models and their files say, as far as a request depends on it.

    ``vocab_size`` and ``eos_ids`` are the draft's; ``welcome`` tells the target's. ``branches``:
    the draft can go on behind several tokens at once.
    """

    tokenizer: Tokenizer
    detokenizer: Detokenizer
    vocab_size: int
    eos_ids: tuple[int, ...]
    welcome: frames.Welcome
    branches: bool = False

    @property
    def shared(self) -> int:
        """Ids below this one are known to both models."""
        return min(self.vocab_size, self.welcome.vocab_size)


@dataclass(frozen=True)
class Request:
    """A generation that both ends can carry out. ``prompt``: all ids before its text, those of an
    earlier turn included; ``prompt_tokens`` of them were given now."""

    prompt: tuple[int, ...]
    prompt_tokens: int
    sampling: Sampling
    scheme: AnyScheme
    mode: Mode
    gamma: int | None
    max_tokens: int
    eos_ids: tuple[int, ...]
    suppressed_ids: tuple[int, ...]
    seed: int | None
    stop: tuple[str, ...]
    learn_temperature: bool
    offline_after_s: float | None
    draft_price: float | None
    branches: int
    logprobs: int | None
    told: bool  # a stream is to tell how likely the target found its tokens

    def start(self, generation: int, base: int, *, drafts: bool = False) -> frames.Start:
        """The message that begins it, where the base station has ``base`` tokens of the prompt.

        ``drafts``: the device writes first, where that is not the mode's to say.
        """
        return frames.Start(
            generation=generation,
            base=base,
            ids=list(self.prompt[base:]),
            sampling=self.sampling,
            scheme=self.scheme,
            # Until the device has its own prompt in the cache, the target writes.
            mode="draft" if drafts else PHASES.get(self.mode, "draft"),
            max_tokens=self.max_tokens,
            eos_ids=list(self.eos_ids),
            seed=self.seed,
            surprisals=self.learn_temperature,
            suppressed_ids=list(self.suppressed_ids) or UNSET,
            logprobs=UNSET if self.logprobs is None else self.logprobs,
            streamed_surprisals=self.told or UNSET,
        )


def check(
    models: Models,
    history: Sequence[int],
    prompt: str | Sequence[int],
    *,
    max_tokens: int = 128,
    sampling: Sampling | Literal["target"] | None = None,
    scheme: AnyScheme | None = None,
    mode: Mode = "auto",
    gamma: int | None = None,
    seed: int | None = None,
    stop: str | Sequence[str] = (),
    eos_ids: Sequence[int] | None = None,
    suppressed_ids: Sequence[int] | None = None,
    append: bool = False,
    learn_temperature: bool = False,
    offline_after_s: float | None = None,
    draft_price: float | None = None,
    branches: int | None = None,
    logprobs: int | None = None,
) -> Request:
    """The request behind a ``history``. See ``Device.generate`` for what is asked.

    Raises ValueError, or TypeError for what is not even of the right kind.
    """
    welcome = models.welcome
    sampling = _sampling(sampling, welcome)
    scheme = _checked(scheme, sampling, models, tells=logprobs is not None)
    mode = modes.resolved(mode, modes.hindered(scheme, sampling, welcome, learns=learn_temperature))
    modes.check_price(draft_price, mode)
    branches = modes.branches(branches, mode, able=models.branches)
    _check_offline(offline_after_s, learn_temperature)
    if seed is None and scheme.shares_seed:
        seed = secrets.randbits(63)
    before = tuple(history) if append else ()
    ids = _prompt_ids(prompt, models, history, append=append)
    room = facts.room(len(before) + len(ids), welcome)
    request = Request(
        prompt=before + ids,
        prompt_tokens=len(ids),
        sampling=sampling,
        scheme=scheme,
        mode=mode,
        gamma=None if gamma is None else _whole("gamma", gamma, 1, MOST_GAMMA),
        max_tokens=min(_whole("max_tokens", max_tokens, 1), room),
        eos_ids=tuple(facts.eos_ids(eos_ids, welcome, models.eos_ids)),
        suppressed_ids=tuple(facts.suppressed_ids(suppressed_ids, welcome, models.shared)),
        seed=None if seed is None else _whole("seed", seed, -(1 << 63), (1 << 64) - 1),
        stop=stop_strings(stop),
        learn_temperature=learn_temperature,
        offline_after_s=offline_after_s,
        draft_price=draft_price,
        branches=branches,
        logprobs=None if logprobs is None else _logprobs(logprobs, welcome),
        told=mode == "auto" and modes.asks(scheme, sampling, welcome),
    )
    _check_message(request)
    return request


def _whole(name: str, value: int, least: int, most: int | None = None) -> int:
    """A whole number of any kind, numpy's too. Raises ValueError for any other number or thing."""
    try:
        number = operator.index(value)
    except TypeError:
        raise ValueError(f"{name} must be a whole number, not {value!r}") from None
    if number < least or (most is not None and number > most):
        bounds = f"at least {least}" if most is None else f"between {least} and {most}"
        raise ValueError(f"{name} must be {bounds}, not {value}")
    return number


def _logprobs(count: int, welcome: frames.Welcome) -> int:
    """How many of the likeliest ids are told. Raises ValueError where they are not to be had."""
    if frames.LOGPROBS not in welcome.features:
        raise ValueError(
            f"logprobs cannot be told by this base station (it lacks the feature"
            f" {frames.LOGPROBS}): update it, or do without"
        )
    return _whole("logprobs", count, 0, MOST)


def _sampling(sampling: Sampling | Literal["target"] | None, welcome: frames.Welcome) -> Sampling:
    """What is asked for. Raises ValueError for what is none, or this base station cannot apply."""
    if sampling == "target":
        sampling = facts.suggested(welcome)
    sampling = Sampling() if sampling is None else sampling
    if not isinstance(sampling, Sampling):
        raise ValueError(f"sampling must be a Sampling or 'target', not {sampling!r}")
    sampling.check()
    if sampling.states_more and frames.PENALTIES not in welcome.features:
        raise ValueError(
            "this base station cannot apply logit_bias, presence_penalty or frequency_penalty (it"
            f" lacks the feature {frames.PENALTIES}): update it, or do without"
        )
    if any(token >= welcome.vocab_size for token, _ in sampling.pairs):
        raise ValueError(f"logit_bias has ids that are not among the target's {welcome.vocab_size}")
    return sampling


def _check_offline(after_s: float | None, learns: bool) -> None:
    """Raise ValueError for a time that is none, or beside an option that rules it out."""
    if after_s is not None and not isinstance(after_s, int | float):
        raise ValueError(f"offline_after_s must be a number of seconds, not {after_s!r}")
    if after_s is not None and not 0.0 <= after_s < math.inf:
        raise ValueError(f"offline_after_s must not be negative, but is {after_s}")
    if after_s is not None and learns:
        raise ValueError("offline_after_s and learn_temperature do not go together; leave one")


def _checked(
    scheme: AnyScheme | None, sampling: Sampling, models: Models, *, tells: bool
) -> AnyScheme:
    """The scheme as it is stated, the usual one for None. Raises ValueError for one that does not
    fit these models, or not this base station."""
    welcome = models.welcome
    scheme = scheme or topk.usual(k=min(topk.K, models.shared))
    if not isinstance(scheme, AnyScheme):
        raise ValueError(f"the scheme must be one of {', '.join(schemes.BY_NAME)}, not {scheme!r}")
    scheme.check(models.shared)
    if type(scheme) not in (schemes.BY_NAME.get(name) for name in welcome.schemes):
        raise ValueError(
            f"the base station does not accept {scheme.name}; it accepts"
            f" {', '.join(welcome.schemes)}"
        )
    most = schemes.in_effect(scheme, greedy=sampling.greedy).longest(
        welcome.vocab_size, frames.MAX_MESSAGE_BYTES, welcome.frame_entries
    )
    if not most:
        raise ValueError(
            f"one drafted token of {scheme.name} is more than a message of"
            f" {frames.MAX_MESSAGE_BYTES} bytes and {welcome.frame_entries} entries holds; send"
            " fewer entries with topk"
        )
    return modes.corrected(scheme, welcome, tells=tells)


def _prompt_ids(
    prompt: str | Sequence[int], models: Models, history: Sequence[int], *, append: bool
) -> tuple[int, ...]:
    """The ids of a prompt. Raises ValueError for one that is empty, or not for these models."""
    tokenizer, welcome = models.tokenizer, models.welcome
    if isinstance(prompt, str) and not append:
        ids = prompt_ids(prompt, history, tokenizer, models.detokenizer, welcome)
    elif isinstance(prompt, str):
        ids = facts.prompt_ids(prompt, tokenizer, welcome, first=not history)
    else:
        try:
            ids = list(prompt)
        except TypeError:
            raise ValueError(f"the prompt is neither text nor ids: {prompt!r}") from None
    if not ids or not len(prompt):
        raise ValueError("the prompt is empty; give at least one character")
    try:
        ids = [operator.index(token) for token in ids]
    except TypeError:
        raise ValueError("the prompt is neither text nor ids, which are whole numbers") from None
    if not all(0 <= token < models.shared for token in ids):
        raise ValueError(
            f"the prompt has ids that are not among the {models.shared} of both models"
        )
    return tuple(ids)


def _check_message(request: Request) -> None:
    """Raise ValueError where the base station could not read the message that begins all this.

    The whole prompt has to fit one: over a new connection all of it may have to be sent.
    """
    try:
        data = frames.encode(request.start(1, 0))
        frames.decode(data)
    except (TypeError, OverflowError, ValueError) as error:
        raise ValueError(f"an option of the request has a wrong value: {error}") from None
    if len(data) > frames.MAX_MESSAGE_BYTES:
        raise ValueError(
            f"the prompt's {len(request.prompt)} tokens take {len(data)} bytes, where a message"
            f" holds {frames.MAX_MESSAGE_BYTES}; shorten it"
        )

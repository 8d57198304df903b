"""A request's body as a value: what is known of OpenAI's and vLLM's parameters, checked by name."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any, TypeVar, cast

import msgspec

from device_runtime.serve.errors import ApiError, unsupported, wrong
from draftlink.distribution.sampling import Sampling
from draftlink.host.plain import printable
from draftlink.protocol.logprobs import MOST

log = logging.getLogger("draftlink.serve")

MOST_CHOICES = 16  # texts of one request
DEFAULT_TOKENS = 16  # of a completion that states none, as OpenAI's
ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
MOST_NAMED = 100  # fields that are named in the log, once each
_PATH = re.compile(r" - at `\$\.?(?:\[\.\.\.\])?([^`]*)`$")

T = TypeVar("T", bound="Common")


class StreamOptions(msgspec.Struct, frozen=True):
    """What a stream has beside the text."""

    include_usage: bool | None = None


class Common(msgspec.Struct, frozen=True, kw_only=True):
    """What both endpoints take. None is as if a parameter were not there."""

    model: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    n: int | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    max_tokens: int | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    ignore_eos: bool | None = None

    @property
    def usage(self) -> bool:
        """Whether a stream ends with what it took."""
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def choices(self) -> int:
        """Texts for each prompt. Raises ApiError."""
        count = 1 if self.n is None else self.n
        if not 1 <= count <= MOST_CHOICES:
            raise wrong("n", f"it must be between 1 and {MOST_CHOICES}, not {count}")
        return count

    @property
    def stops(self) -> tuple[str, ...]:
        """Stop strings; clients send empty ones, which are none."""
        stop = self.stop
        stops = () if stop is None else (stop,) if isinstance(stop, str) else tuple(stop)
        return tuple(each for each in stops if each)

    def seed_of(self, index: int) -> int | None:
        """The seed of a choice: the first has the request's own, the others those behind it."""
        return None if self.seed is None else (self.seed + index) % (1 << 63)

    def sampling(self, usual: Sampling) -> Sampling:
        """What is stated, over the model's ``usual``. Raises ApiError."""
        stated: dict[str, Any] = {
            name: value
            for name in ("temperature", "top_p", "min_p", "repetition_penalty")
            if (value := getattr(self, name)) is not None
        }
        for name in ("presence_penalty", "frequency_penalty"):
            if value := getattr(self, name):  # 0 is off, and need not be known
                stated[name] = value
        if self.logit_bias:
            stated["logit_bias"] = self._bias()
        if self.top_k is not None:
            stated["top_k"] = max(0, self.top_k)  # vLLM's -1 is off, too
        found = msgspec.structs.replace(usual, **stated)
        try:
            found.check()
        except ValueError as error:
            raise ApiError(
                400, str(error), param=str(error).partition(" ")[0], code="invalid_value"
            ) from None
        return found

    def _bias(self) -> tuple[tuple[int, float], ...]:
        try:
            pairs = {int(token): value for token, value in (self.logit_bias or {}).items()}
        except ValueError:
            raise wrong("logit_bias", 'its keys must be ids, such as "50256"') from None
        return tuple(sorted(pairs.items()))


class Part(msgspec.Struct, frozen=True):
    """A part of what a message says."""

    type: str
    text: str | None = None


class Message(msgspec.Struct, frozen=True):
    """One turn of a chat."""

    role: str
    content: str | list[Part] | None = None
    tool_calls: list[Any] | None = None


class ChatRequest(Common, frozen=True, kw_only=True):
    """The body of /v1/chat/completions."""

    messages: list[Message]
    max_completion_tokens: int | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None

    @property
    def likeliest(self) -> int | None:
        """Of how many ids log-probabilities are told with each token; None for none, nor its own.

        ``top_logprobs``, where ``logprobs`` asks for any. Raises ApiError.
        """
        count = self.top_logprobs or 0
        if self.logprobs:
            return _count("top_logprobs", count)
        if count:
            raise wrong("top_logprobs", "it is told only with logprobs: true")
        return None

    @property
    def most(self) -> int | None:
        """Tokens of a text; None for as many as there is room for."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    def turns(self) -> list[dict[str, str]]:
        """The chat as a template takes it. Raises ApiError."""
        if not self.messages:
            raise wrong("messages", "there is none; give at least one")
        return [_turn(f"messages[{i}]", message) for i, message in enumerate(self.messages)]


class TextRequest(Common, frozen=True, kw_only=True):
    """The body of /v1/completions."""

    prompt: str | list[str | int | list[int]]
    logprobs: int | bool | None = None

    @property
    def likeliest(self) -> int | None:
        """As of a chat; ``logprobs`` is their number here. Raises ApiError."""
        if self.logprobs is None or self.logprobs is False:
            return None
        if self.logprobs is True:
            raise wrong("logprobs", f"it must be a number of ids, from 0 to {MOST}")
        return _count("logprobs", self.logprobs)

    @property
    def most(self) -> int | None:
        """Tokens of a text."""
        return DEFAULT_TOKENS if self.max_tokens is None else self.max_tokens

    def prompts(self) -> list[str | list[int]]:
        """Texts or ids to go on from. Raises ApiError."""
        prompt = self.prompt
        if isinstance(prompt, str):
            return [prompt]
        if not prompt:
            raise wrong("prompt", "it is empty; give at least one character")
        if all(isinstance(each, int) for each in prompt):
            return [cast("list[int]", prompt)]
        if any(isinstance(each, int) for each in prompt):
            raise wrong("prompt", "ids and texts are mixed; give one or the other")
        if len(prompt) > MOST_CHOICES:
            raise wrong("prompt", f"there are {len(prompt)}; give at most {MOST_CHOICES}")
        return cast("list[str | list[int]]", prompt)


# Values that ask for nothing; anything else is refused by name rather than silently left out.
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "tools": ([],),
    "functions": ([],),
    "tool_choice": ("none", "auto"),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"], []),
    "audio": (),
    "prediction": (),
    "top_logprobs": (0,),
    "prompt_logprobs": (0,),
    "echo": (False,),
    "suffix": ("",),
    "best_of": (1,),
    "use_beam_search": (False,),
    "guided_json": (),
    "guided_regex": (),
    "guided_choice": (),
    "guided_grammar": (),
    "structured_outputs": (),
    "grammar": ("",),
    "json_schema": ({},),
    "bad_words": ([],),
    "allowed_token_ids": (),
    "logits_processors": ([],),
    "stop_token_ids": ([],),
    "min_tokens": (0,),
    "prompt_embeds": (),
    "continue_final_message": (False,),
    "add_generation_prompt": (True,),
    "chat_template": (),
    "documents": ([],),
}
_told: set[str] = set()


def read(kind: type[T], body: bytes) -> T:
    """The body of a request. Raises ApiError."""
    try:
        said = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ApiError(400, f"the body is no JSON ({error})", code="invalid_json") from None
    if not isinstance(said, dict):
        raise ApiError(400, "the body is no JSON object", code="invalid_json")
    for name, neutral in _NEUTRAL.items():
        value = None if name in kind.__struct_fields__ else said.get(name)
        # The types of equals may differ: 0 is not False.
        if value is not None and not any(
            value == each and type(value) is type(each) for each in neutral
        ):
            raise unsupported(name, "this is not to be had here; leave it out")
    _tell(kind, said)
    try:
        return msgspec.convert(said, kind)
    except msgspec.ValidationError as error:
        text = str(error)
        found = _PATH.search(text)
        param = found[1] if found and found[1] else _missing(text)
        raise ApiError(400, text, param=param, code="invalid_value") from None


def _count(name: str, count: int) -> int:
    if not 0 <= count <= MOST:
        raise wrong(name, f"it must be between 0 and {MOST}, not {count}")
    return count


def _missing(text: str) -> str | None:
    found = re.search(r"missing required field `(\w+)`", text)
    return found[1] if found else None


def _tell(kind: type[Common], said: dict[str, Any]) -> None:
    """Name each field that nobody here knows, once."""
    for name in said.keys() - set(kind.__struct_fields__) - _NEUTRAL.keys() - _told:
        if len(_told) >= MOST_NAMED:
            return
        _told.add(name)
        log.warning("the request's field %s is not known here, and ignored", printable(name, 100))


def _turn(place: str, message: Message) -> dict[str, str]:
    if message.role not in ROLES:
        raise unsupported(f"{place}.role", f"it must be one of {', '.join(ROLES)}")
    if message.tool_calls:
        raise unsupported(f"{place}.tool_calls", "there are no tools here")
    content = message.content
    if content is None:
        raise wrong(f"{place}.content", "it is missing; give a text")
    if isinstance(content, list):
        texts = []
        for i, part in enumerate(content):
            if part.type not in ("text", "input_text") or part.text is None:
                raise unsupported(f"{place}.content[{i}].type", "only parts of text are read")
            texts.append(part.text)
        content = "\n".join(texts)
    return {"role": ROLES[message.role], "content": content}

"""What is served: a device, its conversations and template, and how a request becomes a text."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePath

from device_runtime import facts
from device_runtime.device import Coupled, Device
from device_runtime.request import Options
from device_runtime.result import Mode
from device_runtime.serve.answer import Wanted
from device_runtime.serve.asked import ChatRequest, TextRequest
from device_runtime.serve.conversations import Conversations
from device_runtime.serve.errors import ApiError, unsupported
from device_runtime.spelling import Spelling
from device_runtime.talk import MOST
from device_runtime.templates.template import Template, TemplateError
from draftlink.distribution.sampling import Sampling
from draftlink.protocol.frames import Welcome
from draftlink.schemes import AnyScheme

COUPLED = Coupled()
CONVERSATIONS = 4  # KV caches of the draft


@dataclass(frozen=True)
class Choices:
    """How every text is written. With ``coupled`` a seed fixes it, on any link."""

    scheme: AnyScheme = COUPLED
    mode: Mode = "auto"


class Service:
    """Made by ``open``; ``close`` leaves the base station, and ends the template's process."""

    def __init__(
        self,
        device: Device,
        template: Template | None,
        welcome: Welcome,
        conversations: Conversations,
        *,
        name: str | None,
        choices: Choices,
    ) -> None:
        self.conversations = conversations
        self._device, self._template, self._welcome = device, template, welcome
        self._choices = choices
        self.name = name or PurePath(welcome.model).name or "draftlink"
        self.card = {
            "id": self.name,
            "object": "model",
            "created": int(time.time()),
            "owned_by": "draftlink",
            "max_model_len": welcome.context,
        }

    @classmethod
    async def open(
        cls,
        device: Device,
        template: Template | None,
        *,
        most: int = CONVERSATIONS,
        name: str | None = None,
        choices: Choices | None = None,
    ) -> Service:
        """Greet the base station with a first conversation. Raises LinkError, TemplateError.

        ``device`` need not be open. ``name``: of the model, the target's if not given.
        """
        conversations = Conversations(device, most)
        first = await conversations.take([])
        conversations.give(first)
        if template is not None:
            template.start()
        return cls(
            device, template, first.client.welcome, conversations,
            name=name, choices=choices or Choices(),
        )  # fmt: skip

    async def close(self) -> None:
        """The end."""
        await self._device.close()
        if self._template is not None:
            self._template.close()

    async def chat(self, asked: ChatRequest) -> list[Wanted]:
        """The texts that a request asks for, each the assistant's next turn. Raises ApiError."""
        self.check_model(asked.model)
        if self._template is None:
            raise unsupported(
                "messages",
                "this model has no chat template; use /v1/completions, or serve it with"
                " --chat-template FILE",
            )
        turns = asked.turns()
        try:
            text = await self._template.rendering(turns, more=asked.chat_template_kwargs)
        except TemplateError as error:
            raise ApiError(400, str(error), param="messages", code="invalid_value") from None
        ids = self._device.tokenizer.encode(text, add_special_tokens=False).ids
        return [self._wanted(asked, ids, i) for i in range(asked.choices)]

    def texts(self, asked: TextRequest) -> list[Wanted]:
        """Those of a completion, of one prompt after the other. Raises ApiError."""
        self.check_model(asked.model)
        found = []
        for prompt in asked.prompts():
            ids = self._ids(prompt) if isinstance(prompt, str) else prompt
            found += [self._wanted(asked, ids, i) for i in range(asked.choices)]
        return found

    def _ids(self, prompt: str) -> list[int]:
        try:
            return facts.prompt_ids(prompt, self._device.tokenizer, self._welcome, first=True)
        except ValueError as error:
            raise ApiError(400, str(error), param="prompt", code="invalid_value") from None

    def check_model(self, name: str | None) -> None:
        """Raise ApiError for another model than the one that there is."""
        if name not in (None, "", self.name):
            raise ApiError(
                404,
                f"there is no model {name!r} here; the one that is served is {self.name!r}",
                param="model",
                code="model_not_found",
            )

    @cached_property
    def spelling(self) -> Spelling:
        """How single tokens are written."""
        return Spelling(self._device.tokenizer, self._device.detokenizer)

    def _wanted(self, asked: ChatRequest | TextRequest, ids: list[int], index: int) -> Wanted:
        options: Options = {
            "max_tokens": MOST if asked.most is None else asked.most,
            "sampling": asked.sampling(self._welcome.sampling or Sampling()),
            "scheme": self._choices.scheme,
            "mode": self._choices.mode,
            "seed": asked.seed_of(index),
            "stop": asked.stops,
            "eos_ids": () if asked.ignore_eos else None,
            "logprobs": asked.likeliest,
        }
        return Wanted(ids, options)

"""A chat: turns, a template that writes them, and a conversation that goes on with them."""

from __future__ import annotations

from typing import Any, Unpack

from tokenizers import Tokenizer

from device_runtime.conversation import Conversation
from device_runtime.generation import Generation
from device_runtime.request import Options
from device_runtime.templates.template import Template

MOST = 1 << 15  # tokens of an answer where nobody says; a base station allows no more by default
NO_TEMPLATE = (
    "this bundle has no chat template: its model was not made for chats, or its files did not say;"
    " give one as a Jinja file"
)


class Talk:
    """``turns``: what was said, as OpenAI's messages; ``system``: what stands before it."""

    def __init__(
        self, conversation: Conversation, tokenizer: Tokenizer, template: Template, system: str = ""
    ) -> None:
        self.turns: list[dict[str, Any]] = []
        self.system = system
        self._conversation, self._tokenizer, self._template = conversation, tokenizer, template

    async def say(self, text: str, **options: Unpack[Options]) -> Generation:
        """The answer to a turn of the user's, yet to be iterated; ``heard`` makes it a turn, too.

        Raises TemplateError and ValueError for what cannot be said; then nothing was.
        """
        said = {"role": "user", "content": text}
        before = [{"role": "system", "content": self.system}] if self.system else []
        written = await self._template.rendering([*before, *self.turns, said])
        ids = self._tokenizer.encode(written, add_special_tokens=False).ids
        options.setdefault("max_tokens", MOST)
        generation = self._conversation.generate(ids, **options)
        self.turns.append(said)
        return generation

    def heard(self, generation: Generation) -> None:
        """An answer has ended, or was cut short: what stands of it is the assistant's turn."""
        if generation.text:
            self.turns.append({"role": "assistant", "content": generation.text})
        else:  # nothing was answered: the turn may be said again
            del self.turns[-1]

    def reset(self) -> None:
        """Forget what was said; the system's turn stays."""
        self.turns.clear()

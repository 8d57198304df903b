"""How a chat is written, as data: what a client that runs no template writes around each turn.

``draftlink export`` finds it, and writes it into a manifest only where it says what the template
says (``export.chat``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

Words = Annotated[str, Meta(max_length=1 << 16)]


class Part(msgspec.Struct, frozen=True):
    """A role's turns: ``prefix``, what is said, ``suffix``.

    ``trim``: without white space (Python's) at both ends. ``hidden``: what is said is written from
    behind the last of these on, and behind the newlines that follow it: a model's thoughts are not.
    """

    prefix: Words
    suffix: Words
    trim: bool = False
    hidden: Annotated[str, Meta(min_length=1, max_length=100)] | None = None

    def write(self, said: str) -> str:
        """What is said, as it is written. Raises ValueError where that is nothing."""
        if not said.strip():
            raise ValueError("a turn says nothing")
        if self.hidden is not None and self.hidden in said:
            said = said.split(self.hidden)[-1].lstrip("\n")
        return said.strip() if self.trim else said


class Form(msgspec.Struct, frozen=True):
    """A chat: ``begin``, turns of user and assistant by turns, and ``answer`` behind the last.

    Where it has a ``system`` turn, that stands first, in the place of ``begin`` and of the prefix
    of the user's turn behind it: many models write both as one turn.
    """

    begin: Words
    user: Part
    assistant: Part
    answer: Words
    system: Part | None = None

    def render(self, turns: Sequence[Mapping[str, str]]) -> str:
        """The text that the model goes on from. Raises ValueError for turns that are no such chat.

        ``turns``: each has ``role`` and ``content``; the last is the user's.
        """
        text, rest = self.begin + self.user.prefix, list(turns)
        if rest and rest[0]["role"] == "system":
            if self.system is None:
                raise ValueError("this model's chats have no system turn")
            part = self.system
            text = part.prefix + part.write(rest.pop(0)["content"]) + part.suffix
        for number, turn in enumerate(rest):
            due = "assistant" if number % 2 else "user"
            if turn["role"] != due:
                raise ValueError(f"a turn of {turn['role']!r}, where {due!r} is due")
            part = self.assistant if number % 2 else self.user
            text += (part.prefix if number else "") + part.write(turn["content"]) + part.suffix
        if len(rest) % 2 == 0:
            raise ValueError("the last turn is not the user's")
        return text + self.answer

"""A chat template as data: found by asking the template, and believed where it always agrees.

A phone has no Jinja. What it writes around each turn is cut out of a few rendered chats, and held
to the template over 50 made-up ones; where one of them differs there is no such form, and a client
without templates offers plain text alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from device_runtime.model.bundle import Bundle
from device_runtime.templates.form import Form, Part
from device_runtime.templates.template import TemplateError
from export.stage import Stage

CHATS = 50
SEED = 28
MOST_TURNS = 7  # of user and assistant
Turns = Sequence[dict[str, str]]
Render = Callable[[Turns, bool], str]  # turns, and whether the answer begins behind them
_SYSTEM, _USER, _ASSISTANT, _LAST = "zqSYSTEMqz", "zqFIRSTqz", "zqSECONDqz", "zqTHIRDqz"
_THOUGHT = "</think>"
# What people and models write, and what a template may do something with.
_SAID = (
    "Hello!", "Why is the sky blue?", "2 < 3 && 3 > 2", "Größe: 5 µm · 日本語 · 👩\u200d🚀",
    "{{ bos_token }}", "{% if x %}y{% endif %}", "a\nb\n\nc", "\n\n  indented\n", "trailing \t \n",
    "\u00a0no break\u2003",
    "<think>\nLet me see.\n</think>\n\nYes.", "'quoted' \"twice\" \\n", "# Title\n\n- one\n- two\n",
    "```python\nprint('x')\n```", "\x1cseparated\x85", "None", "0",
)  # fmt: skip


def form(stage: Stage) -> Form | None:
    """How the chats of a bundle in the making are written; None where no form says what it says.

    Raises BundleError.
    """
    template = Bundle(stage.folder, stage.manifest).template()
    if template is None or "strftime_now" in str(stage.manifest.chat_template):
        return None  # what it says today is not what it will say tomorrow
    try:
        return found(lambda turns, answers: template.render(turns, answers=answers))
    finally:
        template.close()


def found(render: Render) -> Form | None:
    """The form of a template that renders like that; None where there is none."""
    try:
        whole = _cut(render)
        plain = None if whole is None else replace(whole, system=None)
        for each in (whole, plain):
            if each is not None and agrees(each, render):
                return each
    except (TemplateError, ValueError):
        pass  # it makes nothing of such turns
    return None


def agrees(form: Form, render: Render) -> bool:
    """Whether it says what the template says of ``CHATS`` made-up chats. Raises TemplateError."""
    source = random.Random(SEED)
    return all(
        form.render(turns) == render(turns, True)
        for turns in (made_up(source, form.system is not None) for _ in range(CHATS))
    )


def made_up(source: random.Random, system: bool) -> list[dict[str, str]]:
    """A chat that ends with the user; with ``system`` half of them begin with such a turn."""
    roles = ["user", "assistant"] * (MOST_TURNS // 2 + 1)
    roles = roles[: source.randrange(1, MOST_TURNS + 1, 2)]
    if system and source.random() < 0.5:
        roles.insert(0, "system")
    return [
        {"role": role, "content": "".join(source.choices(_SAID, k=source.randint(1, 3)))}
        for role in roles
    ]


def _turns(*said: str) -> list[dict[str, str]]:
    roles = {_SYSTEM: "system", _ASSISTANT: "assistant"}
    return [
        {"role": next((r for s, r in roles.items() if s in each), "user"), "content": each}
        for each in said
    ]


def _cut(render: Render) -> Form | None:
    """What stands around the turns of a few chats. Raises TemplateError."""
    head, tail = _around(render(_turns(_USER), False), _USER)
    asked = render(_turns(_USER), True)
    chat = render(_turns(_USER, _ASSISTANT, _LAST), False)
    before, rest = _around(chat, _USER)
    middle, rest = _around(rest, _ASSISTANT)
    between, end = _around(rest, _LAST)
    if not (before == head and end == tail and middle.startswith(tail)):
        return None
    if not asked.startswith(head + _USER + tail):
        return None
    # Where an assistant's suffix ends and the user's prefix begins is not to be seen. Wherever it
    # is cut, as long as ``head`` ends so too: a chat ends with a user's turn.
    shared = 0
    while shared < min(len(head), len(between)) and head[-1 - shared] == between[-1 - shared]:
        shared += 1
    prefix, begin = head[len(head) - shared :], head[: len(head) - shared]
    user = Part(prefix, tail, *_habits(render, _USER))
    assistant = Part(
        middle[len(tail) :],
        between[: len(between) - shared],
        *_habits(render, _USER, _ASSISTANT, _LAST),
    )
    answer = asked[len(head + _USER + tail) :]
    return Form(begin, user, assistant, answer, _system(render))


def _system(render: Render) -> Part | None:
    """A system turn, up to what the user says behind it; None where there is none."""
    try:
        before, rest = _around(render(_turns(_SYSTEM, _USER), False), _SYSTEM)
        return Part(before, _around(rest, _USER)[0], *_habits(render, _SYSTEM, _USER))
    except (TemplateError, ValueError):
        return None


def _habits(render: Render, *said: str) -> tuple[bool, str | None]:
    """Whether a turn is trimmed, and what hides its beginning: the second of three, or the first.

    Raises TemplateError.
    """
    place = len(said) // 2 if len(said) > 2 else 0

    def shows(content: str) -> bool:
        changed = [*said[:place], content, *said[place + 1 :]]
        return content in render(_turns(*changed), False)

    spaced = f"\n {said[place]}\t\n"
    thought = f"{said[place]}{_THOUGHT}{said[place]}"
    return not shows(spaced), None if shows(thought) else _THOUGHT


def _around(text: str, said: str) -> tuple[str, str]:
    """What stands before and behind. Raises ValueError where it is not there once."""
    before, behind = text.split(said)
    return before, behind

"""Chats as models' templates write them, for the JVM to write them the same."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import msgspec

from device_runtime.templates.form import Form
from device_runtime.templates.template import Template
from export import chat
from tests.chats import TEMPLATES

TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
EACH = 50  # chats of each template
WRONG = [
    [], ["assistant"], ["user", "user"], ["user", "assistant"], ["system"], ["user", "system"],
]  # fmt: skip


def write(folder: Path) -> None:
    """``chats.jsonl``: a form, turns, and their text; without one the turns are no such chat."""
    lines = []
    for name, source in TEMPLATES.items():
        template = Template(source, TOKENS)
        try:
            form = chat.found(lambda turns, answers, t=template: t.render(turns, answers=answers))  # type: ignore[misc]
            assert form is not None, name
            lines += _of(form, lambda turns, t=template: t.render(turns))  # type: ignore[misc]
        finally:
            template.close()
    with (folder / "chats.jsonl").open("w") as out:
        out.writelines(json.dumps(line) + "\n" for line in lines)


def _of(form: Form, render: Callable[[chat.Turns], str]) -> list[dict[str, object]]:
    source = random.Random(28)
    said = msgspec.to_builtins(form)
    chats = [chat.made_up(source, True) for _ in range(EACH)]
    lines = [{"form": said, "turns": turns, "text": render(turns)} for turns in chats]
    wrong = [[{"role": role, "content": "x"} for role in roles] for roles in WRONG]
    wrong.append([{"role": "user", "content": " \x85\u2003"}])
    return [*lines, *({"form": said, "turns": turns, "text": None} for turns in wrong)]

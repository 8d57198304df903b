"""A template as data says what the template says, or there is none."""

from __future__ import annotations

import random

import msgspec
import pytest

from device_runtime.model.bundle import Bundle, load_bundle
from device_runtime.templates.form import Form
from device_runtime.templates.template import Template
from export import chat
from export.stage import Stage
from tests.bundles import fake_bundle
from tests.chats import CHATML, TEMPLATES

TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
SEEDS = range(200)
# What a form cannot say, and a check that is too short would not see.
OTHERS = {
    "says the time": "{{ strftime_now('%d %b') if strftime_now is defined else '' }}" + CHATML,
    "numbers its turns": CHATML.replace(
        "message['role'] +", "message['role'] + loop.index|string +"
    ),
    "only the last keeps": CHATML.replace(
        "message['content']", "(message['content'] if loop.last else message['content'][:60])"
    ),
    "upper case": CHATML.replace("message['content']", "message['content']|upper"),
    "escapes": CHATML.replace("message['content']", "message['content']|e"),
    "counts": CHATML.replace("{% if add", "{{ messages|length }}{% if add"),
    "strips one end": CHATML.replace("message['content']", "message['content'].lstrip()"),
    "says it twice": CHATML.replace("message['content']", "message['content']*2"),
    "refuses": "{{ raise_exception('no') }}",
}


@pytest.fixture
def rendering():
    made = []

    def start(source: str):
        template = Template(source, TOKENS)
        made.append(template)
        return lambda turns, answers: template.render(turns, answers=answers)

    yield start
    for template in made:
        template.close()


def staged(folder, template: str | None, monkeypatch) -> Stage:
    """A bundle in the making, whose tokenizer is not asked for its tokens."""
    monkeypatch.setattr(Bundle, "tokens", lambda bundle: TOKENS)
    made = load_bundle(fake_bundle(folder, chat_template=template))
    return Stage(folder, folder, made.manifest, lambda step: None)


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_form_says_what_the_template_says(name, rendering):
    """On chats that it was not held to, of other words; each has a system turn in half of them."""
    render = rendering(TEMPLATES[name])
    form = chat.found(render)
    assert form is not None and form.system is not None
    again = msgspec.json.decode(msgspec.json.encode(form), type=Form)
    source = random.Random(1)
    for turns in (chat.made_up(source, True) for _ in SEEDS):
        assert again.render(turns) == render(turns, True)


@pytest.mark.parametrize("name", OTHERS)
def test_what_no_form_says_has_none(name, tmp_path, monkeypatch):
    assert chat.form(staged(tmp_path / "b", OTHERS[name], monkeypatch)) is None


def test_half_a_form_is_found():
    """The control of the check: a form that is a little wrong does not agree."""
    right = chat.found(lambda turns, answers: _plain(turns, answers))
    assert right is not None
    for wrong in (
        msgspec.structs.replace(right, answer=right.answer + " "),
        msgspec.structs.replace(right, begin="x"),
        msgspec.structs.replace(right, user=msgspec.structs.replace(right.user, trim=True)),
        msgspec.structs.replace(
            right, assistant=msgspec.structs.replace(right.assistant, hidden="</think>")
        ),
    ):
        assert not chat.agrees(wrong, _plain)


def _plain(turns, answers: bool) -> str:
    return "".join(f"<{t['role']}>{t['content']}\n" for t in turns) + "<assistant>" * answers


def test_a_bundle_says_how_its_chats_are_written(tmp_path, monkeypatch):
    """And one without a template says nothing."""
    form = chat.form(staged(tmp_path / "b", CHATML, monkeypatch))
    assert form is not None and form.user.prefix == "<|im_start|>user\n"
    assert chat.form(staged(tmp_path / "c", None, monkeypatch)) is None


@pytest.mark.parametrize(
    "roles", [[], ["assistant"], ["user", "user"], ["user", "assistant"], ["system"], ["tool"]]
)
def test_turns_that_are_no_such_chat_are_refused(roles):
    form = chat.found(_plain)
    assert form is not None
    with pytest.raises(ValueError, match="turn"):
        form.render([{"role": role, "content": "x"} for role in roles])
    with pytest.raises(ValueError, match="says nothing"):
        form.render([{"role": "user", "content": " \n"}])
    with pytest.raises(ValueError, match="no system turn"):
        msgspec.structs.replace(form, system=None).render(
            [{"role": "system", "content": "x"}, {"role": "user", "content": "y"}]
        )

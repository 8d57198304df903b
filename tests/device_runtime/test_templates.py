"""A chat template is a stranger's program: whatever it does comes to a text or one clear line."""

from __future__ import annotations

import subprocess
import threading

import pytest

from device_runtime.templates.template import Template, TemplateError


@pytest.fixture
def made():
    """Makes templates, whose processes end with the test."""
    templates: list[Template] = []

    def make(source: str, **options) -> Template:
        templates.append(Template(source, {"bos_token": "<s>", "eos_token": "</s>"}, **options))
        return templates[-1]

    yield make
    for template in templates:
        template.close()


HOSTILE = {
    "memory": ("{{ 'a' * 10**10 }}", "too much memory"),
    "a filter's memory": ("{{ 'x'|center(10**10) }}", "too much memory"),
    "a format's memory": ("{{ '%10000000000d' % 1 }}", "too much memory"),
    "doubling": (
        "{% set n = namespace(a='a') %}"
        "{% for i in range(64) %}{% set n.a = n.a + n.a %}{% endfor %}",
        "too much memory|took over",
    ),
    "a large number": ("{{ 9 ** (9 ** 9 - 1) }}", "took over|memory"),
    "a range": ("{% for i in range(10**9) %}{% endfor %}", "Range too big"),
    "time": (
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "took over 0.5 s",
    ),
    "output": ("{% for i in range(99999) %}{{ 'a' * 999 }}{% endfor %}", "writes more than"),
    "depth": ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion"),
    "objects": ("{{ ''.__class__.__mro__ }}", "unsafe"),
    "a way out": ("{{ ('{0.__class__.__mro__}'|attr('format'))(1) }}", "unsafe"),
    "changes": ("{{ messages.append(1) }}", "unsafe"),
    "files": ("{% include '/etc/passwd' %}", "no loader"),
    "imports": ("{% import 'os' as os %}{{ os }}", "no loader"),
    "its own error": ("{{ raise_exception('no\x1b[2J\\nway') }}", r"no\\x1b\[2J\\x0away"),
    "no Jinja": ("{% if", "unexpected"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_a_template_does_is_one_line(made, kind):
    source, says = HOSTILE[kind]
    template = made(source, within_s=0.5)
    for _ in range(2):  # and again: where its process had to be ended there is another
        with pytest.raises(TemplateError, match=says) as caught:
            template.render([{"role": "user", "content": "hi"}])
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_a_template_that_fails_once_goes_on_to_serve(made):
    template = made(
        "{% if messages %}{% for i in range(9**messages[0].n) %}{% endfor %}ok{% endif %}"
    )
    assert template.render([{"n": 1}]) == "ok"
    with pytest.raises(TemplateError, match="Range"):
        template.render([{"n": 9}])
    process = template._process
    assert template.render([{"n": 2}]) == "ok" and template._process is process


def test_a_process_that_was_killed_is_started_again(made):
    template = made("{{ messages }}")
    template.start()
    template._process.kill()
    template._process.wait()
    with pytest.raises(TemplateError, match="its process has ended"):
        template.render([])
    assert template.render([]) == "[]"


def test_threads_do_not_mix_their_chats(made):
    template = made("{{ messages[0] }}")
    found: dict[int, str] = {}
    threads = [
        threading.Thread(target=lambda n=n: found.update({n: template.render([f"{n}"])}))
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {n: f"{n}" for n in range(8)}


def test_closing_leaves_no_process(made):
    template = made("x")
    template.start()
    process = template._process
    assert isinstance(process, subprocess.Popen) and process.poll() is None
    template.close()
    assert process.poll() is not None

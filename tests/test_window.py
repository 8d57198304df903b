"""The drafting window against its golden vectors, and these against a reader of their own."""

from __future__ import annotations

import ast
import copy
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from device_runtime import writers
from device_runtime.drafting import (
    controller,
    epochs,
    estimators,
    levels,
    nearer,
    refuted,
    rows,
    stream,
)
from draftlink.planning import schedule
from tests import vector_files, window_estimates, window_reader, window_vectors
from tests.vector_files import Vector

FILE = json.loads(window_vectors.PATH.read_text())
VECTORS: list[Vector] = [
    {
        **vector,
        "limits": FILE["limits"] | vector["limits"],
        "estimates": FILE["estimates"][vector["estimates"]],
    }
    for vector in FILE["vectors"]
]
NAMES = [vector["name"] for vector in VECTORS]
each = pytest.mark.parametrize("vector", VECTORS, ids=NAMES)
Replay = Callable[[Vector], list[list[list[Any]]]]


def agrees(replay: Replay, vector: Vector) -> bool:
    """Whether what is due is the same at every step: decisions exactly, times to 1e-9."""
    try:
        found = replay(vector)
    except (AssertionError, IndexError):  # something is told that was not asked for
        return False
    assert len(found) == len(vector["steps"])
    for ours, (*_, theirs) in zip(found, vector["steps"], strict=True):
        if [action[0] for action in ours] != [action[0] for action in theirs]:
            return False
        for (name, *values), (_, *wanted) in zip(ours, theirs, strict=True):
            if name == "wait" and None not in (values[0], wanted[0]):
                if values[0] != pytest.approx(wanted[0], rel=1e-9, abs=0):
                    return False
            elif values != wanted:
                return False
    return True


def by_copies(window_of: Callable[[Vector], Any], step: Callable[..., Any]) -> Replay:
    """A replay in which a copy goes on as the original did, whatever that does meanwhile."""

    def replay(vector: Vector) -> list[list[list[Any]]]:
        window, found = window_of(vector), []
        for *given, _ in vector["steps"]:
            copied = copy.deepcopy(window)
            found.append(step(window, *given))
            window = copied
            assert step(window, *given) == found[-1]
        return found

    return replay


@each
def test_the_window_does_what_the_file_says(vector):
    assert agrees(window_vectors.replay, vector)


@each
def test_a_second_reader_does_too_and_no_comparison_is_near_a_tie(vector):
    window_estimates.Ties.least = 1.0
    assert agrees(window_reader.replay, vector)
    assert vector_files.NEAREST < window_estimates.Ties.least < 1.0


def test_a_window_is_a_value():
    in_copies = by_copies(window_vectors.window_of, window_vectors.step)
    assert all(agrees(in_copies, vector) for vector in VECTORS)


def imports(module: ModuleType) -> set[str | None]:
    """The modules that one imports."""
    tree = ast.parse(Path(str(module.__file__)).read_text())
    names = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Import)]
    return names | {alias.name for node in found for alias in node.names}


def test_the_second_reader_shares_nothing_with_the_project():
    allowed = {"__future__", "itertools", "math", "typing", "tests.window_estimates"}
    for module in (window_reader, window_estimates):
        assert imports(module) <= allowed


def test_the_file_is_what_the_generator_makes():
    assert list(window_vectors.CASES) == NAMES
    assert (FILE["limits"], FILE["estimates"]) == (window_vectors.LIMITS, window_vectors.ESTIMATES)
    for vector in FILE["vectors"]:
        made = window_vectors.vector_of(vector["name"])
        assert made | {"steps": None} == vector | {"steps": None}
        assert len(made["steps"]) == len(vector["steps"])


def test_every_action_event_and_situation_has_its_place():
    actions, events, links = Counter[str](), Counter[str](), Counter[str]()
    for vector in VECTORS:
        for *_, link, told, due in vector["steps"]:
            actions.update(action[0] for action in due)
            events.update(event[0] for event in told)
            links[link] += 1
    assert set(actions) == {
        *("draft", "send", "switch", "give back", "follow", "show", "guess", "reuse", "wait"),
        "void",
    }
    assert set(events) == {
        *("drafted", "waited", "reused", "guessed", "followed", "foretold", "told"),
        *("commit", "verdict", "proceed", "streamed", "switched"),
    }
    assert min(links[link] for link in ("", "lost", "unread")) >= 10
    due = [action for vector in VECTORS for step in vector["steps"] for action in step[-1]]
    assert {action[-1] for action in due if action[0] == "guess"} == {True, False}
    assert {action[-1] for action in due if action[0] == "send"} == {True, False}
    assert {action[-1] for action in due if action[0] == "switch"} == {"stream", "draft"}
    modes = set()
    for vector in VECTORS:
        window, was = window_vectors.window_of(vector), vector["controller"]["writer"]
        for *given, _ in vector["steps"]:
            window_vectors.step(window, *given)
            if window.mode != was:
                modes.add((was, window.mode))
                was = window.mode
    assert modes >= {
        ("run-ahead", "stream"),
        ("stream", "run-ahead"),
        ("run-ahead", "stop-and-wait"),
    }


CHANGED = [
    (epochs, "LATE", 0.2),
    (epochs, "BLOCK", 3),
    (epochs, "BACKLOG", 1),
    (stream, "LOOKS", 1),
    (stream, "BURST_S", 0.5),
    (controller, "DWELL_TOKENS", 2),
    (controller, "WAITS_BELOW", 0.1),
    (controller, "HYSTERESIS", 0.9),
    (controller, "LONGEST", 3),
    (controller, "LOOKS", (8, 8)),
    (controller, "LOOKS", (64, 64)),
    (controller, "TRUST", 1e9),
    (estimators, "MEMORY", 0.5),
    (estimators, "TEXT", 300.0),
    (estimators, "PUNCTUAL", 0.0),
    (levels, "MEMORY", 0.5),
    (levels, "FEW", 30),
    (estimators, "EDGES", (0.5,)),
    (levels, "FAR", 1.5),
    (estimators, "UNSURE", 0.0),
    (estimators, "PRIOR_JUDGED", 40.0),
    (rows, "STEADY", 1e9),
    (rows, "LATE", 20.0),
    (levels, "OTHER", 1.001),
    (nearer, "SHARE", 2.0),
    (nearer, "LEAST", 0.6),
    (nearer, "MOST", 0.05),
    (refuted, "HALF", 0.9),
    (refuted, "SUREST", 0.5),
    (refuted, "CERTAIN", 1e9),
]


@pytest.mark.parametrize(("module", "name", "value"), CHANGED, ids=[name for _, name, _ in CHANGED])
def test_a_window_with_another_constant_fails(monkeypatch, module, name, value):
    """Negative controls: the vectors tell it from the documented one."""
    monkeypatch.setattr(module, name, value)
    schedule.planned.cache_clear()
    assert not all(agrees(window_vectors.replay, vector) for vector in VECTORS)


@pytest.mark.parametrize("name", ["_opens", "_opened"])
def test_a_window_that_does_not_open_or_takes_the_prompt_for_a_step_fails(monkeypatch, name):
    """Negative controls."""
    never = property(lambda self: False, lambda self, value: None)
    monkeypatch.setattr(epochs.Epochs, name, never, raising=False)
    assert not all(agrees(window_vectors.replay, vector) for vector in VECTORS)


def test_a_window_that_takes_its_turns_for_slowness_fails():
    """Negative control: what the worker did for others is no time of a draft forward's."""
    (vector,) = (v for v in VECTORS if any(e[0] == "waited" for s in v["steps"] for e in s[3]))
    steps = [[*s[:3], [e for e in s[3] if e[0] != "waited"], s[4]] for s in vector["steps"]]
    assert not agrees(window_vectors.replay, {**vector, "steps": steps})


def test_the_shells_look_at_no_estimate():
    for path in Path(writers.__file__).parent.glob("*.py"):
        text = path.read_text()
        assert not any(word in text for word in ("estimates", ".choose(", ".plan(", "typical"))

"""The window where both ends write: its golden vectors, and a second reader of them."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from device_runtime.drafting import beside, estimators, levels, paths, rows, trials, worth
from device_runtime.drafting.worth import Worth
from tests import path_reader, path_vectors, vector_files, window_estimates
from tests.test_window import agrees, by_copies, imports

FILE = json.loads(path_vectors.PATH.read_text())
VECTORS = [path_vectors.whole(vector) for vector in FILE["vectors"]]
NAMES = [vector["name"] for vector in VECTORS]
each = pytest.mark.parametrize("vector", VECTORS, ids=NAMES)


@each
def test_the_window_does_what_the_file_says(vector):
    assert agrees(path_vectors.replay, vector)


@each
def test_a_second_reader_does_too_and_no_comparison_is_near_a_tie(vector):
    window_estimates.Ties.least = 1.0
    assert agrees(path_reader.replay, vector)
    assert vector_files.NEAREST < window_estimates.Ties.least < 1.0


def test_a_window_is_a_value():
    in_copies = by_copies(path_vectors.window_of, path_vectors.step)
    assert all(agrees(in_copies, vector) for vector in VECTORS)


def test_the_second_reader_shares_nothing_with_the_project():
    allowed = {"__future__", "math", "typing", "tests.window_estimates"}
    assert imports(path_reader) <= allowed


def test_the_file_is_what_the_generator_makes():
    assert list(path_vectors.CASES) == NAMES
    for name in ("limits", "given", "estimates"):
        assert FILE[name] == getattr(path_vectors, name.upper())
    for vector in FILE["vectors"]:
        made = path_vectors.vector_of(vector["name"])
        assert made | {"steps": None} == vector | {"steps": None}
        assert len(made["steps"]) == len(vector["steps"])


def test_every_action_event_and_situation_has_its_place():
    actions, events, links = Counter[str](), Counter[str](), Counter[str]()
    turns: set[tuple[bool, bool]] = set()
    rests, follows = set(), set()
    for vector in VECTORS:
        window = path_vectors.window_of(vector)
        for now, cached, link, told, due in vector["steps"]:
            actions.update(action[0] for action in due)
            events.update(event[0] for event in told)
            links[link] += 1
            was = window.turns
            path_vectors.step(window, now, cached, link, told)
            turns.add((was, window.turns))
            follows.add(window.follows)
            rests.add(window._trials.rest)
    assert set(actions) == {"draft", "propose", "show", "leave", "void", "wait"}
    assert set(events) == {"drafted", "waited", "written", "commit", "lost"}
    assert min(links[link] for link in ("", "lost", "unread")) >= 10
    due = [action for vector in VECTORS for step in vector["steps"] for action in step[-1]]
    assert {action[2] for action in due if action[0] == "propose"} == {True, False}
    assert {action[1] > 1 for action in due if action[0] == "draft"} == {True, False}
    assert len(turns) == 4 and follows == {True, False} and max(rests) == trials.REST[1]


CHANGED = [
    (worth, "BEGUN", 0.2),
    (worth, "MOST", 6),
    (paths, "LONG", 12),
    (trials, "TRIED", 3.0),
    (trials, "MEMORY", 0.5),
    (trials, "REST", (2, 64)),
    (paths, "LOOKS", (8, 12)),
    (paths, "LOOKS_DEAR", 8),
    (beside, "SLOWS", 3.0),
    (paths, "TRUST", 0.0),
    (worth, "EARLY", 2),
    (worth, "SEEN", 1),
    (worth, "CHEAP", 40.0),
    (worth, "CHEAP", 0.0),
    (paths, "BRIEF_S", 0.001),
    (paths, "BACKLOG", 0),
    (beside, "CLEAR", 0.4),
    (beside, "MARGIN", 0.3),
    (beside, "MIXED", 0.0),
    (beside, "STEPS", 1),
    (estimators, "MEMORY", 0.5),
    (levels, "FEW", 30),
    (levels, "SHARED", 3.0),
    (levels, "PLAIN", 1.25),
    (levels, "SOME", 8),
]


@pytest.mark.parametrize(
    ("module", "name", "value"), CHANGED, ids=[f"{n} {v}" for _, n, v in CHANGED]
)
def test_a_window_with_another_constant_fails(monkeypatch, module, name, value):
    """Negative controls: the vectors tell it from the documented one."""
    monkeypatch.setattr(module, name, value)
    assert not all(agrees(path_vectors.replay, vector) for vector in VECTORS)


@pytest.mark.parametrize("name", ["undisturbed", "forget"])
def test_a_window_that_does_not_forget_what_was_disturbed_fails(monkeypatch, name):
    """Negative controls: as turns begin a step takes less, and what rows add is not known."""
    owner = estimators.Estimates if name == "undisturbed" else rows.Rows
    monkeypatch.setattr(owner, name, lambda self: None)
    assert not all(agrees(path_vectors.replay, vector) for vector in VECTORS)


@pytest.mark.parametrize("name", ["turns", "_deep", "pays", "most", "_turn_s", "trip_s"])
def test_a_window_without_one_of_its_rules_fails(monkeypatch, name):
    """Negative controls: never in turns, of any depth, it always pays, no window, rows are free,
    a turn takes no more than a round trip."""
    instead = {"turns": False, "_deep": 64, "most": 64}
    if name in instead:
        rule = property(lambda self: instead[name])
    elif name == "trip_s":
        rule = property(lambda self: self._estimates.rtt.mean)
    elif name == "pays":
        rule = lambda self, alpha: True  # noqa: E731
    else:
        rule = lambda self: (self.costs_s()[1], 0.0)  # noqa: E731
    monkeypatch.setattr(Worth, name, rule)
    assert not all(agrees(path_vectors.replay, vector) for vector in VECTORS)


def test_a_window_that_sees_nothing_slowed_fails(monkeypatch):
    """Negative control: where the address is here, steps that forwards slow begin turns."""
    monkeypatch.setattr(
        Worth, "slowed", property(lambda self: False, lambda self, value: None), raising=False
    )
    assert not all(agrees(path_vectors.replay, vector) for vector in VECTORS)


@pytest.mark.parametrize("rule", ["never", "at a price", "as if all were slowed"])
def test_a_window_that_tries_turns_by_another_rule_fails(monkeypatch, rule):
    """Negative controls: it takes them to compare where that costs little, whether they pay or not;
    and knows from then on what a step takes alone."""
    if rule == "never":
        monkeypatch.setattr(levels.Work, "lacks", property(lambda self: False))
    elif rule == "at a price":
        pays = Worth.pays

        def priced(self, alpha):
            tries, self.tries = self.tries, False
            self._shared, shared = self._shared or tries, self._shared
            found = pays(self, alpha)
            self.tries, self._shared = tries, shared
            return found

        monkeypatch.setattr(Worth, "pays", priced)
    else:
        monkeypatch.setattr(levels.Work, "alone_s", property(lambda self: 0.0))
    assert not all(agrees(path_vectors.replay, vector) for vector in VECTORS)


@pytest.mark.parametrize("here", [True, False])
def test_a_window_that_takes_no_notice_of_the_address_fails(monkeypatch, here):
    """Negative control: where the address is here it looks as rarely as where looks slow steps."""
    monkeypatch.setattr(
        paths.Paths, "_here", property(lambda self: here, lambda self, value: None), raising=False
    )
    assert not all(agrees(path_vectors.replay, vector) for vector in VECTORS)


def test_a_window_that_drafts_beside_the_first_step_fails(monkeypatch):
    """Negative control: what a step takes without proposed tokens would not be known."""
    monkeypatch.setattr(paths.Paths, "_opens", property(lambda self: False))
    assert not all(agrees(path_vectors.replay, vector) for vector in VECTORS)

"""The vectors of ``golden/paths.json``: the window where both ends write, in a world of its own.

``python -m tests.path_vectors`` writes the file anew, as ``window_vectors`` does the other one. It
refuses a vector in which a comparison comes nearer than ``vector_files.NEAREST`` to a tie.
"""

from __future__ import annotations

import heapq
import json
import random
from pathlib import Path
from typing import Any, NamedTuple

from device_runtime.drafting.actions import Wait
from device_runtime.drafting.blocks import Proposed
from device_runtime.drafting.controller import Controller
from device_runtime.drafting.counts import Limits
from device_runtime.drafting.paths import PRICE, Paths
from tests import path_reader, vector_files
from tests.vector_files import Vector
from tests.window_vectors import KNOWN, estimates_of, plain

PATH = Path(__file__).parent / "golden" / "paths.json"
LIMITS = {"begins": 12, "ends": 150, "context": 2048, "message": 64}
GIVEN = {"gamma": None, "shared": False, "here": False, "step_s": 0.0, "row_s": 0.0, "price": PRICE,
         "offline_after_s": None}  # fmt: skip
GOOD = [[0.993, 150, 1], [0.94, 60, 3], [0.61, 20, 4]]
ESTIMATES: dict[str, Any] = {
    "cold": {"rtt": [0.0607]},
    "next door": {"rtt": [0.00113]},
    "at hand": {"rtt": [0.0093]},
    "known": KNOWN,
    "good": KNOWN | {"acceptance": GOOD},
    "poor": KNOWN | {"acceptance": [[0.83, 9, 21], [0.61, 11, 30], [0.07, 2, 30]]},
    "stalled": KNOWN | {"rtt": [0.7607]},
    "near": {"rtt": [0.0213], "draft": [[0.00139, False]] * 3, "verify": [[0.0133, False]] * 3,
             "acceptance": GOOD},
    "slowed": {"rtt": [0.0607], "draft": [[0.00969, False]] * 8 + [[0.01709, True]] * 9,
               "verify": [[0.0467, False]] * 2, "acceptance": GOOD},
}  # fmt: skip


def window_of(vector: Vector) -> Paths:
    """The window that a vector begins with."""
    limits = Limits(**vector["limits"], flight=256, foretells=True, corrects=False)
    given = dict(vector["given"])
    controller = Controller(estimates_of(vector["estimates"]), given.pop("gamma"))
    started_s = vector["started_s"]
    return Paths(controller, limits, vector["length"], started_s=started_s, **given)


def step(window: Paths, now: float, cached: int, link: str, events: list[Any]) -> list[list[Any]]:
    """Tell a window what has happened, and ask it until it waits."""
    found: list[list[Any]] = []
    waited_s = 0.0
    for name, *values in events:
        if name == "waited":
            waited_s = values[0]
        elif name == "drafted":
            if not window.drafted(now, [Proposed(*value) for value in values], waited_s):
                found.append(["void"])
        elif name == "written":
            window.heard(now)
            goes_on = window.written(now, *values[:3], step_s=values[3], rows=values[4])
            found += [] if goes_on else [["leave"]]
        elif name == "commit":
            window.commit(values[0], confirmed=values[1], refuted=values[2])
        else:
            assert name == "lost"
            window.lost()
    while True:
        actions = window.due(now, cached=cached, connected=link != "lost", unread=link == "unread")
        found += map(plain, actions)
        if isinstance(actions[-1], Wait):
            return found


def replay(vector: Vector) -> list[list[list[Any]]]:
    """What is due after each of a vector's steps."""
    window = window_of(vector)
    return [step(window, *given) for *given, _ in vector["steps"]]


class World:
    """A base station that writes step by step, a link and a draft, which play a vector's steps."""

    def __init__(self, vector: Vector, seed: int, **how: Any) -> None:
        self.vector, self.window, self.rng = vector, window_of(vector), random.Random(seed)
        self.draft_s, self.step_s = how.get("draft_s", 0.00969), how.get("step_s", 0.0467)
        self.rtt_s, self.accepts = how.get("rtt_s", 0.0607), how.get("accepts", 0.8)
        self.eos, self.patience_s = how.get("eos", 0.0), how.get("patience_s", 0.0)
        self.prompt_s = how.get("prompt_s", 0.0)  # before the first step
        self.row_s = how.get("row_s", 0.0)  # what each row adds to a step, of what is told of it
        self.slows, self.stepping = how.get("slows", 1.0), (0.0, 0.0)
        self.drags = how.get("drags", 1.0)  # what a forward under way at its end makes of a step
        self.shares, self.lost = how.get("shares", 0.0), how.get("lost", (1e9, 1e9))
        self.now, self.length = vector["started_s"], vector["length"]
        self.cached = self.length - 1
        self.nodes: list[tuple[float, bool, bool]] = []  # chance, EOS, whether the text has it
        self.shown = 0
        self.job = 0
        self.path = self.sent = 0
        self.held: list[bool] = []  # at the base station: of its path's nodes, if the text has them
        self.base, self.number = 0, -1
        self.begins = self.length  # of the path
        self.text = self.length
        self.comes: list[tuple[float, int, list[Any]]] = []
        self.steps: list[list[Any]] = []

    def at(self, seconds: float, what: list[Any], *, link: bool = False) -> None:
        at_s = round(self.now + max(seconds, 0.0) * self.rng.uniform(1.0, 1.004), 6)
        if link and self.lost[0] <= at_s < self.lost[1]:
            at_s = round(self.lost[1] + 0.01237, 6)
        heapq.heappush(self.comes, (at_s, len(self.steps) * 100 + len(self.comes), what))

    def play(self, steps: int) -> list[list[Any]]:
        self.at(self.rtt_s / 2.0 + self.prompt_s + self.step_s, ["step"])
        if self.lost[0] < 1e8:
            self.at(self.lost[1] - self.now, ["back"])
        self.ask([])
        while len(self.steps) < steps and self.length < self.vector["limits"]["ends"]:
            until = self.steps[-1][-1][-1][1]
            if until is not None and (not self.comes or until < self.comes[0][0]):
                self.now = round(max(until, self.now) + 0.000213, 6)
                self.ask([])
                continue
            self.now, _, (name, *values) = heapq.heappop(self.comes)
            getattr(self, f"on_{name}")(*values)
        return self.steps

    def ask(self, events: list[Any], *, unread: bool = False) -> None:
        lost = self.lost[0] <= self.now < self.lost[1]
        link = "lost" if lost else "unread" if unread else ""
        due = step(self.window, self.now, self.cached, link, events)
        self.steps.append([self.now, self.cached, link, events, due])
        for name, *values in due:
            if name == "draft":
                self.job = values[0]
                fed = self.length + len(self.nodes) - self.cached
                seconds = self.draft_s * (values[0] + 0.2 * max(fed - 1, 0))
                beside = self.stepping[0] <= self.now <= self.stepping[1] - seconds
                seconds *= self.slows if beside else 1.0
                busy = self.shares and self.rng.random() < self.shares
                waited_s = round(self.rng.uniform(0.003, 0.02), 6) if busy else 0.0
                self.at(seconds + waited_s, ["drafted", waited_s])
            elif name == "propose":
                said = [node[2] for node in self.nodes[self.sent : self.sent + values[0]]]
                self.sent += values[0]
                self.at(self.rtt_s / 2.0, ["arrives", self.path, self.begins, said], link=True)
            elif name == "leave":
                self.path, self.sent, self.begins = self.path + 1, 0, self.length
            elif name == "show":
                self.shown = len(self.nodes)

    def on_back(self) -> None:
        self.path, self.sent, self.begins = self.path + 1, 0, self.length
        self.ask([["lost"]])

    def on_drafted(self, waited_s: float) -> None:
        count, self.job = self.job, 0
        told: list[Any] = [["waited", waited_s]] if waited_s else []
        made = []
        right = all(node[2] for node in self.nodes)
        for _ in range(count):
            chance = self.rng.choice([0.993, 0.94, 0.83, 0.61, 0.27, 0.07])
            right = right and self.rng.random() < self.accepts
            made.append((chance, self.rng.random() < self.eos, right))
        self.nodes += made
        self.cached = self.length + len(self.nodes) - 1
        before = len(self.steps)
        self.ask([*told, ["drafted", *([chance, ends] for chance, ends, _ in made)]])
        if self.steps[before][-1][0] == ["void"]:
            self.nodes = self.nodes[count:]
            self.cached = min(self.cached, self.length)

    def on_arrives(self, path: int, base: int, said: list[bool]) -> None:
        if path != self.number:
            self.number, self.base, self.held = path, base, []
        self.held += said

    def on_step(self) -> None:
        """The base station has ended one; it writes, and begins the next at once or patiently."""
        mine = self.held[self.text - self.base :] if all(self.held[: self.text - self.base]) else []
        accepted = next((i for i, right in enumerate(mine) if not right), len(mine))
        accepted = min(accepted, self.vector["limits"]["ends"] - self.text - 1)
        self.text += accepted + 1
        drags = self.drags if self.job else 1.0
        told = ["written", accepted, accepted + 1, len(mine) + 1, drags]
        self.at(self.rtt_s / 2.0, told, link=True)
        begins = self.now + self.patience_s
        self.stepping = begins, begins + self.step_s
        self.at(self.step_s + self.patience_s, ["step"])

    def on_written(self, accepted: int, tokens: int, rows: int, drags: float) -> None:
        agreed = 0
        for node in self.nodes[:tokens]:
            if not node[2]:
                break
            agreed += 1
        differs = agreed < min(tokens, len(self.nodes))
        confirmed = min(agreed, self.shown)
        refuted = self.shown > confirmed and differs
        self.shown = 0 if refuted else self.shown - confirmed
        self.length += tokens
        if agreed == tokens:
            self.nodes, self.sent = self.nodes[tokens:], max(self.sent - tokens, 0)
        else:
            self.nodes = []
            self.cached = min(self.cached, self.length - tokens + agreed)
        if self.rng.random() < 0.15:  # a frame is there, and has not been looked at
            self.ask([], unread=True)
        step_s = (self.step_s + self.row_s * (rows - 1)) * drags * self.rng.uniform(1.0, 1.01)
        events = [["written", agreed, accepted, tokens, round(step_s, 6), rows]]
        self.ask([*events, ["commit", tokens, confirmed, refuted]])


class Case(NamedTuple):
    """A vector to be: what differs from the defaults, and in ``world`` of the world it plays in."""

    seed: int
    steps: int
    estimates: str
    world: dict[str, Any]
    changes: dict[str, Any]


def case(
    seed: int, steps: int, estimates: str, world: dict[str, Any] | None = None, **changes: Any
) -> Case:
    return Case(seed, steps, estimates, world or {}, changes)


TURNS = {"rtt_s": 0.000613, "draft_s": 0.00139, "step_s": 0.0133, "patience_s": 0.0111}
CASES = {
    "apart": case(1, 14, "good"),
    "apart, cold": case(2, 12, "cold"),
    "apart, cold, told": case(3, 12, "cold", step_s=0.0467, row_s=0.00113),
    "apart, one worker for several": case(5, 14, "known", {"shares": 0.6}),
    "turns": case(6, 18, "near", TURNS | {"prompt_s": 0.2}, shared=True),
    "turns, cold": case(
        7, 12, "cold", TURNS | {"draft_s": 0.0117}, shared=True, step_s=0.0133, row_s=0.000213
    ),
    "turns, dear rows": case(20, 15, "near", TURNS | {"row_s": 0.0017}, shared=True, row_s=0.0004),
    "turns, gamma, messages": case(8, 12, "near", TURNS, shared=True, gamma=7, message=3),
    "turns, hardly worth it": case(
        17, 30, "at hand", {"rtt_s": 0.0053, "draft_s": 0.00139, "step_s": 0.0081,
        "patience_s": 0.0207, "accepts": 0.7, "row_s": 0.0009}, shared=True, step_s=0.0053,
        row_s=0.0002,
    ),
    "turns, seen": case(9, 26, "slowed", {"patience_s": 0.0467}),
    "becomes turns": case(
        31, 37, "next door",
        {"slows": 1.35, "rtt_s": 0.00113, "patience_s": 0.0307, "drags": 1.2, "draft_s": 0.0077},
    ),
    "turns are tried": case(
        26, 20, "next door",
        {"slows": 2.1, "rtt_s": 0.00113, "patience_s": 0.0157, "accepts": 0.7, "draft_s": 0.0187,
         "drags": 1.3},
    ),
    "becomes turns, a path that goes on": case(
        22, 28, "next door",
        {"slows": 1.9, "rtt_s": 0.0207, "patience_s": 0.0307, "accepts": 1.0, "draft_s": 0.0187},
    ),
    "follows, and slows steps": case(
        2, 44, "known", {"rtt_s": 0.207, "accepts": 0.8, "draft_s": 0.0367, "drags": 1.5}
    ),
    "here, and slows steps": case(
        1, 17, "stalled",
        {"rtt_s": 0.207, "accepts": 0.8, "draft_s": 0.0197, "drags": 1.5}, here=True,
    ),
    "never right": case(12, 64, "poor", {"accepts": 0.0, "draft_s": 0.0407}, price=0.0),
    "dear": case(13, 14, "known", price=0.21),
    "too dear by a little": case(19, 12, "known", price=0.26),
    "an EOS": case(14, 20, "good", {"eos": 0.2}),
    "the limit": case(15, 30, "good", {"accepts": 0.95}, ends=25),
    "a full context": case(16, 22, "good", {"accepts": 0.95}, context=19),
    "a cut": case(17, 42, "good", {"lost": (3.2, 3.34)}),
    "a greeting that stalled": case(21, 9, "stalled"),
    "offline": case(18, 44, "good", {"lost": (3.2, 3.42), "accepts": 0.9}, offline_after_s=0.2),
}  # fmt: skip


def vector_of(name: str) -> Vector:
    """A vector, played by the project's window."""
    seed, steps, estimates, world, changes = CASES[name]
    vector = {
        "name": name,
        "length": 12,
        "started_s": 3.000317,
        "limits": {key: changes[key] for key in LIMITS if key in changes},
        "given": {key: changes[key] for key in GIVEN if key in changes},
        "estimates": estimates,
    }
    steps_due = World(whole(vector), seed, **world).play(steps)
    return json.loads(json.dumps({**vector, "steps": steps_due}))  # type: ignore[no-any-return]


def whole(vector: Vector) -> Vector:
    """A vector with what it is given written out."""
    limits, given = LIMITS | vector["limits"], GIVEN | vector["given"]
    estimates = ESTIMATES[vector["estimates"]]
    return {**vector, "limits": limits, "given": given, "estimates": estimates}


def ties(vector: Vector) -> float:
    """How near to a tie a comparison comes in a vector."""
    return vector_files.ties(path_reader.replay, whole(vector))


def main() -> None:
    """Write the file."""
    head = {"limits": LIMITS, "given": GIVEN, "estimates": ESTIMATES}
    vector_files.write(PATH, head, CASES, vector_of, ties)


if __name__ == "__main__":
    main()

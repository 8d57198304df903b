"""The vectors of ``golden/window.json``: made from a little world of its own, and replayed.

``python -m tests.window_vectors`` writes the file anew. It refuses a vector in which a comparison
comes nearer than ``vector_files.NEAREST`` to a tie, where another library's last bits might decide.
"""

from __future__ import annotations

import heapq
import json
import random
from collections import deque
from pathlib import Path
from typing import Any, NamedTuple

from device_runtime.drafting.actions import Action, Guess, Reuse, Wait
from device_runtime.drafting.blocks import Judged, Proposed
from device_runtime.drafting.controller import Controller
from device_runtime.drafting.counts import Limits
from device_runtime.drafting.estimators import Estimates
from device_runtime.drafting.window import Window
from tests import vector_files, window_reader
from tests.vector_files import Vector

PATH = Path(__file__).parent / "golden" / "window.json"


def estimates_of(known: dict[str, Any]) -> Estimates:
    """What a device knows when a vector begins."""
    here = Estimates(told_step_s=known.get("step", 0.0))
    for name in ("rtt", "queue", "target"):
        for sample in known.get(name, []):
            getattr(here, name).add(sample)
    for name in ("draft", "verify"):
        for sample, beside in known.get(name, []):
            getattr(here, name).took(sample, beside=beside)
    for tokens, sample in known.get("rows", []):
        here.rows.add(tokens, sample)
    for chance, accepted, rejected in known.get("acceptance", []):
        for number in range(accepted + rejected):
            here.acceptance.foretold(chance, number < accepted)
    return here


def window_of(vector: Vector) -> Window:
    """The window that a vector begins with."""
    given, here = vector["controller"], estimates_of(vector["estimates"])
    limits = Limits(**vector["limits"])
    controller = Controller(here, given.get("gamma"), given["writer"], limits.follows)
    controller._since = given.get("since", 0)
    controller._dwell = given.get("dwell", controller._dwell)
    controller._here, controller.opens = given.get("here", False), given.get("near", False)
    measured, foretold = given.get("record", [0.0, 0.0])
    controller._record.measured_s, controller._record.foretold_s = measured, foretold
    return Window(
        controller,
        limits,
        vector["length"],
        started_s=vector["started_s"],
        now=vector["now"],
        streams=vector["streams"],
        auto=vector["auto"],
        offline_after_s=vector["offline_after_s"],
    )


def plain(action: Action) -> list[Any]:
    """An action as JSON has it."""
    if isinstance(action, Wait):  # a time is compared to 1e-9
        return ["wait", None if action.until_s is None else float(f"{action.until_s:.12g}")]
    return ["give back" if not action else type(action).__name__.lower(), *action]


def step(window: Window, now: float, cached: int, link: str, events: list[Any]) -> list[list[Any]]:
    """Tell a window what has happened, and ask it until it waits, or needs what a step brings."""
    found: list[list[Any]] = []
    waited_s = 0.0
    for name, *values in events:
        if name == "waited":
            waited_s = values[0]
        elif name == "drafted":
            if not window.drafted(now, [Proposed(*value) for value in values], waited_s):
                found.append(["void"])
        elif name == "reused":
            window.reused([Proposed(*value) for value in values])
        elif name == "guessed":
            window.guessed(ends=values[0])
        elif name == "followed":
            switch = window.followed(now, waited_s)
            found += [] if switch is None else [plain(switch)]
        elif name == "foretold":
            window.foretold(values[0], accepted=values[1])
        elif name == "told":
            window.told(values[0])
        elif name == "commit":
            window.commit(values[0], confirmed=values[1], refuted=values[2])
        elif name == "verdict":
            window.verdict(now, Judged(*values[:3], ended=False, verify_s=values[3],
                                       queue_s=values[4]))  # fmt: skip
        elif name == "proceed":
            window.proceed(now, closes=values[0], owes=values[1])
        elif name == "streamed":
            switch = window.streamed(now, values[0], ended=values[1])
            found += [] if switch is None else [plain(switch)]
        else:
            assert name == "switched"
            window.switched(now)
    while True:
        actions = window.due(now, cached=cached, connected=link != "lost", unread=link == "unread")
        found += map(plain, actions)
        if actions and isinstance(actions[-1], Wait | Guess | Reuse):
            return found


def replay(vector: Vector) -> list[list[list[Any]]]:
    """What is due after each of a vector's steps."""
    window = window_of(vector)
    return [step(window, *given) for *given, _ in vector["steps"]]


class World:
    """A base station, a link and a draft with rounded times, which play a vector's steps."""

    def __init__(self, vector: Vector, seed: int, **how: Any) -> None:
        self.vector, self.window = vector, window_of(vector)
        self.rng = random.Random(seed)
        self.draft_s, self.verify_s = how.get("draft_s", DRAFT_S), how.get("verify_s", VERIFY_S)
        self.target_s, self.rtt_s = how.get("target_s", 0.0431), how.get("rtt_s", 0.0607)
        self.accepts, self.eos = how.get("accepts", 0.8), how.get("eos", 0.0)
        self.shares = how.get("shares", 0.0)
        self.nearer: tuple[int, float] = how.get("nearer", (0, 0.0))  # from which length on
        self.lost: tuple[float, float] = how.get("lost", (1e9, 1e9))
        self.now, self.cached = vector["now"], how.get("cached", vector["length"] - 1)
        self.length, self.free_s = vector["length"], 0.0
        self.ahead: deque[tuple[float, bool, bool]] = deque()  # chance, EOS, whether it is accepted
        self.shown: list[tuple[float, bool, bool]] = []
        self.sent: deque[int] = deque()
        self.comes: list[tuple[float, int, list[Any]]] = []
        self.epoch, self.streaming, self.job = 0, vector["streams"], False
        self.steps: list[list[Any]] = []
        self.over = False
        self.guessed_s: float | None = None  # when a guess under way is there

    def at(self, seconds: float, what: list[Any], *, link: bool = False) -> float:
        """Have something happen in so many seconds, roughly: when. With ``link``, over the link."""
        at_s = round(self.now + max(seconds, 0.0) * self.rng.uniform(1.0, 1.004), 6)
        if link and self.lost[0] <= at_s < self.lost[1]:
            at_s = round(self.lost[1] + 0.01237, 6)
        heapq.heappush(self.comes, (at_s, len(self.steps) * 100 + len(self.comes), what))
        return at_s

    def play(self, steps: int) -> list[list[Any]]:
        if self.streaming:
            self.at(self.rtt_s + 0.051, ["tokens", 1, self.epoch], link=True)
        self.ask([])
        while len(self.steps) < steps and not self.over:
            waits = self.steps[-1][-1][-1]
            until = waits[1] if waits[0] == "wait" else None
            if until is not None and (not self.comes or until < self.comes[0][0]):
                self.now = round(max(until, self.now) + 0.000213, 6)
                self.ask([])
            elif self.comes:
                self.now, number, what = heapq.heappop(self.comes)
                if self.guessed_s is not None and what[0] != "guessed":  # who guesses is busy
                    heapq.heappush(self.comes, (self.guessed_s + 1e-5, number, what))
                    continue
                if (
                    self.guessed_s is None and self.rng.random() < 0.08
                ):  # it is there, and has not been looked at
                    self.ask([], unread=True)
                self.happen(what)
            else:
                break
        return self.steps

    def ask(self, events: list[Any], *, unread: bool = False) -> None:
        lost = self.lost[0] <= self.now < self.lost[1]
        link = "lost" if lost else "unread" if unread else ""
        due = step(self.window, self.now, self.cached, link, events)
        self.steps.append([self.now, self.cached, link, events, due])
        for name, *values in due:
            getattr(self, name.replace(" ", "_"))(*values)

    # What the window asks for.

    def wait(self, until: float | None) -> None:
        pass

    def void(self) -> None:
        pass

    def draft(self, tokens: int, begins: int, fresh: bool) -> None:
        fed = self.length + len(self.ahead) - self.cached
        self.job = True
        waited_s = 0.0
        if self.shares and self.rng.random() < self.shares:  # its worker has other conversations
            waited_s = round(self.rng.uniform(0.003, 0.02), 6)
        seconds = self.draft_s * (tokens + 0.2 * max(fed - 1, 0)) + waited_s
        self.at(seconds, ["drafted", tokens, waited_s, self.epoch])

    def proposal(self) -> tuple[float, bool, bool]:
        chance = round(self.rng.choice([0.993, 0.94, 0.83, 0.61, 0.27, 0.07]), 3)
        return chance, self.rng.random() < self.eos, self.rng.random() < self.accepts + chance / 6

    def send(self, tokens: int, waits: bool) -> None:
        start = max(self.now + self.rtt_s / 2.0, self.free_s)
        self.free_s = start + self.verify_s
        self.sent.append(tokens)
        queue_s = max(0.0, round(start - self.now - self.rtt_s / 2.0, 6))
        self.at(
            self.free_s + self.rtt_s / 2.0 - self.now,
            ["verdict", tokens, waits, queue_s, self.epoch],
            link=True,
        )

    def switch(self, mode: str) -> None:
        if mode == "draft":
            self.at(self.rtt_s, ["switched", self.epoch], link=True)

    def give_back(self) -> None:
        self.streaming, self.epoch = True, self.epoch + 1
        self.cached = min(self.cached, self.length)
        self.at(self.rtt_s + self.target_s, ["tokens", 1, self.epoch], link=True)

    def follow(self, until: int, begins: int) -> None:
        self.job = True
        fed = until - self.cached
        self.at(self.draft_s * (1.0 + 0.2 * (fed - 1)), ["followed", until, self.epoch])

    def show(self, first: int) -> None:
        self.shown += list(self.ahead)[first:]

    def guess(self, begins: int, apart: bool) -> None:
        self.guessed_s = self.at(self.draft_s, ["guessed", self.epoch])

    def reuse(self, first: int, tokens: int) -> None:
        known = self.shown[first : first + tokens]
        self.ahead.extend(known)
        self.ask([["reused", *([chance, ends] for chance, ends, _ in known)]])

    # What happens.

    def happen(self, what: list[Any]) -> None:
        name, *values, epoch = what
        if name == "verdict" and epoch != self.epoch:
            return  # overtaken
        getattr(self, f"on_{name}")(*values)

    def on_drafted(self, tokens: int, waited_s: float) -> None:
        self.job = False
        made = [self.proposal() for _ in range(tokens)]
        made = [(chance, ends and i == tokens - 1, ok) for i, (chance, ends, ok) in enumerate(made)]
        before = len(self.steps)
        self.ahead.extend(made)
        self.cached = self.length + len(self.ahead) - 1
        waited: list[Any] = [["waited", waited_s]] if waited_s else []
        self.ask([*waited, ["drafted", *([chance, ends] for chance, ends, _ in made)]])
        if self.steps[before][-1][0] == ["void"]:
            for _ in made:
                self.ahead.pop() if self.ahead else None
            self.cached = min(self.cached, self.length)

    def on_guessed(self) -> None:
        self.guessed_s = None
        made = self.proposal()
        self.shown.append(made)
        came = any(at_s < self.now + 2e-5 for at_s, *_ in self.comes)
        self.ask([["guessed", made[1]]], unread=came)

    def grow(self, kept: list[tuple[float, bool, bool]], other: bool) -> list[Any]:
        """The event that the history has grown by accepted tokens, or by another one."""
        confirmed, refuted = 0, False
        for token in kept:
            if not self.shown or refuted:
                break
            confirmed += self.shown[0] is token or self.shown[0][2]
            refuted = not (self.shown[0] is token or self.shown[0][2])
            del self.shown[0]
        if other and self.shown and not refuted:
            good = self.shown[0][2]
            confirmed, refuted = confirmed + good, not good
            del self.shown[0]
        if refuted:
            self.shown.clear()
        self.length += len(kept) + other
        return ["commit", len(kept) + other, confirmed, refuted]

    def on_verdict(self, tokens: int, waits: bool, queue_s: float) -> None:
        self.sent.popleft()
        block = [self.ahead.popleft() for _ in range(tokens)]
        kept = []
        for token in block:
            if not token[2]:
                break
            kept.append(token)
        own = len(kept) < tokens or waits
        verify_s = round(self.verify_s * self.rng.uniform(1.0, 1.01), 6)
        if not tokens and self.length == self.vector["limits"]["begins"]:  # its row is the prompt's
            verify_s = round(verify_s / 32.0, 6)
        said = ["verdict", len(kept), own, own, verify_s, queue_s]
        self.over = (
            bool(kept and kept[-1][1])
            or self.length + len(kept) + own >= (self.vector["limits"]["ends"])
        )
        events = [said, self.grow(kept, own)]
        if own:
            self.ahead.clear()
            self.sent.clear()
            self.epoch += 1
            if not self.job:
                self.cached = min(self.cached, self.length - 1)
        if not self.over:
            corrects = self.vector["limits"]["corrects"]
            events.append(["proceed", own, own and len(kept) < tokens and corrects])
            self.ask(events)

    def on_tokens(self, tokens: int) -> None:
        if not self.streaming:
            return
        self.over = self.length + tokens >= self.vector["limits"]["ends"]
        events: list[Any] = [self.grow([], True)]
        if self.vector["limits"]["foretells"] and self.rng.random() < 0.7:
            chance, _, accepted = self.proposal()
            events.append(["foretold", chance, accepted])
        if self.vector["limits"].get("told") and self.rng.random() < 0.7:
            events.append(["told", self.rng.choice((1.0, 0.953, 0.37, 0.0109))])
        near_s = self.nearer[1] if self.length == self.nearer[0] else 0.0
        self.at(self.target_s - near_s, ["tokens", 1, self.epoch], link=True)
        self.ask([*events, ["streamed", tokens, self.over]])

    def on_followed(self, until: int) -> None:
        self.job = False
        self.cached = until
        self.ask([["followed"]])

    def on_switched(self) -> None:
        self.streaming, self.epoch = False, self.epoch + 1
        events: list[Any] = [["followed"]] if self.job else []
        self.comes = [come for come in self.comes if come[2][0] not in ("followed", "tokens")]
        heapq.heapify(self.comes)
        self.job = False
        self.ask([*events, ["switched"]])


DRAFT_S, VERIFY_S = 0.00969, 0.0467  # as whole microseconds to two digits no ratio is a tie
ESTIMATES: dict[str, Any] = {
    "cold": {"rtt": [0.0607]},
    "slow": {"rtt": [0.4021]},
    "known": {
        "rtt": [0.0607, 0.0613, 0.0633, 0.0609, 0.1801, 0.0611, 0.0623, 0.0617, 0.0609],
        "draft": [[0.00969, True], [0.00971, False], [0.00973, True]],
        "verify": [[0.0467, True], [0.0471, False]],
        "queue": [0.000213, 0.000117],
        "target": [0.0431, 0.0437],
        "acceptance": [[0.993, 70, 2], [0.94, 37, 5], [0.83, 31, 6], [0.61, 18, 9], [0.27, 5, 9],
                       [0.07, 1, 7]],
    },
}  # fmt: skip
KNOWN = ESTIMATES["known"]
ESTIMATES["shared"] = KNOWN | {  # both ends on one machine: each is slower beside the other
    "rtt": [0.00113, 0.00117],
    "draft": [[0.00969, False]] * 8 + [[0.01709, True]] * 9,
    "verify": [[0.0467, False]] * 8 + [[0.0631, True]] * 8,
}
ESTIMATES["poor"] = KNOWN | {"acceptance": [[0.83, 9, 21], [0.61, 11, 30], [0.07, 2, 30]]}
ESTIMATES["unlikely"] = {name: ESTIMATES["poor"][name] for name in ("rtt", "acceptance")}
ESTIMATES["good"] = KNOWN | {"acceptance": [[0.993, 150, 1], [0.94, 60, 3], [0.61, 20, 4]]}
ESTIMATES["rows"] = KNOWN | {  # each token of a block makes its verification longer
    "rtt": [0.00113, 0.00117],
    "rows": [[n, round(0.0367 + 0.0031 * n, 4)] for n in (2, 7, 3, 5, 9, 1, 4)] + [[4, 0.3]],
}
ESTIMATES["near"] = ESTIMATES["good"] | {"rtt": [0.00523, 0.00517]}
ESTIMATES["heard"] = {"rtt": [0.00523], "step": 0.0431}
ESTIMATES["far"] = KNOWN | {"rtt": [0.0907]}
LIMITS = {"begins": 12, "ends": 80, "context": 2048, "message": 64, "flight": 256,
          "foretells": False, "corrects": False}  # fmt: skip


class Case(NamedTuple):
    """A vector to be: what differs from the defaults, and in ``world`` of the world it plays in."""

    writer: str
    seed: int
    steps: int
    changes: dict[str, Any]
    world: dict[str, Any]


def case(
    writer: str, seed: int, steps: int, world: dict[str, Any] | None = None, **changes: Any
) -> Case:
    return Case(writer, seed, steps, changes, world or {})


LEAVING = {"auto": True, "estimates": "poor", "since": 24, "dwell": 24}
CASES = {
    "stop-and-wait": case("stop-and-wait", 1, 10),
    "stop-and-wait, cold": case("stop-and-wait", 2, 10, {"cached": 10}, estimates="cold"),
    "auto, opens, dear rows": case(
        "stop-and-wait", 26, 9, {"cached": 0, "rtt_s": 0.0011, "accepts": 0.5},
        auto=True, estimates="rows", near=True,
    ),
    "stop-and-wait, gamma, split": case("stop-and-wait", 3, 10, gamma=3, corrects=True),
    "run-ahead": case("run-ahead", 2, 20),
    "run-ahead, sure": case("run-ahead", 6, 18, {"accepts": 0.95}, estimates="good"),
    "run-ahead, pauses": case(
        "run-ahead", 7, 20, {"accepts": 0.3, "draft_s": 0.0307}, estimates="poor"
    ),
    "run-ahead, cold": case("run-ahead", 9, 20, estimates="cold"),
    "run-ahead, narrow": case(
        "run-ahead", 10, 20, {"accepts": 0.95}, message=2, flight=5, estimates="good"
    ),
    "auto, refuted": case(
        "run-ahead", 43, 32, {"accepts": 0.1, "rtt_s": 0.0052},
        auto=True, told=True, estimates="near",
    ),
    "run-ahead, split": case("run-ahead", 12, 16, corrects=True),
    "one machine": case("run-ahead", 8, 16, estimates="shared"),
    "one worker for several": case("run-ahead", 31, 14, {"shares": 0.6}, estimates="cold"),
    "an EOS": case("run-ahead", 11, 18, {"eos": 0.2, "accepts": 0.5}),
    "the limit": case("run-ahead", 13, 20, {"accepts": 0.9}, ends=19, estimates="good"),
    "a full context": case("run-ahead", 14, 18, {"accepts": 0.9}, context=18, estimates="good"),
    "a full context, split": case("run-ahead", 15, 20, context=16, corrects=True),
    "a prompt too long": case("stop-and-wait", 16, 6, context=10),
    "stream": case("stream", 17, 6, auto=False),
    "stream, cold": case("stream", 18, 20, {"cached": 0}, foretells=True, estimates="slow"),
    "auto, looks": case("stream", 19, 14, {"cached": 0}, estimates="unlikely"),
    "auto, foretells": case("stream", 2, 22, {"rtt_s": 0.0052}, foretells=True, estimates="near"),
    "stream, told": case("stream", 1, 20, {"cached": 0}, told=True, estimates="unlikely"),
    "auto, knows": case(
        "stream", 3, 6, {"cached": 0, "rtt_s": 0.0052}, told=True, estimates="near"
    ),
    "auto, hears of a step": case(
        "stream", 4, 8, {"cached": 0, "rtt_s": 0.0052}, told=True, estimates="heard"
    ),
    "auto, nearer": case(
        "stream", 60, 20, {"cached": 11, "rtt_s": 0.3, "nearer": (17, 0.029)},
        told=True, estimates="far",
    ),
    "auto, without hope": case(
        "stream", 1, 13, {"cached": 11}, told=True, estimates="poor", here=True
    ),
    "auto, looks rarely": case("stream", 1, 13, {"cached": 11}, told=True, here=True),
    "auto, tries": case("stream", 21, 16, {"rtt_s": 0.0052}, estimates="near", ends=400),
    "auto, leaves": case("run-ahead", 22, 10, {"accepts": 0.2}, **LEAVING),
    "auto, leaves, split": case("run-ahead", 23, 11, {"accepts": 0.2}, corrects=True, **LEAVING),
    "auto, to turns": case(
        "run-ahead", 5, 20, {"rtt_s": 0.0011, "draft_s": 0.01709, "verify_s": 0.0631},
        auto=True, estimates="shared", since=24,
    ),
    "auto, slow epochs": case("run-ahead", 25, 20, auto=True, since=20, record=[9.31, 5.17]),
    "a cut": case("run-ahead", 26, 18, {"lost": (3.25, 4.1)}),
    "a cut, leaving": case("run-ahead", 28, 24, {"accepts": 0.2, "lost": (3.13, 3.7)}, **LEAVING),
    "offline": case("run-ahead", 29, 20, {"lost": (3.2, 3.7)}, offline_after_s=0.3),
    "offline, foretells": case(
        "run-ahead", 88, 36, {"lost": (3.2, 3.6), "accepts": 0.95},
        foretells=True, offline_after_s=0.3, estimates="good",
    ),
    "offline, turns": case("stop-and-wait", 36, 20, {"accepts": 0.9}, offline_after_s=0.05),
    "offline, stream": case(
        "stream", 32, 20, {"lost": (3.2, 3.8)}, auto=False, offline_after_s=0.3
    ),
    "offline, context": case(
        "run-ahead", 33, 18, {"lost": (3.1, 3.9)}, offline_after_s=0.1, context=22
    ),
}  # fmt: skip
CONTROLLER = ("gamma", "since", "dwell", "record", "here", "near")


def vector_of(name: str) -> Vector:
    """A vector, played by the project's window."""
    writer, seed, steps, changes, world = CASES[name]
    vector = {
        "name": name,
        "length": 12,
        "started_s": 3.0,
        "now": 3.000317,
        "streams": writer == "stream",
        "auto": changes.get("auto", writer == "stream"),
        "offline_after_s": changes.get("offline_after_s"),
        "limits": {key: changes[key] for key in (*LIMITS, "told") if key in changes},
        "controller": {"writer": writer} | {k: changes[k] for k in CONTROLLER if k in changes},
        "estimates": changes.get("estimates", "known"),
    }
    steps_due = World(whole(vector), seed, **world).play(steps)
    return json.loads(json.dumps({**vector, "steps": steps_due}))  # type: ignore[no-any-return]


def whole(vector: Vector) -> Vector:
    """A vector with its limits and estimates written out."""
    limits, estimates = LIMITS | vector["limits"], ESTIMATES[vector["estimates"]]
    return {**vector, "limits": limits, "estimates": estimates}


def ties(vector: Vector) -> float:
    """How near to a tie a comparison comes in a vector."""
    return vector_files.ties(window_reader.replay, whole(vector))


def main() -> None:
    """Write the file."""
    head = {"limits": LIMITS, "estimates": ESTIMATES}
    vector_files.write(PATH, head, CASES, vector_of, ties)


if __name__ == "__main__":
    main()

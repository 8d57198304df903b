"""The window where both ends write, by section 8 of ``docs/window.md``: nothing of draftlink.

``replay`` goes through a vector of ``golden/paths.json`` and gives what is due, step by step.
"""

from __future__ import annotations

import math
from typing import Any

from tests.window_estimates import Estimates, Level, best_gamma, expected, floor, less, nearest

Action = list[Any]


class Beside:
    """Section 8.6."""

    def __init__(self, here: Estimates) -> None:
        self.here = here
        self.forwards: list[tuple[float, float]] = []  # begun, ended
        self.many: list[tuple[float, float]] = []  # of them, those of more tokens than one
        self.steps: list[tuple[float, float]] = []  # likewise
        self.clear, self.slow = Level(), Level()

    def slows(self) -> bool:
        few = min(len(self.clear.samples), len(self.slow.samples)) < 2
        return not few and not less(self.slow.typical, 1.2 * self.clear.typical)

    def stepped(self, now: float, step: float, asked: float | None, rows: int) -> bool:
        end = now - self.here.rtt.typical / 2.0
        begin, kept, disturbed = end - step, [], 0.0
        self.steps = [*self.steps, (begin, end)][-8:]
        for forward in self.forwards:
            disturbed += common(forward, (begin, end))
            if less(end, forward[1]):
                kept.append(forward)
            elif forward not in self.many and not less(forward[0], self.steps[0][0]):
                self.sort(forward[1] - forward[0], sum(common(forward, s) for s in self.steps))
        self.forwards = kept
        if asked is not None:
            disturbed += common((asked, end), (begin, end))
        alone = not less(0.1 * step, disturbed)
        if rows == 1:
            (self.clear if alone else self.slow).add(step)
        return alone

    def sort(self, took: float, beside: float) -> None:
        alone, slow = self.here.draft.alone, self.here.draft.beside
        if not less(0.1 * took, beside):
            alone.add(took)
        elif not less(beside, 0.9 * took):
            slow.add(took)
        elif not less(0.5 * slow.typical, beside):
            alone.add((took - beside) / (1.0 - beside / slow.typical))


def common(one: tuple[float, float], other: tuple[float, float]) -> float:
    return max(0.0, min(one[1], other[1]) - max(one[0], other[0]))


class Paths:
    """Section 8."""

    def __init__(self, vector: dict[str, Any]) -> None:
        self.limits, given = vector["limits"], vector["given"]
        self.here = Estimates(vector["estimates"])
        self.beside = Beside(self.here)
        self.length = vector["length"]
        self.gamma, self.shared, self.price = given["gamma"], given["shared"], given["price"]
        self.is_here, self.slowed, self.tries = given["here"], False, False
        self.told_s, self.row_s = given["step_s"], given["row_s"]
        self.heard, self.after = vector["started_s"], given["offline_after_s"]
        self.path: list[tuple[float, bool]] = []
        self.sent = self.age = self.resumes = 0
        self.rest = 8
        self.text = self.stood = 0.0
        self.job: tuple[float, int, int] | None = None  # asked, fed, tokens
        self.void = self.follows = self.guesses = self.bounded = False
        self.started = self.proposed = vector["started_s"]
        self.shown: list[bool] = []
        self.stepped: float | None = None
        self.told: float | None = None
        self.spent = 0.0
        self.between = Level()

    @property
    def room(self) -> int:
        return min(self.limits["ends"], self.limits["context"]) - self.length

    # Section 8.2: what things cost.

    def turns(self) -> bool:
        return self.shared or self.slowed or self.tries or self.here.draft.slowdown() > 1.0

    def opens(self) -> bool:
        return self.turns() and self.length <= self.limits["begins"] + 1

    def trip(self) -> float:
        known = len(self.between.samples) >= 3
        return self.between.typical if known else self.here.rtt.mean

    def costs(self) -> tuple[float, float]:
        here = self.here
        draft_s = here.draft.cost(not self.turns(), here.draft.slowdown())
        return draft_s, here.verify_s or self.told_s

    def deep(self) -> int:
        if self.price <= 0.0:
            return 64
        return max(1, min(64, floor(math.log(self.price) / math.log(self.here.alpha))))

    def turn(self) -> tuple[float, float]:
        tokens, mean_s, row_s = self.here.blocks(self.row_s)
        step_s = mean_s or self.costs()[1]
        row_s = min(row_s, step_s / (1.0 + tokens))
        return step_s - tokens * row_s, row_s

    def group(self, alpha: float | None = None) -> int:
        draft_s, step_s = self.costs()
        if self.gamma is not None:
            return int(self.gamma)
        if not draft_s or not step_s or (self.turns() and self.unsure()):
            return 4
        lone_s, row_s = self.turn()
        fixed_s = self.trip() + lone_s
        longest = 16
        if self.turns():
            longest = max(1, min(16, floor((2.5 * lone_s - self.trip()) / draft_s)))
        alpha = self.here.alpha if alpha is None else alpha
        pays = min(best_gamma(alpha, fixed_s, draft_s + row_s, longest), self.deep())
        if self.turns():
            return pays if self.here.waited else min(pays, 4)
        return max(1, min(pays, nearest(step_s / (2.0 * draft_s))))

    def most(self) -> int:
        return self.ahead(min(16, nearest(1.0 / (1.0 - self.here.alpha))))

    def ahead(self, waits: int) -> int:
        draft_s, step_s = self.costs()
        if self.turns() or not draft_s or self.rest > 8:
            return self.group()
        under_way = -floor(-(self.here.rtt.mean + step_s) / draft_s)
        return min(64, max(self.group(), waits) + under_way, max(self.group(), self.deep()))

    def unsure(self) -> bool:
        return len(self.here.draft.samples) < 3 or not self.costs()[1]

    def pays(self, alpha: float) -> bool:
        draft_s, step_s = self.costs()
        if self.unsure() or self.tries or self.price <= 0.0:
            return True
        if self.turns() and self.gamma is not None:
            return True
        if self.turns():
            lone_s, row_s = self.turn()
            group = self.group(alpha)
            turn_s = self.trip() + lone_s + group * (draft_s + row_s)
            return not less(expected(alpha, group) * lone_s, turn_s)
        late_s, most = self.here.rtt.mean + step_s, self.ahead(0)
        if not less(draft_s, step_s) or less(most, late_s / step_s):
            return False
        saves_s = step_s - draft_s
        gain = math.pow(alpha, late_s / saves_s) / (1.0 - alpha) * saves_s / step_s
        return not less(gain, 1.25 * self.price * most)

    def decide(self) -> None:
        trusts = 0.5 if self.turns() and not self.follows else 0.0
        alpha = self.here.alpha + trusts * self.here.error
        self.follows = not self.pays(min(alpha, 0.98) if trusts else alpha)

    # Section 8.3: what is due.

    def due(self, now: float, cached: int, link: str) -> list[Action]:
        ahead, actions = len(self.path), []
        rests = not ahead and (self.opens() or self.length < self.resumes)
        if (not ahead or self.guesses) and self.job is None and not rests:
            self.guesses = self.unsure() or self.tries
            self.decide()
        room = min(1 if self.follows else self.most(), self.room)
        ends = any(eos for _, eos in self.path)
        full = ahead >= room or ends or (self.turns() and self.sent > 0)
        fresh = 0 if self.follows and ahead <= 1 else min(ahead, 256) - self.sent
        last = ends or ahead >= self.room or (full and (self.turns() or ahead == room))
        sends = last or fresh >= self.group() or (not full and self.misses(now))
        if not link and fresh and sends:
            self.sent, self.proposed = self.sent + fresh, now
            message = self.limits["message"]
            for begin in range(0, fresh, message):
                goes_on = not (full and self.turns())
                actions.append(["propose", min(message, fresh - begin), goes_on])
        if self.job is None and not full and link != "unread" and not rests:
            actions.append(self.draft(now, cached, self.at_once(room - ahead)))
        return actions or self.alone(now, cached, link)

    def misses(self, now: float) -> bool:
        draft_s, step_s = self.costs()
        if self.turns() or self.stepped is None or not draft_s or not step_s:
            return False
        into = now + self.here.rtt.typical + 0.02 * step_s - self.stepped
        into -= floor(into / step_s) * step_s
        begun = self.job[0] if self.job else now
        return less(step_s, into + begun + draft_s - now)

    def at_once(self, most: int) -> int:
        draft_s, _ = self.costs()
        if not self.turns() or self.follows or not draft_s:
            return 1
        return max(1, min(most, floor(0.008 / draft_s)))

    def draft(self, now: float, cached: int, tokens: int) -> Action:
        self.job = now, self.length + len(self.path) - cached, tokens
        return ["draft", tokens, self.limits["begins"], not self.path]

    def alone(self, now: float, cached: int, link: str) -> list[Action]:
        """Section 8.3, its end."""
        until = None
        if link != "unread" and self.after is not None:
            until = self.heard + self.after
            if not less(now, until):
                shown = len(self.shown)
                if len(self.path) > shown:
                    ends = any(eos for _, eos in self.path)
                    last = len(self.path) - 1
                    self.shown += [ends and i == last for i in range(shown, last + 1)]
                    return [["show", shown]]
                if self.job is None and not (shown and self.shown[-1]) and self.room > shown:
                    return [self.draft(now, cached, 1)]
                until = None
        return [["wait", until]]

    # Section 8.4: what it is told.

    def drafted(self, now: float, tokens: list[list[Any]], waited: float) -> bool:
        assert self.job
        (asked, fed, count), self.job = self.job, None
        self.spent += now - asked
        each = (now - asked - waited) / count
        for place in range(count, 0, -1):
            forward = now - place * each, now - (place - 1) * each
            if fed <= 2:
                self.here.draft.took(each, None)
            else:
                self.beside.many.append(forward)
            self.beside.forwards = [*self.beside.forwards, forward][-64:]
        void, self.void = self.void, False
        if not void:
            self.path += [(chance, eos) for chance, eos in tokens]
        return not void

    def written(
        self, now: float, agreed: int, accepted: int, tokens: int, step_s: float, rows: int
    ) -> bool:
        self.heard, apart = now, not self.turns()
        faded = 0.96**tokens
        self.text, self.stood = faded * self.text + tokens, faded * self.stood + accepted
        differs = agreed < min(tokens, len(self.path))
        for i in range(agreed + differs):
            if i < len(self.path):
                self.here.judge(self.path[i][0], i < agreed)
        if step_s:
            answers = self.turns() and accepted > 0
            most = now - step_s - (self.proposed if answers else self.started)
            first = answers or not self.bounded
            shorter = first and less(0.0, most) and less(most, self.here.rtt.typical)
            if shorter:
                self.here.rtt.add(most)
            self.bounded = True
            asked = self.job[0] if self.job else None
            alone = self.beside.stepped(now, step_s, asked, rows)
            self.slowed = self.is_here and self.beside.slows()
            far = less(self.here.draft.typical, 4.0 * self.here.rtt.typical)
            self.tries = not (self.shared or far or self.follows) and self.here.draft.lacks()
            if alone or not self.turns():
                self.here.verify.took(step_s, not alone)
                self.here.row(max(rows - 1, 0), step_s)
            if self.turns() and self.told is not None and rows > self.sent > 0:
                self.between.add(now - self.told - step_s - self.spent)
            if shorter:
                self.decide()
            self.stepped = now
        self.told, self.spent = now, 0.0
        begins = apart and self.turns()
        if begins:
            self.here.undisturbed()
        self.age += tokens
        tried = bool(self.path) or self.job is not None
        if agreed == tokens:
            del self.path[:tokens]
            if tokens <= self.sent and self.age < 192 and not begins:
                self.sent -= tokens
                return True
        else:
            self.path, self.void = [], self.job is not None
        self.sent = self.age = 0
        if self.follows and tried:
            hope = min(self.here.alpha + self.here.error, 0.98)
            hoping = 32 if self.turns() or self.is_here or self.beside.slows() else 8
            self.resumes = self.length + tokens + (hoping if self.pays(hope) else 64)
        elif accepted:
            self.rest = 8
        elif tried and not less(self.text, 15.0) and less(self.stood, 0.03 * self.text):
            self.resumes = self.length + tokens + self.rest
            self.rest = min(2 * self.rest, 64)
        return False

    def commit(self, tokens: int, confirmed: int, refuted: bool) -> None:
        self.length += tokens
        self.shown = [] if refuted else self.shown[confirmed:]

    def lost(self) -> None:
        self.sent = self.age = 0


def replay(vector: dict[str, Any]) -> list[list[Action]]:
    """What is due after each of a vector's steps."""
    window, found = Paths(vector), []
    for now, cached, link, events, _ in vector["steps"]:
        actions: list[Action] = []
        waited = 0.0
        for name, *values in events:
            if name == "waited":
                waited = values[0]
            elif name == "drafted":
                actions += [] if window.drafted(now, values, waited) else [["void"]]
            elif name == "written":
                actions += [] if window.written(now, *values) else [["leave"]]
            else:
                getattr(window, name)(*values)
        while not actions or actions[-1][0] != "wait":
            actions += window.due(now, cached, link)
        found.append(actions)
    return found

"""A drafting window by ``docs/window.md`` and the standard library alone: nothing of draftlink.

``replay`` goes through a vector of ``golden/window.json`` and gives what is due, step by step. It
is written to be compared with the page, whose sections are named beside the code.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

from tests.window_estimates import Controller, Estimates, less

Action = list[Any]


class Window:
    """Section 1."""

    def __init__(self, vector: dict[str, Any]) -> None:
        self.limits = vector["limits"]
        self.learns = self.limits["foretells"] or self.limits.get("told", False)
        self.here = Estimates(vector["estimates"])
        self.controller = Controller(self.here, vector["controller"], self.learns)
        self.length, self.started = vector["length"], vector["started_s"]
        self.auto, self.after = vector["auto"], vector["offline_after_s"]
        self.heard, self.rounds = self.started, 0
        self.shown: list[bool] = []
        self.outdated = False
        if vector["streams"]:
            self.stream()
        else:
            self.draft(vector["now"])

    @property
    def left(self) -> int:
        return self.limits["ends"] - self.length

    @property
    def room(self) -> int:
        return min(self.left, self.limits["context"] - self.length)

    # Section 5: drafting.

    def draft(self, now: float) -> None:
        self.streams = False
        writer = self.controller.writer
        self.mode = "run-ahead" if writer == "stream" else writer
        self.sent: list[dict[str, Any]] = []
        self.block: list[tuple[float, bool]] = []
        self.forward: dict[str, Any] | None = None
        self.owes = self.wants_stream = self.leaves = False
        self.pause: float | None = None
        self.here.doubt, self.here.doubted = 0.0, []
        self.epoch(now)

    def epoch(self, now: float) -> None:
        self.begins, self.judged, self.free, self.began = self.length, 0, None, now
        self.plan = self.controller.plan(self.mode)
        if not self.limits["foretells"]:
            self.outdated = bool(self.shown)

    @property
    def ahead(self) -> list[tuple[float, bool]]:
        return [token for block in self.sent for token in block["tokens"]] + self.block

    def most(self) -> int:
        ahead = self.ahead
        if ahead and ahead[-1][1]:
            return 0
        return min(self.room, self.left - 1) - len(ahead)

    def drafts(self, now: float, cached: int) -> list[Action]:
        """Section 5.1."""
        if self.leaves or self.forward or (self.sent and self.sent[-1]["waits"]):
            return []
        full = not self.ahead and self.left > 1 and self.most() < 1
        if (self.wants_stream or full) and self.left > 0:
            if self.owes:
                return [self.take(now, True)]
            if self.block:
                return [self.take(now, False)]
            if self.sent and self.limits["corrects"]:
                return []
            self.leaves = True
            return [["switch", "stream"]]
        if self.controller.near and self.length == self.limits["begins"] and not self.sent:
            return [self.take(now, True)]
        actions: list[Action] = []
        send, known = self.cut(now), 0
        if not (send and send[2]):
            first, waits, sure, window = self.plan
            ahead, block = len(self.ahead), len(self.block)
            window = min(window, self.limits["flight"])
            count = min(self.most(), window - ahead, self.limits["message"] - block)
            count = min(count, first - block if waits and not sure else 1)
            if count > 0 and not self.outdated:
                known = max(0, min(len(self.shown) - ahead, count))
            if count > 0 and not known and not self.holds(now):
                fed = self.length + ahead - cached
                beside = bool(self.sent)
                self.forward = {"asked": now, "fed": fed, "beside": beside, "stale": False}
                actions.append(["draft", count, self.begins, not ahead])
        if send:
            actions.append(send)
        if known:
            self.pause = None
            actions.append(["reuse", len(self.ahead), known])
        return actions

    def cut(self, now: float) -> Action | None:
        """Section 5.2."""
        if self.most() <= 0:
            return self.take(now, True) if self.block or not self.sent else None
        first, waits, sure, window = self.plan
        full = (
            len(self.ahead) >= min(window, self.limits["flight"])
            or len(self.block) >= self.limits["message"]
        )
        if not self.block or not (full or self.is_due(now, first, waits, sure)):
            return None
        return self.take(now, waits)

    def is_due(self, now: float, first: int, waits: bool, sure: float) -> bool:
        """Section 5.2."""
        if waits:
            return len(self.block) >= first or (sure > 0.0 and not less(sure, self.whole()))
        if len(self.block) >= 16:
            return len(self.block) >= first
        if self.free is not None and not less(self.free, now + self.here.draft.typical):
            return False
        whole = self.whole()
        if less(sure, whole):
            return False
        reached = math.prod(block["whole"] for block in self.sent)
        gain = reached * (1.0 - whole) * self.here.verify_s
        return not self.sent or not less(gain, self.here.stall_s)

    def whole(self) -> float:
        return math.prod(self.here.stands(chance) for chance, _ in self.block)

    def holds(self, now: float) -> bool:
        """Section 5.3."""
        if self.pause is not None and less(now, self.pause):
            return True
        had, self.pause = self.pause is not None, None
        if had or not self.sent:
            return False
        first, draft_s = self.sent[0], self.here.draft.typical
        idle = first["due"] - now
        lost = draft_s - idle
        if not less(0.0, idle) or not less(first["whole"] * idle, (1.0 - first["whole"]) * lost):
            return False
        self.pause = first["due"] + 0.1 * draft_s
        return True

    def take(self, now: float, waits: bool) -> Action:
        """Section 5.2."""
        self.free = max(self.free or 0.0, now) + self.here.verify_s
        self.sent.append({
            "tokens": self.block, "waits": waits, "whole": self.whole(), "sent": now,
            "due": self.free + self.here.rtt.typical,
        })  # fmt: skip
        sent, self.block, self.owes = len(self.block), [], False
        return ["send", sent, waits]

    def drafted(self, now: float, tokens: list[list[Any]], waited: float) -> bool:
        """Section 5.4."""
        forward, self.forward = self.forward, None
        assert forward
        if forward["fed"] <= 2:
            beside = None if forward["stale"] else forward["beside"]
            seconds = now - forward["asked"] - waited
            self.here.draft.took(seconds / len(tokens), beside)
        if not forward["stale"]:
            self.reused(tokens)
        return not forward["stale"]

    def reused(self, tokens: list[list[Any]]) -> None:
        self.block += [(chance, ends) for chance, ends in tokens]

    def verdict(self, now: float, accepted: int, own: bool, closes: bool, verify_s: float,
                queue_s: float) -> None:  # fmt: skip
        """Section 5.5."""
        self.heard = now
        first = self.sent[0]
        flight = [chance for block in self.sent for chance, _ in block["tokens"]]
        self.rounds += 1
        self.judged_last = len(first["tokens"])
        self.opened = self.rounds == 1 and not first["tokens"]
        if not self.opened:
            self.here.verify.took(verify_s, not first["waits"])
        if first["waits"] and not self.opened:
            self.here.row(self.judged_last, verify_s)
        self.here.queue.add(queue_s)
        self.here.judge_block(flight, accepted, own)
        if not self.judged and self.rounds > 1:
            self.here.rtt.add(now - first["sent"] - verify_s - queue_s)
        self.pause = None
        self.judged += accepted
        if closes:
            self.sent, self.block = [], []
            if self.forward:
                self.forward["stale"] = True
        while accepted and not closes:
            accepted -= len(self.sent.pop(0)["tokens"])

    def proceed(self, now: float, closes: bool, owes: bool) -> None:
        """Section 5.6."""
        if closes and not self.opened:
            seconds = now - self.began
            self.controller.drafted(self.mode, self.judged + 1, seconds, self.judged_last)
        if self.auto and not self.leaves:
            chosen = self.controller.choose(self.left)
            if chosen == "stream":
                self.wants_stream = True
            elif closes:
                self.mode = chosen
        if closes:
            self.owes = owes
            self.epoch(now)

    # Section 6: the stream.

    def stream(self) -> None:
        self.streams, self.forward, self.leaves = True, None, False
        self.begins = self.length
        self.last: float | None = None
        self.first = 0.0
        self.bounded = self.length > self.limits["begins"]
        self.came: list[float] = []
        self.early = self.pace = 0.0

    def follows(self, now: float, cached: int) -> list[Action]:
        """Section 6.1."""
        looks = self.learns or len(self.here.draft.samples) < 3
        if self.forward or not self.auto or self.leaves or not looks:
            return []
        prompt = self.limits["begins"] - (not self.here.draft.samples)
        until = max(cached + 1, prompt)
        rarely = self.controller.looks()
        if rarely > 1 and until > prompt:
            until = max(cached + rarely, min(self.length, self.limits["context"]))
        if until > min(self.length, self.limits["context"]):
            return []
        self.forward = {"asked": now, "fed": until - cached}
        return [["follow", until, self.begins]]

    def followed(self, now: float, waited: float) -> list[Action]:
        """Section 6.1."""
        forward, self.forward = self.forward, None
        assert forward
        news = self.last is None or not self.here.draft.samples
        if forward["fed"] <= 2:
            self.here.draft.took(now - forward["asked"] - waited, True)
        return self.leave_stream() if news else []

    def streamed(self, now: float, tokens: int, ended: bool) -> list[Action]:
        """Section 6.2."""
        self.heard = now
        if self.last is not None and less(0.002, now - self.last):
            self.here.target.add((now - self.last) / tokens)
        else:
            self.first = now
        self.last = now
        if not self.bounded and self.here.target.samples:
            self.bounded = True
            most = self.first - self.started - self.here.target.typical
            if less(0.0, most) and less(most, self.here.rtt.typical):
                self.here.rtt.add(most)
        self.nearer(now)
        if not self.auto or self.leaves or self.room <= 0 or ended:
            return []
        self.controller.since += tokens
        return self.leave_stream()

    def nearer(self, now: float) -> None:
        """Section 6.3."""
        came, rtt = self.came, self.here.rtt
        if self.early:
            in_time = not less(0.2 * self.pace, abs(now - came[-1] - self.pace))
            self.behind += in_time
            if in_time and self.behind == 2:
                rtt.samples, sample = [], rtt.typical - 2.0 * self.early
                rtt.add(sample)
                self.controller.dwell = 12
            if not in_time or self.behind == 2:
                self.came, self.early = [], 0.0
        elif len(came) >= 5:
            gaps = sorted(b - a for a, b in pairwise(came))
            self.pace = gaps[(len(gaps) - 1) // 2]
            due = min(at + (len(came) - i) * self.pace for i, at in enumerate(came))
            least = max(0.2 * self.pace, 0.125 * rtt.typical)
            bounded = less(self.pace, rtt.typical) and not less(0.55 * rtt.typical, due - now)
            if less(least, due - now) and bounded:
                self.early, self.behind = due - now, 0
        self.came = [*self.came, now][-16:]

    def leave_stream(self) -> list[Action]:
        if not self.auto or self.leaves or self.room <= 0:
            return []
        if self.controller.choose(self.room) == "stream":
            return []
        self.leaves = True
        return [["switch", "draft"]]

    # Section 7: alone.

    def commit(self, tokens: int, confirmed: int, refuted: bool) -> None:
        self.length += tokens
        del self.shown[:confirmed]
        if refuted:
            self.shown = []
        self.outdated = self.outdated and bool(self.shown)

    def alone(self) -> Action | None:
        ahead = [] if self.streams else [ends for _, ends in self.ahead]
        shown = len(self.shown)
        if len(ahead) > shown and not self.outdated:
            self.shown += ahead[shown:]
            return ["show", shown]
        if self.forward or (self.shown and self.shown[-1]) or self.room <= shown:
            return None
        return ["guess", self.begins, self.outdated]

    # Section 1.2: what is due.

    def due(self, now: float, cached: int, link: str) -> list[Action]:
        since: float | None = self.started
        pause = None
        if self.streams:
            actions = self.follows(now, cached)
        elif link != "lost" and self.leaves and not self.sent:
            self.stream()
            return [["give back"]]
        else:
            actions = [] if link else self.drafts(now, cached)
            since = self.began if self.leaves or link == "lost" else None
            since = self.sent[0]["sent"] if self.sent else since
            pause = None if link else self.pause
        if actions:
            return actions
        until = None
        if link != "unread" and self.after is not None and since is not None:
            until = max(self.heard, since) + self.after
            if not less(now, until):
                if action := self.alone():
                    return [action]
                until = None
        return [["wait", min((at for at in (pause, until) if at is not None), default=None)]]


def replay(vector: dict[str, Any]) -> list[list[Action]]:
    """What is due after each of a vector's steps."""
    window, found = Window(vector), []
    for now, cached, link, events, _ in vector["steps"]:
        actions: list[Action] = []
        waited = 0.0
        for name, *values in events:
            if name == "waited":
                waited = values[0]
            elif name == "drafted":
                actions += [] if window.drafted(now, values, waited) else [["void"]]
            elif name == "followed":
                actions += window.followed(now, waited)
            elif name == "reused":
                window.reused(values)
            elif name == "guessed":
                window.shown.append(values[0])
            elif name == "foretold":
                window.here.judge(*values)
            elif name == "told":
                window.here.tell(*values)
            elif name == "streamed":
                actions += window.streamed(now, *values)
            elif name == "switched":
                window.heard = now
                window.draft(now)
            else:
                getattr(window, name)(*((now,) if name in TIMED else ()), *values)
        while not actions or actions[-1][0] not in ("wait", "guess", "reuse"):
            actions += window.due(now, cached, link)
        found.append(actions)
    return found


TIMED = ("verdict", "proceed")

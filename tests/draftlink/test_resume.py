"""Two sessions over a link that is lost at any moment: nothing is lost, doubled or out of place.

A random walk plays both ends by the rules of the protocol alone. The device drafts ahead, switches
modes and ends generations; the base station accepts, corrects and streams; links break with frames
under way, and now and then the base station forgets everything. Tokens are numbered as they are
made, so that two ends which disagree about any of them are found out at once.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from dataclasses import dataclass, field

import pytest

from draftlink.distribution.sampling import Sampling
from draftlink.protocol import frames
from draftlink.protocol.control import digest
from draftlink.protocol.session import LocalProtocolError, RemoteProtocolError, Session
from draftlink.protocol.states import State
from draftlink.schemes.split import Split
from draftlink.schemes.topk import TopK

VOCAB = 1 << 20
SPEAKS = {"features": [frames.RECOVERY]}
HELLO = frames.Hello(frames.VERSION, "x", VOCAB, ["topk"], "t", **SPEAKS)
WELCOME = frames.Welcome(frames.VERSION, "x", VOCAB, 1 << 20, ["topk"], "m", "float32", **SPEAKS)


@dataclass
class Walk:
    """Both ends, and the link between them."""

    chance: random.Random
    split: bool = False
    up: deque[bytes] = field(default_factory=deque)
    down: deque[bytes] = field(default_factory=deque)
    seen: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.device, self.bs = Session("device", VOCAB), Session("bs", VOCAB)
        self.parked: Session | None = None
        self.texts: list[list[int]] = [[], []]  # of device and base station
        self.drafts: deque[list[int]] = deque()  # the device's, without a verdict
        self.queue: deque[tuple[frames.Draft, list[int]]] = deque()  # the base station's
        self.count = 0  # tokens made so far
        self.payloads: dict[bytes, list[int]] = {}
        self.connect()

    def token(self) -> int:
        self.count += 1
        return self.count % VOCAB

    # The device.

    def device_says(self, frame: frames.Frame) -> None:
        self.up.append(self.device.send(frame))

    def act(self) -> None:
        """Something that the device may do now."""
        session, chance = self.device, self.chance
        if session.state is State.READY:
            self.begin()
        elif session.state is State.DRAFTING and chance.random() < 0.8:
            self.draft()
        elif session.state is State.STREAMING and chance.random() < 0.1:
            self.device_says(frames.Switch(session.generation, "draft"))
        elif session.state in (State.DRAFTING, State.VERIFYING) and chance.random() < 0.2:
            progress = session.progress
            if not (progress.switching or progress.owed or (self.split and progress.drafts)):
                self.device_says(frames.Switch(session.generation, "stream"))
        elif session.state in (State.STREAMING, State.VERIFYING) and chance.random() < 0.05:
            keep = chance.randint(session.progress.start.begins, session.length)
            self.drafts.clear()
            self.device_says(frames.Finish(session.generation, keep))
            self.kept = keep

    def begin(self) -> None:
        base = self.chance.randint(0, self.device.length)
        text = self.texts[0]
        text[base:] = [self.token() for _ in range(self.chance.randint(1, 4))]
        self.device_says(
            frames.Start(
                self.device.generation + 1, base, text[base:], Sampling(),
                Split(pairs=4) if self.split else TopK(), self.chance.choice(["draft", "stream"]),
                self.chance.randint(1, 60), [], None,
            )
        )  # fmt: skip

    def draft(self) -> None:
        progress, chance = self.device.progress, self.chance
        if sum(progress.drafts) > 40:
            return
        first = None
        if progress.owed and chance.random() < 0.3:  # by what has come none can be drawn
            had, self.payloads[b""] = chance.randint(1, 4), []
            self.device_says(frames.Draft(progress.epoch, progress.expected, 0, b"", had=had))
            self.drafts.append([])
            self.seen["asked"] += 1
            return
        if progress.owed:
            if progress.start.max_tokens - progress.written < 2:  # it ends the text
                self.device_says(frames.Finish(self.device.generation, self.device.length))
                self.kept = self.device.length
                return
            first = self.token()
        waits = chance.random() < 0.3
        tokens = [
            self.token()
            for _ in range(chance.randint(0 if waits and not progress.drafts else 1, 5))
        ]
        payload = repr(tokens).encode()
        self.payloads[payload] = tokens
        base = progress.expected
        frame = frames.Draft(progress.epoch, base, len(tokens), payload, first, waits)
        self.device_says(frame)
        if first is not None:
            self.texts[0].append(first)
        self.drafts.append(tokens)

    def device_hears(self) -> None:
        if not self.down:
            return
        frame = self.device.receive(self.down.popleft())
        if frame is None:
            self.seen["overtaken"] += 1
        elif isinstance(frame, frames.Verdict):
            self.texts[0] += self.stands(frame, self.drafts)
            self.seen["verdict"] += 1
        elif isinstance(frame, frames.Tokens):
            self.texts[0] += frame.ids
            self.seen["tokens"] += 1
        elif isinstance(frame, frames.Done):
            del self.texts[0][self.kept :]
        else:
            assert isinstance(frame, frames.Switched)
            self.seen["switched"] += 1

    @staticmethod
    def stands(verdict: frames.Verdict, drafts: deque[list[int]]) -> list[int]:
        """The tokens that a verdict writes; what it decides of ``drafts`` is taken off."""
        tokens: list[int] = []
        while len(tokens) < verdict.accepted:
            tokens += drafts.popleft()
        tokens = tokens[: verdict.accepted]
        if verdict.closes:
            drafts.clear()
        return tokens + ([] if verdict.next is None else [verdict.next])

    # The base station.

    def bs_says(self, frame: frames.Frame) -> None:
        self.down.append(self.bs.send(frame))

    def bs_hears(self) -> None:
        if not self.up:
            return
        frame = self.bs.receive(self.up.popleft())
        if frame is None:
            self.seen["stale"] += 1
        elif isinstance(frame, frames.Start):
            self.texts[1][frame.base :] = frame.ids
            self.queue.clear()
        elif isinstance(frame, frames.Draft):
            self.queue.append((frame, self.payloads[frame.payload]))
        elif isinstance(frame, frames.Finish):
            if self.queue and (first := self.queue[0][0].first) is not None:
                self.texts[1].append(first)
            self.queue.clear()
            del self.texts[1][frame.keep :]
            self.bs_says(frames.Done(frame.generation, frame.keep, self.bs.epoch + 1))

    def work(self) -> None:
        """What the base station does when it has the time."""
        if self.queue:
            self.judge()
        elif self.bs.state is State.SWITCHING:
            self.bs_says(frames.Switched(self.bs.generation, self.bs.epoch + 1, self.bs.length))
        elif self.bs.state is State.STREAMING:
            progress, token = self.bs.progress, self.token()
            ended = progress.start.max_tokens - progress.written == 1
            self.texts[1].append(token)
            self.bs_says(frames.Tokens(progress.epoch, progress.length, (token,), ended))

    def judge(self) -> None:
        chance, progress = self.chance, self.bs.progress
        taken = [self.queue.popleft() for _ in range(chance.randint(1, len(self.queue)))]
        if taken[0][0].had:
            numbers = progress.epoch, progress.length
            self.bs_says(frames.Verdict(*numbers, 0, None, False, 0, 0, b"more"))
            return
        first = taken[0][0].first
        if first is not None:
            self.texts[1].append(first)
        drafted = [token for _, tokens in taken for token in tokens]
        left = progress.start.max_tokens - progress.written
        whole = chance.random() < 0.6
        accepted = len(drafted) if whole else chance.randint(0, max(0, len(drafted) - 1))
        accepted = min(accepted, left)
        following = row = None
        if accepted < left:
            if accepted < len(drafted):
                row = b"row" if self.split else None
                following = None if self.split else self.token()
            elif taken[-1][0].waits:
                following = self.token()
        ended = accepted + (following is not None) == left
        verdict = frames.Verdict(
            progress.epoch, progress.length, accepted, following, ended, 0, 0, row or b""
        )
        self.texts[1] += drafted[:accepted] + ([] if following is None else [following])
        self.bs_says(verdict)
        if verdict.closes:
            self.queue.clear()

    # The link.

    def connect(self) -> None:
        """A new connection, and on with what there was. It may be lost again on the way."""
        self.up.clear()
        self.down.clear()
        self.bs = Session("bs", VOCAB)
        assert self.bs.receive(self.device.send(HELLO)) == HELLO
        assert self.device.receive(self.bs.send(WELCOME)) == WELCOME
        if not self.device.stopped:
            self.drafts.clear()
            self.parked = None  # it is found again by its tokens; the protocol starts anew
            return
        if self.chance.random() < 0.2:
            return self.lose()
        asked = self.bs.receive(self.device.send(self.device.resume(self.texts[0])))
        parked = self.parked
        same = parked is not None and digest(self.texts[1][: asked.length]) == asked.digest
        if same and self.bs.adopt(parked):
            self.seen["live"] += 1
            handled = self.bs.progress.frames.received
            resumed = frames.Resumed(asked.start.generation, handled, False)
            assert self.device.receive(self.bs.send(resumed)) == resumed
            self.down += self.bs.resend(asked.seen)
            self.up += self.device.resend(handled)
        else:
            resumed = frames.Resumed(asked.start.generation, 0, True)
            assert self.device.receive(self.bs.send(resumed)) == resumed
            if self.chance.random() < 0.2:
                return self.lose()
            self.seen["replay"] += 1
            history = self.texts[0][: self.device.resumes_at]
            replay = frames.Replay(asked.start.generation, history)
            assert self.bs.receive(self.device.send(replay)) == replay
            self.texts[1], self.parked = list(history), None
            self.queue.clear()
            self.up += self.device.resend(0)

    def lose(self, *, forget: bool = False) -> None:
        """The link breaks. What the base station has heard it deals with; or it forgets all."""
        if self.bs.state in (State.DRAFTING, State.VERIFYING, State.STREAMING, State.SWITCHING):
            while self.queue or self.bs.state is State.SWITCHING:
                self.work()
        if self.bs.generation:
            self.parked = self.bs
        if forget:
            self.parked, self.texts[1] = None, []
            self.queue.clear()
        self.seen["lost"] += 1
        ended = self.device.state is State.FINISHING
        self.device.reopen()
        if ended:
            del self.texts[0][self.kept :]
        self.connect()

    def settle(self) -> None:
        """Let everything under way arrive, and the base station do all that it can."""
        for _ in range(2000):
            if not (self.up or self.down or self.queue):
                break
            self.bs_hears()
            self.device_hears()
            if self.queue or self.bs.state is State.SWITCHING:
                self.work()

    def agree(self) -> None:
        """Both ends are at the same place of the same text."""
        device, bs = self.device.progress, self.bs.progress
        assert (device.epoch, device.length, device.written) == (bs.epoch, bs.length, bs.written)
        assert self.texts[0][: device.length] == self.texts[1][: bs.length]
        assert len(set(self.texts[0])) == len(self.texts[0])


def walk(seed: int, steps: int, *, split: bool = False) -> Counter[str]:
    chance = random.Random(seed)
    walk = Walk(chance, split)
    moves = [walk.act, walk.device_hears, walk.bs_hears, walk.work]
    for step in range(steps):
        if chance.random() < 0.02:
            walk.lose(forget=chance.random() < 0.3)
        else:
            chance.choice(moves)()
        if step % 50 == 0:
            walk.settle()
            walk.agree()
    return walk.seen


@pytest.mark.parametrize("split", [False, True], ids=["bs corrects", "device corrects"])
@pytest.mark.parametrize("seed", range(20))
def test_a_link_that_is_lost_at_any_moment(seed, split):
    seen = walk(seed, 3000 if split else 2000, split=split)
    assert all(seen[what] > 5 for what in ("lost", "live", "replay", "verdict", "tokens", "stale"))
    assert (seen["asked"] > 5) == split


@pytest.mark.full
@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("seed", range(1000, 1020))
def test_a_link_that_is_lost_ten_thousand_times(seed, split):
    assert walk(seed, 25_000, split=split)["lost"] > 400


@pytest.mark.parametrize("broken", ["no resending", "counts one too many"])
def test_the_walk_finds_a_session_that_forgets(monkeypatch, broken):
    """A negative control."""
    if broken == "no resending":
        monkeypatch.setattr(Session, "resend", lambda self, seen: [])
    else:
        real = Session.resend
        monkeypatch.setattr(Session, "resend", lambda self, seen: real(self, seen + 1))
    with pytest.raises((AssertionError, LocalProtocolError, RemoteProtocolError, KeyError)):
        for seed in range(5):
            walk(seed, 2000)

"""Both ends write: which proposals and which text a session takes, and over which connections."""

from __future__ import annotations

import random
from collections import Counter, deque
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftlink.distribution.sampling import Sampling
from draftlink.protocol import both, frames
from draftlink.protocol.control import digest
from draftlink.protocol.frames import Finish, Propose, Resumed, Written
from draftlink.protocol.progress import Progress
from draftlink.protocol.session import LocalProtocolError, RemoteProtocolError, Session, decode
from draftlink.protocol.states import State
from draftlink.schemes import AnyScheme
from draftlink.schemes.base import MAX_DRAFT
from draftlink.schemes.coupled import Coupled
from draftlink.schemes.split import Split
from draftlink.schemes.topk import TopK
from tests.draftlink.test_session import HELLO, VOCAB, WELCOME, Pair, start

GREEDY = Sampling(temperature=0.0)
BOTH = [frames.BOTH]


def greeted(**welcome: object) -> Pair:
    """A pair that agrees on the feature."""
    pair = Pair()
    pair.up(msgspec.structs.replace(HELLO, features=BOTH))
    pair.down(msgspec.structs.replace(WELCOME, features=BOTH, **welcome))
    return pair


def begun(max_tokens: int = 400, surprisals: bool = False, **welcome: object) -> Pair:
    """A pair that writes behind a prompt of 3 tokens."""
    pair = greeted(**welcome)
    pair.up(start("both", sampling=GREEDY, max_tokens=max_tokens, surprisals=surprisals))
    assert pair.device.state is pair.bs.state is State.WRITING
    return pair


def midway(**changes: object) -> Pair:
    """Ten tokens are there; path 4 has 2 tokens from 8 on, told with 9 known."""
    pair = begun(**changes)
    pair.down(Written(3, (5,) * 6, 0, False, 0, 0))
    pair.up(Propose(4, 8, 9, 0, 2, b""))
    pair.down(Written(9, (5,), 1, False, 0, 0))
    return pair


FAULTS = {
    "path 0": (Propose(0, 8, 9, 2, 1, b""), "path 0, where path 4 was the last"),
    "an older path": (Propose(3, 8, 9, 0, 1, b""), "path 3, where path 4 was the last"),
    "base falls": (Propose(5, 7, 9, 0, 1, b""), "one falls"),
    "known falls": (Propose(5, 8, 8, 0, 1, b""), "one falls"),
    "known is not there": (Propose(5, 9, 11, 0, 1, b""), "a path from 9 with 11 known, of 10"),
    "a gap": (Propose(4, 8, 9, 3, 1, b""), "token 3 of a path from 8, where another is next"),
    "twice": (Propose(4, 8, 9, 0, 2, b""), "token 0 of a path from 8, where another is next"),
    "another base": (Propose(4, 9, 9, 2, 1, b""), "token 2 of a path from 9"),
    "a new path goes on": (Propose(5, 8, 9, 2, 1, b""), "does not begin within the text"),
    "empty": (Propose(4, 8, 9, 2, 0, b""), "no token"),
    "65 at once": (Propose(4, 8, 9, 2, MAX_DRAFT + 1, b""), "more than 64 at once"),
}


@pytest.mark.parametrize(("frame", "fault"), FAULTS.values(), ids=FAULTS)
def test_a_proposal_that_cannot_be_is_neither_sent_nor_taken(frame, fault):
    pair = midway()
    with pytest.raises(LocalProtocolError, match=fault):
        pair.device.send(frame)
    if frame.path >= 4:
        with pytest.raises(RemoteProtocolError, match=fault):
            pair.bs.receive(frames.encode(frame))
    else:
        assert pair.bs.receive(frames.encode(frame)) is None
    pair.up(Propose(4, 8, 9, 2, 1, b""))  # what is right is taken all the same
    pair.up(Propose(5, 8, 10, 0, MAX_DRAFT, b""))


def test_the_first_path_has_a_number_and_begins_behind_the_prompt():
    for frame, fault in (
        (Propose(0, 0, 3, 0, 1, b""), "they rise from 1"),
        (Propose(1, 2, 3, 0, 1, b""), "a new path from 2"),
    ):
        pair = begun()
        with pytest.raises(LocalProtocolError, match=fault):
            pair.device.send(frame)
        with pytest.raises(RemoteProtocolError, match=fault):
            pair.bs.receive(frames.encode(frame))
        pair.up(Propose(1, 3, 3, 0, 1, b""))


def test_as_many_tokens_are_ahead_of_the_text_as_may_be_and_not_one_more():
    pair = begun()
    for first in range(0, both.MAX_LIVE, MAX_DRAFT):
        pair.up(Propose(1, 3, 3, first, MAX_DRAFT, b""))
    wrong = Propose(1, 3, 3, both.MAX_LIVE, 1, b"")
    with pytest.raises(RemoteProtocolError, match="or 256 ahead of the text"):
        pair.bs.receive(frames.encode(wrong))
    with pytest.raises(LocalProtocolError, match="or 256 ahead of the text"):
        pair.device.send(wrong)
    pair.down(Written(3, (5,), 1, False, 0, 0))  # one of them is settled
    pair.up(replace(wrong, known=4))


def test_nothing_is_proposed_behind_the_limit():
    pair = begun(max_tokens=5)
    for frame in (Propose(1, 3, 3, 0, 6, b""), Propose(1, 4, 4, 0, 5, b"")):
        if frame.base == 4:
            pair.down(Written(3, (5,), 0, False, 0, 0))
        with pytest.raises(RemoteProtocolError, match="tokens behind the limit"):
            pair.bs.receive(frames.encode(frame))
    pair.up(Propose(1, 4, 4, 0, 4, b""))


def test_a_proposal_of_more_entries_than_it_may_carry_is_neither_sent_nor_taken():
    """Known from its head alone."""
    pair = begun(frame_entries=4 * 32)
    wrong = Propose(1, 3, 3, 0, 5, b"\xff" * 1000)
    with pytest.raises(RemoteProtocolError, match="5 tokens at once, where 128 entries"):
        pair.bs.receive(frames.encode(wrong))
    with pytest.raises(LocalProtocolError, match="5 tokens at once, where 128 entries"):
        pair.device.send(wrong)
    pair.up(Propose(1, 3, 3, 0, 4, b""))


WRONG_TEXT = {
    "a gap": (Written(11, (5,), 0, False, 0, 0), "tokens at 11, where 10 is next"),
    "twice": (Written(9, (5,), 0, False, 0, 0), "tokens at 9, where 10 is next"),
    "nothing": (Written(10, (), 0, False, 0, 0), "no tokens"),
    "nothing at the end": (Written(10, (), 0, True, 0, 0), "no tokens"),
    "an id out of range": (Written(10, (5, VOCAB), 0, False, 0, 0), "ids out of range"),
    "more accepted": (Written(10, (5,), 2, False, 0, 0), "more accepted than there are"),
    "behind the limit": (Written(10, (5,) * 4, 0, True, 0, 0), "4 more tokens, where 3 are left"),
    "no end at it": (Written(10, (5,) * 3, 0, False, 0, 0), "3 more tokens, where 3 are left"),
    "surprisals": (Written(10, (5,), 0, False, 0, 0, b"\1"), "1 surprisals for 1 tokens"),
    "too few rows": (Written(10, (5, 6), 0, False, 0, 0, rows=1), "1 rows for 2 tokens"),
    "too many rows": (Written(10, (5,), 0, False, 0, 0, rows=MAX_DRAFT + 2), "66 rows for 1"),
}


@pytest.mark.parametrize(("frame", "fault"), WRONG_TEXT.values(), ids=WRONG_TEXT)
def test_text_that_cannot_be_is_neither_sent_nor_taken(frame, fault):
    pair = midway(max_tokens=10)
    with pytest.raises(RemoteProtocolError, match=fault):
        pair.device.receive(frames.encode(frame))
    with pytest.raises(LocalProtocolError, match=fault):
        pair.bs.send(frame)
    pair.down(Written(10, (5,) * 3, 3, True, 0, 0, rows=MAX_DRAFT + 1))
    assert pair.device.state is pair.bs.state is State.READY


@pytest.mark.parametrize("surprisals", [b"", b"\1", b"\1\2\3"])
def test_surprisals_are_told_of_each_token_where_they_were_asked_for(surprisals):
    pair = begun(surprisals=True)
    with pytest.raises(RemoteProtocolError, match="surprisals for 2 tokens"):
        pair.device.receive(frames.encode(Written(3, (5, 6), 0, False, 0, 0, surprisals)))
    pair.down(Written(3, (5, 6), 0, False, 0, 0, b"\1\2"))


@pytest.mark.parametrize(
    ("scheme", "sampling", "fault"),
    [
        (TopK(), Sampling(), "the text would depend on who proposes it"),
        (Split(), Sampling(), "the text would depend on who proposes it"),
        (Coupled(), Sampling(), None),
        (Coupled(), GREEDY, None),
        (Split(), GREEDY, None),
    ],
)
def test_both_write_only_what_does_not_depend_on_who_proposes_it(scheme, sampling, fault):
    asked = start("both", scheme=scheme, sampling=sampling, seed=7)
    resumed = frames.Resume(
        msgspec.structs.replace(asked, base=3, ids=[]), 1, 3, bytes(16), False, 0
    )
    for frame in (asked, resumed):
        pair = greeted()
        if fault is None:
            pair.bs.receive(frames.encode(frame))
            continue
        with pytest.raises(RemoteProtocolError, match=fault):
            pair.bs.receive(frames.encode(frame))
        assert pair.bs.state is State.READY


def test_both_write_only_where_both_know_of_it():
    pair = Pair()
    pair.up(msgspec.structs.replace(HELLO, features=BOTH))
    pair.down(WELCOME)
    asked = start("both", sampling=GREEDY)
    with pytest.raises(LocalProtocolError, match="the feature both-write-2 was not agreed on"):
        pair.device.send(asked)
    with pytest.raises(RemoteProtocolError, match="the feature both-write-2 was not agreed on"):
        pair.bs.receive(frames.encode(asked))
    for mode in ("draft", "stream"):  # and nothing of it comes in another mode
        pair = greeted()
        pair.up(start(mode, sampling=GREEDY))
        with pytest.raises(RemoteProtocolError, match="Propose is not allowed"):
            pair.bs.receive(frames.encode(Propose(1, 3, 3, 0, 1, b"")))
        with pytest.raises(RemoteProtocolError, match="Written is not allowed"):
            pair.device.receive(frames.encode(Written(3, (5,), 0, False, 0, 0)))


def test_finish_crosses_text_and_the_end_crosses_proposals():
    pair = midway()
    late = [
        pair.bs.send(Written(10, (5,), 0, False, 0, 0)),
        pair.bs.send(Written(11, (6,), 0, True, 0, 0)),
    ]
    proposed = pair.device.send(Propose(4, 8, 10, 2, 3, b""))
    finish = pair.device.send(Finish(1, 9))
    assert [pair.device.receive(data) for data in late] == [None, None]
    assert pair.bs.receive(proposed) is None  # the text had ended
    assert pair.bs.receive(finish) == Finish(1, 9)
    pair.done(9)
    assert pair.device.length == pair.bs.length == 9
    pair.up(start("both", generation=2, base=9, sampling=GREEDY))
    for path in (1, 3):  # paths rise over the session
        assert pair.bs.receive(frames.encode(Propose(path, 12, 12, 0, 2, b""))) is None
    with pytest.raises(LocalProtocolError, match="where another is next"):
        pair.device.send(Propose(4, 12, 12, 0, 2, b""))
    pair.up(Propose(5, 12, 12, 0, 2, b""))


def test_a_base_station_writes_no_more_behind_finish_than_was_left():
    pair = midway(max_tokens=10)
    pair.up(Finish(1, 9))
    for i in range(4):  # 3 tokens, and what any generation may have beside them
        assert pair.device.receive(frames.encode(Written(10 + i, (5,), 0, False, 0, 0))) is None
    with pytest.raises(RemoteProtocolError, match="it goes on writing behind the end"):
        pair.device.receive(frames.encode(Written(14, (5,), 0, False, 0, 0)))


FLOODS = {
    "older paths": lambda i: Propose(i % 4, 2**32 - 1, 2**32 - 1, i, 2**32 - 1, b"x"),
    "new ones, at an old base": lambda i: Propose(5 + i, 8, 9, 0, MAX_DRAFT, b"\xff" * 300),
    "one by one": lambda i: Propose(4, 8, 9, 2 + i, 1, b"\xff"),
    "the most": lambda i: Propose(5, 8, 9, MAX_DRAFT * i, MAX_DRAFT, b""),
}
TAKEN = {"older paths": 0, "new ones, at an old base": 300, "one by one": 255, "the most": 4}


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_of_proposals_moves_nothing_and_holds_nothing(name):
    """A session keeps four numbers, whatever comes, and the text goes on."""
    pair, taken = midway(), 0
    fields = set(vars(pair.bs.progress))
    for i in range(300):
        try:
            taken += pair.bs.receive(frames.encode(FLOODS[name](i))) is not None
        except RemoteProtocolError as error:
            assert "256 ahead of the text" in str(error)
            break
    assert taken == TAKEN[name]
    progress = pair.bs.progress
    assert set(vars(progress)) == fields and not progress.frames.kept and not progress.drafts
    assert (pair.bs.length, progress.frames.received) == (10, 0)
    pair.down(Written(10, (5,), 0, False, 0, 0))


def again(pair: Pair, history: list[int], *, kept: bool = True, **asked: object) -> bool:
    """A new connection, and Resume over it. Whether the base station goes on with what it has."""
    parked = pair.bs
    pair.device.reopen()
    pair.bs = Session("bs", VOCAB)
    pair.up(msgspec.structs.replace(HELLO, features=BOTH))
    pair.down(msgspec.structs.replace(WELCOME, features=BOTH))
    frame = msgspec.structs.replace(pair.device.resume(history), **asked)
    pair.bs.receive(frames.encode(frame))
    pair.device.send(pair.device.resume(history))
    return kept and pair.bs.adopt(parked)


HISTORY = [1, 2, 3, *(5,) * 7]


def test_over_a_new_connection_the_text_is_told_from_where_the_device_is():
    pair = midway()
    pair.bs.send(Written(10, (6, 7), 1, False, 0, 0))  # lost,
    pair.device.send(Propose(4, 8, 10, 2, 3, b""))  # as this is
    assert again(pair, HISTORY)
    pair.down(Resumed(1, 0, False))
    assert pair.device.state is pair.bs.state is State.WRITING
    assert pair.device.length == pair.bs.length == 10
    assert pair.bs.progress.written == pair.device.progress.written == 7
    wrong = Propose(4, 8, 10, 5, 1, b"")
    with pytest.raises(LocalProtocolError, match="where another is next"):
        pair.device.send(wrong)
    for first in (0, 2, 5):  # whether what was sent last has come or not
        with pytest.raises(RemoteProtocolError, match="where another is next"):
            pair.bs.receive(frames.encode(replace(wrong, first=first)))
    pair.up(Propose(5, 9, 10, 0, 3, b""))
    pair.down(Written(10, (6, 7), 0, False, 0, 0))


def test_an_end_that_was_lost_is_told_again():
    pair = midway(max_tokens=9)
    pair.bs.send(Written(10, (6, 7), 1, True, 0, 0))
    assert again(pair, HISTORY)
    pair.down(Resumed(1, 0, False))
    pair.down(Written(10, (6, 7), 0, True, 0, 0))
    assert pair.device.state is pair.bs.state is State.READY


def test_an_end_that_the_device_has_is_no_text_to_go_on_with():
    """Else a base station would write behind the end for who asks it to."""
    pair = midway(max_tokens=9)
    data = pair.bs.send(Written(10, (6, 2), 1, True, 0, 0))
    pair.device.receive(data)
    # It says that it has not, and that there is room for more.
    pair.device.state = State.WRITING
    more = msgspec.structs.replace(pair.device.progress.start, max_tokens=20)
    pair.device.progress.start = more
    assert again(pair, [*HISTORY, 6, 2])
    assert pair.bs.send(Resumed(1, 0, False)) and pair.bs.state is State.READY
    assert pair.bs.receive(frames.encode(Propose(9, 12, 12, 0, 1, b""))) is None
    with pytest.raises(LocalProtocolError):
        pair.bs.send(Written(12, (5,), 0, False, 0, 0))


def test_what_is_forgotten_is_replayed():
    pair = midway()
    assert not again(pair, HISTORY, kept=False)
    pair.down(Resumed(1, 0, True))
    pair.up(frames.Replay(1, HISTORY))
    assert pair.device.state is pair.bs.state is State.WRITING
    assert pair.bs.progress.written == 7 and pair.bs.length == 10
    pair.up(Propose(5, 10, 10, 0, 2, b""))
    pair.down(Written(10, (6,), 1, False, 0, 0))


@pytest.mark.parametrize(
    "why", ["another mode", "before the text", "beyond it", "frames that were none", "finishing"]
)
def test_a_base_station_does_not_go_on_with_what_does_not_fit(why):
    """It asks for the history then, and holds what it writes against that."""
    pair, asked = midway(), {}
    true = msgspec.structs.replace(start("both", sampling=GREEDY, max_tokens=400), base=3, ids=[])
    if why == "another mode":
        asked["start"] = msgspec.structs.replace(true, mode="draft")
    elif why == "before the text":
        asked |= {"start": msgspec.structs.replace(true, base=1), "length": 2}
    elif why == "beyond it":
        asked["length"] = 11
    elif why == "frames that were none":
        asked["seen"] = 1
    else:
        pair.bs.receive(frames.encode(Finish(1, 9)))
    assert not again(pair, HISTORY, **asked)
    assert again(midway(), HISTORY)  # the control


def test_a_generation_that_a_device_drafts_is_not_gone_on_with_by_both():
    pair = greeted()
    pair.up(start(sampling=GREEDY))
    asked = msgspec.structs.replace(start("both", sampling=GREEDY), base=3, ids=[])
    assert not again(pair, [1, 2, 3], start=asked)


class Walk:
    """Two sessions, whatever the chances. The text is a function of the position alone."""

    def __init__(self, seed: int, scheme: AnyScheme) -> None:
        self.chance = random.Random(seed)
        self.seen: Counter[str] = Counter()
        self.up: deque[bytes] = deque()
        self.down: deque[bytes] = deque()
        self.texts: dict[str, list[int]] = {"device": [1, 2, 3], "bs": [1, 2, 3]}
        self.most = self.chance.randint(1, 60)
        pair = greeted()
        pair.up(start("both", sampling=GREEDY, max_tokens=self.most, scheme=scheme))
        self.device, self.bs = pair.device, pair.bs

    @staticmethod
    def token(position: int) -> int:
        return position * position * 7 % VOCAB

    def propose(self) -> None:
        """What a device may say: on with its path, or a new one anywhere between."""
        session, chance = self.device, self.chance
        progress = session.progress
        path, base, first = progress.path, progress.path_base, progress.proposed
        if not path or first < 0 or chance.random() < 0.3:
            begin = max(base, 3)
            path, base, first = (
                path + chance.choice((1, 1, 9)),
                chance.randint(begin, session.length),
                0,
            )
        room = min(3 + self.most, session.length + both.MAX_LIVE) - base - first
        if room < 1 or session.state is not State.WRITING:
            return
        length = min(room, chance.choice((1, 1, 2, 5, MAX_DRAFT)))
        frame = Propose(path, base, session.length, first, length, b"", chance.random() < 0.5)
        self.up.append(session.send(frame))

    def hear(self) -> None:
        if self.down:
            frame = self.device.receive(self.down.popleft())
            assert isinstance(frame, Written)
            self.texts["device"] += frame.ids
            self.seen["written"] += 1

    def listen(self) -> None:
        if self.up:
            frame = self.bs.receive(self.up.popleft())
            self.seen["overtaken" if frame is None else "proposed"] += 1

    def write(self) -> None:
        if self.bs.state is State.WRITING:
            text, left = self.texts["bs"], 3 + self.most - self.bs.length
            count = min(left, self.chance.choice((1, 1, 3, 8)))
            ids = tuple(self.token(len(text) + i) for i in range(count))
            accepted = self.chance.randint(0, count - 1)
            frame = Written(len(text), ids, accepted, count == left, 0, 0)
            text += ids
            self.down.append(self.bs.send(frame))

    def lose(self) -> None:
        """The link, with all that is under way; with it perhaps what the base station knows."""
        if self.device.state is not State.WRITING:
            return
        self.up.clear()
        self.down.clear()
        pair = Pair()
        pair.device, pair.bs = self.device, self.bs
        history = self.texts["device"]
        live = again(pair, history, kept=self.chance.random() < 0.7)
        pair.down(Resumed(1, 0, not live))
        if live:
            begin = len(history)
            told = tuple(self.texts["bs"][begin:])
            if told:
                ended = len(self.texts["bs"]) == 3 + self.most
                self.down.append(pair.bs.send(Written(begin, told, 0, ended, 0, 0)))
        else:
            pair.up(frames.Replay(1, history))
            self.texts["bs"] = list(history)
        self.bs = pair.bs
        self.seen["live" if live else "replayed"] += 1

    def run(self) -> Counter[str]:
        moves = [self.propose, self.hear, self.listen, self.write]
        weights = [self.chance.choice((1, 2, 5)) for _ in moves]
        while self.device.state is State.WRITING:
            if self.chance.random() < 0.03:
                self.lose()
            self.chance.choices(moves, weights)[0]()
        while self.up:
            self.listen()
        assert self.bs.state is State.READY and not self.down
        wanted = [1, 2, 3, *(self.token(i) for i in range(3, 3 + self.most))]
        assert self.texts == {"device": wanted, "bs": wanted}
        return self.seen


def test_any_legal_conversation_comes_to_the_text_over_any_link():
    seen: Counter[str] = Counter()
    for seed in range(150):
        seen += Walk(seed, (TopK(), Coupled())[seed % 2]).run()
    assert all(seen[what] > 20 for what in ("overtaken", "proposed", "live", "replayed"))


@pytest.mark.parametrize("broken", ["no rewinding", "paths go on", "ends are forgotten"])
def test_the_walk_finds_a_session_that_resumes_wrongly(monkeypatch, broken):
    """The control."""
    if broken == "no rewinding":
        monkeypatch.setattr(Progress, "rewind", lambda self, length: None)
    elif broken == "paths go on":
        monkeypatch.setattr(Progress, "leave_path", lambda self: None)
    else:
        real = Session.adopt

        def adopt(self: Session, parked: Session) -> bool:
            found = real(self, parked)
            self.stopped_at = parked.state
            return found

        monkeypatch.setattr(Session, "adopt", adopt)
    with pytest.raises((AssertionError, LocalProtocolError, RemoteProtocolError)):
        for seed in range(150):
            Walk(seed, TopK()).run()


WORD = st.integers(0, 12) | st.sampled_from([64, 65, 256, 257, 2**32 - 1])


@given(st.builds(Propose, WORD, WORD, WORD, WORD, WORD, st.binary(max_size=4), st.booleans()))
def test_any_proposal_is_taken_dropped_or_refused(frame):
    """And only one that is right moves anything, by the rules as they are written."""
    frame = replace(frame, known=frame.base + frame.known)
    pair = midway()
    before = dict(vars(pair.bs.progress))
    try:
        taken = pair.bs.receive(frames.encode(frame))
    except RemoteProtocolError:
        taken = None
    if taken is None:
        assert vars(pair.bs.progress) == before
        return
    assert (frame.path == 4 and (frame.base, frame.first) == (8, 2)) or frame.path > 4
    assert frame.first == 0 or frame.path == 4
    assert frame.base >= 8 and 9 <= frame.known <= 10 and 1 <= frame.length <= 64
    assert frame.end <= min(frame.known + 256, 403)


@given(st.sampled_from([5, 6]), st.binary(max_size=60), st.sampled_from(["device", "bs"]))
def test_any_bytes_of_the_two_kinds_are_taken_dropped_or_refused(kind, data, role):
    pair = midway()
    session = getattr(pair, role)
    try:
        frame = decode(bytes((kind,)) + data)
        session.accept(frame)
    except RemoteProtocolError:
        assert session.state is State.WRITING


def test_digests_are_of_what_both_have():
    """What is told again begins where the device's own history ends."""
    pair = midway()
    pair.bs.send(Written(10, (6,), 0, False, 0, 0))
    pair.device.reopen()
    asked = pair.device.resume(HISTORY)
    assert (asked.length, asked.digest, asked.seen) == (10, digest(HISTORY), 0)
    assert (asked.start.mode, asked.start.base, asked.start.ids) == ("both", 3, [])

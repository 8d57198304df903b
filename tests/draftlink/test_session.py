"""The transition table: what is not allowed is an error, and leaves the state as it was."""

from __future__ import annotations

import copy

import msgspec
import pytest

from draftlink.distribution.sampling import Sampling
from draftlink.protocol import frames
from draftlink.protocol.session import LocalProtocolError, RemoteProtocolError, Session
from draftlink.protocol.states import SENDER, TABLE, State
from draftlink.schemes.base import MAX_DRAFT
from draftlink.schemes.split import Split
from draftlink.schemes.topk import TopK
from tests.draftlink.test_frames import EXAMPLES

VOCAB = 100
OVERTAKEN = (frames.Verdict, frames.Tokens, frames.Switched, frames.Written)
HELLO = frames.Hello(1, "x", VOCAB, ["topk"], "t")
WELCOME = frames.Welcome(1, "x", VOCAB, 512, ["topk"], "m", "float32")


def start(mode: frames.Phase = "draft", **changes: object) -> frames.Start:
    fields: dict = dict(
        generation=1, base=0, ids=[1, 2, 3], sampling=Sampling(), scheme=TopK(), mode=mode,
        max_tokens=10, eos_ids=[], seed=None,
    )  # fmt: skip
    return frames.Start(**{**fields, **changes})


class Pair:
    def __init__(self) -> None:
        self.device, self.bs = Session("device", VOCAB), Session("bs", VOCAB)

    def up(self, frame: frames.Frame) -> None:
        assert self.bs.receive(self.device.send(frame)) == frame

    def down(self, frame: frames.Frame) -> None:
        assert self.device.receive(self.bs.send(frame)) == frame

    def done(self, keep: int) -> None:
        """The base station confirms Finish, in an epoch of its own."""
        self.down(frames.Done(self.bs.generation, keep, self.bs.epoch + 1))

    def begun(self, mode: frames.Phase = "draft") -> Pair:
        self.up(HELLO)
        self.down(WELCOME)
        self.up(start(mode))
        return self


def test_a_generation_from_hello_to_the_next_turn():
    pair = Pair().begun()
    pair.up(frames.Draft(1, 3, 4, b""))
    pair.down(frames.Verdict(1, 3, 2, 50, False, 0, 0))
    assert pair.device.length == pair.bs.length == 6
    pair.up(frames.Draft(2, 6, 4, b""))
    pair.down(frames.Verdict(2, 6, 4, None, True, 0, 0))
    assert pair.device.state is pair.bs.state is State.READY
    pair.up(start("stream", generation=2, base=10))
    pair.down(frames.Tokens(4, 13, (5,), False))
    pair.up(frames.Finish(2, 13))
    pair.done(13)
    assert pair.device.length == pair.bs.length == 13


def test_frames_under_way_when_the_device_ends_are_dropped():
    pair = Pair().begun("stream")
    late = pair.bs.send(frames.Tokens(1, 3, (5,), False))
    pair.up(frames.Finish(1, 3))
    assert pair.device.receive(late) is None
    pair.done(3)
    assert pair.device.length == pair.bs.length == 3


def test_finish_crosses_the_end():
    pair = Pair().begun("stream")
    last = pair.bs.send(frames.Tokens(1, 3, (5,), True))
    finish = pair.device.send(frames.Finish(1, 3))
    assert pair.device.receive(last) is None
    assert pair.bs.receive(finish) == frames.Finish(1, 3)
    pair.done(3)
    assert pair.device.state is pair.bs.state is State.READY


def test_an_overtaken_verdict_ends_its_epoch_at_both_ends():
    pair = Pair().begun()
    pair.up(frames.Draft(1, 3, 1, b""))
    finish = pair.device.send(frames.Finish(1, 3))
    late = pair.bs.send(frames.Verdict(1, 3, 1, 5, False, 0, 0))
    assert pair.device.receive(late) is None
    assert pair.bs.receive(finish) == frames.Finish(1, 3)
    pair.done(3)
    pair.up(start(generation=2, base=3))
    assert pair.device.epoch == pair.bs.epoch
    pair.up(frames.Draft(pair.device.epoch, 6, 1, b""))


def test_a_switch_does_not_say_that_a_verdict_has_come():
    """It may have crossed it: the base station keeps the verdict for a new connection."""
    pair = Pair().begun()
    pair.up(frames.Draft(1, 3, 2, b"", waits=False))
    pair.bs.send(frames.Verdict(1, 3, 1, 50, False, 0, 0))
    pair.up(frames.Switch(1, "stream"))
    parked = pair.bs
    assert pair.device.state is State.VERIFYING and parked.state is State.STREAMING
    pair.device.reopen()
    pair.bs = Session("bs", VOCAB)
    pair.up(HELLO)
    pair.down(WELCOME)
    pair.up(pair.device.resume(range(3)))
    assert pair.bs.adopt(parked)
    pair.down(frames.Resumed(1, parked.progress.frames.received, False))
    for data in pair.bs.resend(pair.device.progress.frames.received):
        pair.device.receive(data)
    assert pair.device.state is pair.bs.state is State.STREAMING
    assert (pair.device.epoch, pair.device.length) == (pair.bs.epoch, pair.bs.length) == (3, 5)


@pytest.mark.parametrize(
    "frame, state",
    [(f, s) for f in EXAMPLES for s in State if (s, type(f)) not in TABLE],
    ids=lambda x: x.name if isinstance(x, State) else type(x).__name__,
)
@pytest.mark.parametrize("role", ["device", "bs"])
def test_what_the_table_lacks_is_refused(role, frame, state):
    session = Session(role, 1 << 20)
    session.state = state
    before = copy.deepcopy(vars(session))
    if role == "device" and state is State.FINISHING and isinstance(frame, OVERTAKEN):
        assert session.receive(frames.encode(frame)) is None  # it was under way
        return
    if SENDER[type(frame)] == role:
        with pytest.raises(LocalProtocolError):
            session.send(frame)
    else:
        with pytest.raises(RemoteProtocolError):
            session.receive(frames.encode(frame))
    assert vars(session) == before


WRONG_VERDICTS = {
    "old epoch": frames.Verdict(0, 3, 1, 5, False, 0, 0),
    "other base": frames.Verdict(1, 4, 1, 5, False, 0, 0),
    "more than drafted": frames.Verdict(1, 3, 5, 5, False, 0, 0),
    "id out of range": frames.Verdict(1, 3, 1, VOCAB, False, 0, 0),
    "no next, not ended": frames.Verdict(1, 3, 4, None, False, 0, 0),
    "nothing at all": frames.Verdict(1, 3, 0, None, True, 0, 0),
}


@pytest.mark.parametrize("verdict", WRONG_VERDICTS.values(), ids=WRONG_VERDICTS)
def test_wrong_verdicts(verdict):
    pair = Pair().begun()
    pair.up(frames.Draft(1, 3, 4, b""))
    with pytest.raises(RemoteProtocolError):
        pair.device.receive(frames.encode(verdict))
    with pytest.raises(LocalProtocolError):
        pair.bs.send(verdict)
    pair.down(frames.Verdict(1, 3, 1, 5, False, 0, 0))


def owing() -> Pair:
    """A pair in which the device owes the token after a rejection."""
    pair = Pair()
    pair.up(HELLO)
    pair.down(WELCOME)
    pair.up(start(scheme=Split(), max_tokens=4, eos_ids=[9]))
    pair.up(frames.Draft(1, 3, 3, b""))
    pair.down(frames.Verdict(1, 3, 1, None, False, 0, 0, b"row"))
    assert pair.device.length == pair.bs.length == 4
    return pair


def test_a_token_that_is_owed_comes_first():
    pair = owing()
    pair.up(frames.Draft(2, 4, 2, b"", 50))
    pair.down(frames.Verdict(2, 5, 2, None, True, 0, 0))
    assert pair.device.length == pair.bs.length == 7


@pytest.mark.parametrize(
    "frame",
    [
        frames.Draft(2, 4, 2, b""),
        frames.Draft(2, 4, 2, b"", VOCAB),
        frames.Draft(2, 4, 2, b"", 9),  # an EOS ends the generation: nothing is drafted after it
        frames.Draft(2, 4, MAX_DRAFT + 1, b"", 50),
        frames.Switch(1, "stream"),
        frames.Switch(1, "draft"),
    ],
)
def test_wrong_drafts_while_a_token_is_owed(frame):
    pair = owing()
    with pytest.raises(RemoteProtocolError):
        pair.bs.receive(frames.encode(frame))
    pair.up(frames.Draft(2, 4, 0, b"", 50))


@pytest.mark.parametrize("crossed", [0, 3])
def test_an_epoch_behind_the_end_is_one_that_can_have_begun(crossed):
    """One just below the last number left a device whose own next frame was against the law."""
    pair = Pair().begun()
    pair.up(frames.Finish(1, 3))
    for _ in range(crossed):  # whatever they say, each may have begun an epoch
        assert pair.device.receive(frames.encode(frames.Tokens(1, 3, (5,), False))) is None
    for epoch in (0, 1, crossed + 4, (1 << 31) - 1):
        with pytest.raises(RemoteProtocolError, match="where 1 was the last"):
            pair.device.receive(frames.encode(frames.Done(1, 3, epoch)))
    pair.device.receive(frames.encode(frames.Done(1, 3, crossed + 3)))
    assert pair.device.epoch == crossed + 3


def test_nothing_is_owed_after_the_end():
    pair = owing()
    pair.up(frames.Finish(1, 4))
    pair.done(4)
    pair.up(start(generation=2, base=4, ids=[50, 1]))
    with pytest.raises(RemoteProtocolError, match="no token is owed"):
        pair.bs.receive(frames.encode(frames.Draft(pair.bs.epoch, 6, 1, b"", 5)))


@pytest.mark.parametrize(
    "scheme, verdict",
    [
        (TopK(), frames.Verdict(1, 3, 1, None, False, 0, 0, b"row")),
        (Split(), frames.Verdict(1, 3, 1, 5, False, 0, 0)),
        (Split(), frames.Verdict(1, 3, 1, 5, False, 0, 0, b"row")),
        (Split(), frames.Verdict(1, 3, 1, None, True, 0, 0, b"row")),
        (Split(), frames.Verdict(1, 3, 3, None, False, 0, 0, b"row")),
        (TopK(), frames.Verdict(1, 3, 1, 5, False, 0, 0, b"", b"12")),
    ],
)
def test_rows_and_surprisals_come_only_where_they_belong(scheme, verdict):
    pair = Pair()
    pair.up(HELLO)
    pair.down(WELCOME)
    pair.up(start(scheme=scheme))
    pair.up(frames.Draft(1, 3, 3, b""))
    with pytest.raises(RemoteProtocolError):
        pair.device.receive(frames.encode(verdict))


def test_more_tokens_than_asked_for():
    pair = Pair().begun("stream")
    with pytest.raises(RemoteProtocolError, match="where 10 are left"):
        pair.device.receive(frames.encode(frames.Tokens(1, 3, (1,) * 11, True)))


@pytest.mark.parametrize(
    "changes",
    [{"base": 1}, {"ids": []}, {"ids": [VOCAB]}, {"ids": [-1]}, {"max_tokens": 0},
     {"generation": 0}],
)  # fmt: skip
def test_wrong_starts(changes):
    pair = Pair()
    pair.up(HELLO)
    pair.down(WELCOME)
    with pytest.raises(RemoteProtocolError):
        pair.bs.receive(frames.encode(start(**changes)))
    assert pair.bs.state is State.READY


@pytest.mark.parametrize("keep", [-1, -(2**63), 4, 2**64 - 1])
def test_finish_keeps_what_there_is(keep):
    pair = Pair().begun()
    with pytest.raises(RemoteProtocolError, match="to keep, of 3"):
        pair.bs.receive(frames.encode(frames.Finish(1, keep)))
    assert pair.bs.state is State.DRAFTING


@pytest.mark.parametrize("length", [-1, 1, 3, 2**63])
def test_done_confirms_what_finish_asked_for(length):
    pair = Pair().begun()
    pair.up(frames.Finish(1, 2))
    with pytest.raises(RemoteProtocolError, match="where 2 were to be"):
        pair.device.receive(frames.encode(frames.Done(1, length, 2)))
    pair.done(2)


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 9}, {"tokenizer_hash": "y"}, {"context": 0},
        {"vocab_size": 0}, {"vocab_size": -5}, {"vocab_size": 2**40},
    ],
)  # fmt: skip
def test_a_welcome_has_what_a_device_can_work_with(changes):
    pair = Pair()
    pair.up(HELLO)
    with pytest.raises(RemoteProtocolError):
        pair.device.receive(frames.encode(msgspec.structs.replace(WELCOME, **changes)))
    pair.down(WELCOME)


def test_eos_ids_are_few():
    pair = Pair()
    pair.up(HELLO)
    pair.down(WELCOME)
    with pytest.raises(RemoteProtocolError, match="EOS ids"):
        pair.bs.receive(frames.encode(start(eos_ids=[1] * 257)))


def agreeing() -> Pair:
    """Both have the feature of suppressed ids."""
    pair = Pair()
    pair.up(msgspec.structs.replace(HELLO, features=[frames.SUPPRESSED]))
    pair.down(msgspec.structs.replace(WELCOME, features=[frames.SUPPRESSED]))
    return pair


def test_suppressed_ids_are_told_only_where_both_ends_know_of_them():
    """Who does not would write them in silence."""
    pair = Pair()
    pair.up(msgspec.structs.replace(HELLO, features=[frames.SUPPRESSED]))
    pair.down(WELCOME)
    for ids in ([5], []):
        with pytest.raises(LocalProtocolError, match="the feature suppressed-ids was not agreed"):
            pair.device.send(start(suppressed_ids=ids))
        with pytest.raises(RemoteProtocolError, match="the feature suppressed-ids was not agreed"):
            pair.bs.receive(frames.encode(start(suppressed_ids=ids)))
    pair = agreeing()
    pair.up(start(suppressed_ids=[5, VOCAB - 1]))
    assert pair.bs.progress.start.suppressed.tolist() == [5, VOCAB - 1]
    data = pair.device.send(frames.Draft(1, 3, 4, b""))
    pair.bs.receive(data)
    pair.device.reopen()  # a resumed generation suppresses what it did
    again, bs = pair.device, Session("bs", VOCAB)
    bs.receive(again.send(msgspec.structs.replace(HELLO, features=[frames.SUPPRESSED])))
    again.receive(bs.send(msgspec.structs.replace(WELCOME, features=[frames.SUPPRESSED])))
    bs.receive(again.send(again.resume([1, 2, 3])))
    assert bs.resuming.start.suppressed_ids == [5, VOCAB - 1]


@pytest.mark.parametrize(
    ("ids", "fault"),
    [
        ([VOCAB], "out of range"),
        ([-1], "out of range"),
        ([1 << 40], "out of range"),
        ([5, 5], "do not ascend"),
        ([5, 4], "do not ascend"),
        ([*range(VOCAB)], "all ids are suppressed"),
        ([0] * 65_537, "65537 suppressed ids, where 65536 are the most"),
    ],
)
def test_suppressed_ids_that_cannot_be_are_refused(ids, fault):
    pair = agreeing()
    with pytest.raises(RemoteProtocolError, match=fault):
        pair.bs.receive(frames.encode(start(suppressed_ids=ids)))
    resumed = msgspec.structs.replace(start(suppressed_ids=ids), base=3, ids=[])
    with pytest.raises(RemoteProtocolError, match=fault):
        pair.bs.receive(frames.encode(frames.Resume(resumed, 1, 3, bytes(16), False, 0)))
    pair.up(start(suppressed_ids=[]))


def test_a_base_station_that_fails_may_say_so_while_done_is_owed():
    pair = Pair().begun()
    pair.up(frames.Finish(1, 3))
    pair.down(frames.Refused("internal", "failed"))
    assert pair.bs.state is pair.device.state is State.CLOSED


def offered(version: int, **changes: object) -> frames.Welcome:
    return msgspec.structs.replace(WELCOME, version=version, **changes)


@pytest.mark.parametrize("version", [3, 4, 5])
def test_the_welcome_chooses_among_the_versions_that_were_offered(version):
    pair = Pair()
    pair.up(msgspec.structs.replace(HELLO, version=5, lowest=3, features=["trees"]))
    pair.down(offered(version, features=["trees"]))
    assert pair.device.welcome == pair.bs.welcome == offered(version, features=["trees"])


@pytest.mark.parametrize(
    ("welcome", "fault"),
    [
        (offered(2), "version 2, where 3 to 5"),
        (offered(6), "version 6, where 3 to 5"),
        (offered(5, features=["gossip"]), "features that were not offered"),
        (offered(5, features=["trees"] * 65), "features that were not offered"),
        (offered(5, tokenizer_hash="y"), "a tokenizer that is not this one"),
        (offered(5, context=2**31), "a context of"),
        (offered(5, frame_entries=0), "0 entries a draft"),
        (offered(5, frame_entries=9, flight_entries=8), "9 entries a draft, 8 in flight"),
        (offered(5, eos_ids=[VOCAB]), "EOS ids"),
        (offered(5, bos_ids=[1] * 17), "17 BOS ids"),
        (offered(5, suppressed_ids=[-1]), "suppressed ids"),
        (offered(5, sampling=Sampling(temperature=-1.0)), "suggested sampling"),
        (offered(5, unapplied=["x"] * 65), "more than 64 settings"),
        (offered(5, unapplied=["x" * 257]), "or 256 characters of one"),
    ],
)
def test_a_welcome_that_cannot_be_is_refused(welcome, fault):
    device = Session("device", VOCAB)
    device.send(msgspec.structs.replace(HELLO, version=5, lowest=3, features=["trees"]))
    with pytest.raises(RemoteProtocolError, match=fault):
        device.receive(frames.encode(welcome))
    assert device.state is State.GREETING and device.welcome is None


def test_a_welcome_with_keys_of_a_later_version_is_understood():
    """Additions must not break devices that know nothing of them."""
    device = Session("device", VOCAB)
    device.send(HELLO)
    fields = {"type": "welcome", **msgspec.to_builtins(WELCOME), "replicas": 3, "trees": {"k": 4}}
    assert device.receive(b"\x01" + msgspec.msgpack.encode(fields)) == WELCOME


@pytest.mark.parametrize("mode", ["draft", "stream"])
def test_progress_changes_nothing_and_is_not_numbered(mode):
    pair = Pair().begun(mode)
    before = copy.deepcopy(vars(pair.device.progress)), pair.device.state
    for _ in range(3):
        pair.down(frames.Progress(1, 64, 3000, 2))
    after = vars(pair.device.progress), pair.device.state
    assert (before[0] | {"frames": None}, before[1]) == (after[0] | {"frames": None}, after[1])
    assert pair.device.progress.frames.received == pair.bs.progress.frames.sent == 0


def test_progress_may_cross_finish():
    pair = Pair().begun("stream")
    late = frames.Progress(1, 0, 3, 0)
    data = pair.bs.send(late)
    pair.up(frames.Finish(1, 3))
    assert pair.device.receive(data) == late
    pair.down(frames.Progress(1, 0, 3, 0))
    pair.done(3)
    with pytest.raises(LocalProtocolError):
        pair.bs.send(late)  # nothing is due


@pytest.mark.parametrize(
    "wrong",
    [frames.Progress(2, 0, 1, 0), frames.Progress(1, 2, 1, 0), frames.Progress(1, 0, 1, -1)],
)
def test_progress_that_cannot_be_is_refused(wrong):
    pair = Pair().begun()
    with pytest.raises(RemoteProtocolError):
        pair.device.receive(frames.encode(wrong))


def greeted_with(frame_entries: int, flight_entries: int, **changes: object) -> Pair:
    """Drafting behind a Welcome with these maxima; a token of the default scheme has 56 entries."""
    pair = Pair()
    pair.up(HELLO)
    maxima = {"frame_entries": frame_entries, "flight_entries": flight_entries}
    pair.down(msgspec.structs.replace(WELCOME, **maxima))
    pair.up(start(**{"max_tokens": 300, **changes}))
    return pair


def test_a_draft_of_more_entries_than_it_may_carry_is_neither_sent_nor_taken():
    """Known from its head alone: not a byte of the payload is looked at."""
    pair = greeted_with(4 * 56, 10**6)
    wrong = frames.Draft(1, 3, 5, b"\xff" * 1000)
    with pytest.raises(LocalProtocolError, match="5 drafted tokens of up to 56 entries"):
        pair.device.send(wrong)
    with pytest.raises(RemoteProtocolError, match="where a draft may carry 224 entries"):
        pair.bs.receive(frames.encode(wrong))
    pair.up(frames.Draft(1, 3, 4, b""))


def test_drafts_of_more_entries_than_may_be_in_flight_are_neither_sent_nor_taken():
    pair = greeted_with(4 * 56, 9 * 56)
    for base in (3, 7):
        pair.up(frames.Draft(1, base, 4, b"", waits=False))
    wrong = frames.Draft(1, 11, 2, b"", waits=False)
    with pytest.raises(LocalProtocolError, match="10 drafted tokens of up to 56 entries"):
        pair.device.send(wrong)
    with pytest.raises(RemoteProtocolError, match="504 entries may be in flight"):
        pair.bs.receive(frames.encode(wrong))
    pair.down(frames.Verdict(1, 3, 4, None, False, 0, 0))
    pair.up(frames.Draft(1, 11, 2, b"", waits=False))


@pytest.mark.parametrize("scheme", [TopK(64, 1024), Split(), TopK(VOCAB, coding="fp16")], ids=str)
def test_the_longest_draft_of_usual_schemes_is_legal(scheme):
    pair = greeted_with(WELCOME.frame_entries, WELCOME.flight_entries, scheme=scheme)
    for i in range(4):
        pair.up(frames.Draft(1, 3 + 64 * i, MAX_DRAFT, b"", waits=False))


def test_at_temperature_0_entries_are_those_of_ids():
    """Whatever scheme was named: ids alone travel."""
    wide = TopK(1365, 1 << 20, tiers=2)
    pair = greeted_with(64 * 32, 10**6, sampling=Sampling(temperature=0.0), scheme=wide)
    pair.up(frames.Draft(1, 3, 64, b""))

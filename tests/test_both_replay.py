"""Both ends write: what is settled from proposals equals a replay of what came, and when."""

from __future__ import annotations

import pytest

from bs_runtime.engine.paths import Paths
from bs_runtime.serving.both import Both
from draftlink.coding.ids import IdModel
from draftlink.protocol import frames
from draftlink.protocol.session import Session
from draftlink.schemes.coupled import Coupled
from tests.test_both import SIZE, Case, write


def settled(monkeypatch, case: Case) -> tuple[int, int]:
    """Proposals that were accepted, and those that a replay of the events would accept.

    That is: tokens proposed before a step began, on the newest path, which the text has, too, with
    all before them, as many as the step was given.
    """
    history = [1, 2, 3, *write(case, "stream").tokens]
    arrived: dict[tuple[int, int], int] = {}  # by path and position
    proposed: list[tuple[frames.Propose, list[int]]] = []
    steps: list[tuple[int, dict[tuple[int, int], int], int]] = []
    take, writes, send = Both.take, Both._write, Session.send

    def taken(self, frame):
        ids = next(ids for one, ids in proposed if one == frame)
        begin = frame.base + frame.first
        arrived.update({(frame.path, begin + i): token for i, token in enumerate(ids)})
        take(self, frame)

    async def written(self, round):
        begin, before, feed = len(self._generation.history), dict(arrived), round.feed

        def fed(limit):  # the block is what had come by when the step began
            before.update(arrived)
            return feed(limit)

        round.feed = fed
        await writes(self, round)
        steps.append((begin, before, len(round.drafted)))

    def sent(self, frame):
        if isinstance(frame, frames.Propose):
            earlier = [token for one, ids in proposed if one.path == frame.path for token in ids]
            model = IdModel(SIZE)
            model.extend([*history[: frame.base], *earlier])
            drafted = Coupled().decode(frame.payload, frame.length, model)
            proposed.append((frame, [d.token for d in drafted]))
        return send(self, frame)

    with monkeypatch.context() as patch:
        patch.setattr(Both, "take", taken)
        patch.setattr(Both, "_write", written)
        patch.setattr(Session, "send", sent)
        result = write(case).result
    accepted = 0
    for begin, before, given in steps:
        newest = max((path for path, _ in before), default=0)
        ours = {at: token for (path, at), token in before.items() if path == newest}
        right = all(history[at] == token for at, token in ours.items() if at < begin)
        n = 0
        while right and n < given and ours.get(begin + n) == history[begin + n]:
            n += 1
        accepted += n
    return result.accepted, accepted


def test_what_is_accepted_is_what_was_there_in_time_and_right(monkeypatch):
    for seed, least in ((5, 10), (8, 5)):
        accepted, replayed = settled(monkeypatch, Case(seed))
        assert accepted == replayed > least


def ignored(self: Paths, most: int) -> list[int]:
    return []


def behind_another(self: Paths, most: int) -> list[int]:
    """As if the path began where the text is, whatever it was drafted behind."""
    return self._ids[:most] if self._stands() else []


def one_behind(self: Paths, most: int) -> list[int]:
    begin = len(self._history) - self._base + 1
    return self._ids[begin : begin + most] if self._stands() else []


@pytest.mark.parametrize("broken", [ignored, behind_another, one_behind])
def test_a_base_station_that_takes_proposals_for_others_settles_fewer(monkeypatch, broken):
    """The control. The text is the same all the same; what is settled is not."""
    right, _ = settled(monkeypatch, Case(5))
    text = write(Case(5)).tokens
    monkeypatch.setattr(Paths, "following", broken)
    assert write(Case(5)).tokens == text
    accepted, replayed = settled(monkeypatch, Case(5))
    assert accepted < right or accepted != replayed

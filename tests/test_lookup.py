"""The base station looks up what may come next: the text is the same, in fewer steps."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bs_runtime.engine.generation import Generation
from bs_runtime.engine.lookup import LookUp
from bs_runtime.verify import verify
from device_runtime.device import LinkError
from draftlink.protocol.session import Session
from tests.test_both import Case, Deep, cases, write


def mixed(count: int) -> list[Case]:
    """Drafts right and wrong, links with jitter and cuts; half of the texts repeat themselves."""
    return [replace(case, look_up=True, peaked=n % 2 == 0) for n, case in enumerate(cases(count))]


def alone(case: Case) -> list[int]:
    """What the target writes, a token a step."""
    return write(Case(case.seed, greedy=case.greedy, stop=case.stop, eos_ids=case.eos_ids,
                      peaked=case.peaked), "stream").tokens  # fmt: skip


@pytest.fixture
def given(monkeypatch):
    """What was looked up for steps, and how much of it was written."""
    found: list[int] = []
    proposed = LookUp.proposed

    def noted(self, history, held=(), alpha=1.0):
        ids = proposed(self, history, held, alpha)
        found.append(len(ids))
        return ids

    monkeypatch.setattr(LookUp, "proposed", noted)
    return found


@pytest.mark.parametrize("mode", ["stream", "both", "auto"])
@pytest.mark.parametrize("count", [16, pytest.param(300, marks=pytest.mark.full)], ids=["", "full"])
def test_the_text_is_the_same_with_it_and_without(mode, count, given):
    for case in mixed(count):
        assert write(case, mode).tokens == alone(case), case
    assert sum(given) > 20 * count


@pytest.mark.parametrize("kept", [True, False], ids=["parked", "forgotten"])
@pytest.mark.parametrize("mode", ["stream", "both"])
def test_the_text_survives_links_that_break_again_and_again(monkeypatch, mode, kept):
    if not kept:
        monkeypatch.setattr(Session, "adopt", lambda *_: False)
    reconnects = 0
    for seed in range(6):
        cuts = tuple((at / 7, at / 7 + 0.01) for at in range(1, 20))
        case = Case(seed, cuts=cuts, look_up=True, peaked=True)
        found = write(case, mode)
        assert found.tokens == alone(case)
        reconnects += found.result.reconnects
    assert reconnects > 6


def test_a_text_that_repeats_itself_takes_fewer_steps():
    for mode in ("stream", "both"):
        near = Case(3, "adversarial", peaked=True, greedy=True, tokens=200)
        without, with_ = write(near, mode).result, write(replace(near, look_up=True), mode).result
        assert with_.tokens == without.tokens
        assert with_.forwards < 0.4 * without.forwards


def _differs() -> bool:
    """Whether a text is another with it, or something is wrong with what is kept."""
    try:
        found = [write(case, mode).tokens == alone(case)
                 for mode in ("stream", "both") for case in mixed(6)]  # fmt: skip
    except (AssertionError, LinkError):
        return True
    return not all(found)


def test_control_what_is_not_checked_shows(monkeypatch):
    found = verify.accepted_positions

    def trusting(p, jobs, begins, picked):
        return found(p, jobs, begins, picked) | True

    monkeypatch.setattr(verify, "accepted_positions", trusting)
    assert _differs()


def test_control_noise_by_row_of_the_step_shows(monkeypatch):
    """Not by position: it is the row that another number of proposals moves."""
    job = Generation.job

    def by_row(self, drafted, purpose):
        real = job(self, drafted, purpose)
        return replace(real, key=bytes([len(drafted)]) + real.key[1:])

    monkeypatch.setattr(Generation, "job", by_row)
    assert _differs()


def test_control_what_is_left_in_the_cache_shows(monkeypatch):
    rollback = Deep.rollback

    def off_by_one(self, length):
        rollback(self, min(length + 1, len(self.cache)) if self.rows else length)

    monkeypatch.setattr(Deep, "rollback", off_by_one)
    assert _differs()


def test_control_nothing_differs_else():
    assert not _differs()

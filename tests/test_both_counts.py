"""Both ends write: what the result and the base station's metrics say of who did what."""

from __future__ import annotations

import asyncio
import json

import pytest
from prometheus_client.parser import text_string_to_metric_families

from bs_runtime.serving.both import Both
from bs_runtime.serving.conversations import Told
from device_runtime.device import Coupled
from device_runtime.result import alpha
from draftlink.link.ledger import total
from draftlink.protocol import frames
from draftlink.protocol.session import Session
from tests.bs_runtime.test_app import PROMPT, TABLE, get, write
from tests.fake_models import fake_device
from tests.fakes import FakeTarget, served
from tests.test_both import Case
from tests.test_both import write as play

ASKED = {"mode": "both", "scheme": Coupled(), "gamma": 3}


def test_the_result_counts_steps_rows_and_who_wrote_each_token(monkeypatch):
    fed: list[int] = []
    writes = Both._write

    async def written(self, round):
        before = len(self._generation.history)
        await writes(self, round)
        room = self._generation.start.begins + self._generation.start.max_tokens - before
        fed.append(min(len(round.drafted), room) + 1)

    monkeypatch.setattr(Both, "_write", written)
    for seed in (1, 2, 3):
        fed.clear()
        result = play(Case(seed)).result
        assert (result.forwards, result.rows) == (len(fed), sum(fed))
        assert result.kinds.count("draft") == result.accepted > 0
        assert result.draft_share == result.accepted / len(result.tokens)
        assert len(result.kinds) == len(result.times_s) == len(result.tokens)
        assert result.times_s == sorted(result.times_s) and result.times_s[0] == result.ttft_s
        assert result.overtaken >= 0 <= result.discarded
        drafts = round(100 * result.draft_share)
        assert result.summary.startswith(f"base station wrote {100 - drafts}%, drafts {drafts}%")


def test_alpha_is_of_all_proposals_behind_what_is_right_in_time_or_not():
    """A slow link and device: nearly all that is right comes too late, and counts all the same."""
    right = play(Case(3, "right", rtt_s=0.3, draft_s=0.025)).result
    assert right.alpha == 1.0 and right.overtaken > right.accepted
    wrong = play(Case(5, "adversarial", rtt_s=0.3)).result
    assert wrong.alpha == 0.0 and wrong.draft_share == 0.0
    assert 0.0 < alpha([right, wrong]) < 1.0
    assert alpha([]) == 0.0


def test_what_the_text_lacks_behind_a_stop_is_counted_as_nobodys():
    for stop in range(5, 40, 5):
        result = play(Case(2, "right", rtt_s=0.001, draft_s=0.001, stop=stop)).result
        assert len(result.kinds) == len(result.tokens) == stop
        assert result.kinds.count("draft") == result.accepted
        assert sum(result.accept_histogram) == result.accepted


def test_what_is_told_again_over_a_new_connection_is_no_step():
    cut = Case(2, cuts=((0.3, 1.2),), rtt_s=0.05)
    result = play(cut).result
    assert result.reconnects == 1
    told = total(result.ledger, "down", "Written").frames
    assert result.forwards < told <= len(result.tokens)


@pytest.mark.parametrize("forgets", [False, True])
def test_what_is_told_again_counts_as_who_wrote_it(monkeypatch, forgets):
    """What the base station wrote and what reached the device: proposals all, but for the control.

    It takes all that it tells again for its own.
    """
    sent: list[list[int]] = []
    add = Told.add

    def noted(self, outcome, proposed):
        add(self, outcome, proposed)
        before = len(sent[-1])
        sent[-1] += self.proposed[before:]
        if forgets:
            self.proposed[before:] = bytes(len(self.proposed) - before)

    monkeypatch.setattr(Told, "add", noted)
    again = []
    for begin in range(20):
        sent.append([])
        case = Case(2, "right", cuts=((0.3 + 0.01 * begin, 0.2),), rtt_s=0.05)
        result = play(case).result
        kinds = [int(kind == "draft") for kind in result.kinds]
        again.append(kinds != sent[-1])
        assert result.accepted == sum(kinds) == sum(result.accept_histogram)
    assert any(again) == forgets


def test_the_result_says_where_the_device_follows():
    """Half a second away the text is there first; next door it is not, and nothing is said."""
    far = play(Case(3, rtt_s=0.5, draft_s=0.02)).result
    near = play(Case(3, rtt_s=0.001, draft_s=0.001)).result
    assert 0 < far.followed <= len(far.tokens) and near.followed == 0
    assert "followed" in far.summary and "followed" not in near.summary


@pytest.mark.parametrize("mode", ["both", "stream", "stop-and-wait"])
def test_the_metrics_say_what_the_device_counted(mode):
    with served(FakeTarget(TABLE)) as url:
        result = asyncio.run(write(url, 60, **ASKED | {"mode": mode}))
        status, text, _ = get(url, "/metrics")
        shown = json.loads(get(url, "/stats")[1])
    values = {
        sample.name.removeprefix("draftlink:"): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert status == 200 and values["prompt_tokens_total"] == len(PROMPT)
    assert values["forwards_total"] == result.forwards
    assert values["spec_decode_num_accepted_tokens_total"] == result.accepted
    assert shown["draft_share"] == pytest.approx(result.draft_share)
    assert shown["forwards_per_token"] == pytest.approx(result.forwards / len(result.tokens))
    if mode == "both":
        checked = values["proposals_checked_total"] + values["looked_up_total"]
        assert checked == result.rows - result.forwards
        assert 0 <= values["looked_up_right_total"] <= values["looked_up_total"]
        assert values["proposals_right_total"] >= result.accepted > 0
        right, wrong = values["proposals_right_total"], values["proposals_wrong_total"]
        assert shown["alpha"] == pytest.approx(right / (right + wrong))
    else:
        assert values["proposals_checked_total"] == 0 and shown["alpha"] is None


def test_paths_rise_from_text_to_text(monkeypatch):
    """What is left of one text cannot be taken for another's."""
    paths: list[tuple[int, int]] = []
    send = Session.send

    def sent(self, frame):
        if isinstance(frame, frames.Propose):
            paths.append((frame.path, self.generation))
        return send(self, frame)

    monkeypatch.setattr(Session, "send", sent)

    async def main(url: str) -> None:
        async with fake_device(url, TABLE) as device:
            for _ in range(3):
                generation = device.generate(PROMPT, max_tokens=20, seed=3, **ASKED)
                async for _ in generation:
                    pass

    with served(FakeTarget(TABLE)) as url:
        asyncio.run(main(url))
    numbers = [path for path, _ in paths]
    assert numbers == sorted(numbers) and {generation for _, generation in paths} == {1, 2, 3}
    firsts = [min(p for p, g in paths if g == generation) for generation in (1, 2, 3)]
    assert firsts[0] < firsts[1] < firsts[2]

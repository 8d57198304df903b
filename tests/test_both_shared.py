"""Both ends on one machine, where each slows the other: known by the address, they take turns."""

from __future__ import annotations

import random
from dataclasses import replace
from statistics import fmean

import pytest

from bench.both.cells import Costs, begun, play
from bench.virtual.loop import run
from bench.virtual.record import Record
from device_runtime.drafting import controller
from device_runtime.drafting.levels import Work
from draftlink.link.shaping import make_link
from draftlink.protocol.frames import Start
from draftlink.protocol.session import Session

TOKENS = 120


def record(tokens: int = TOKENS, seed: int = 5) -> Record:
    rng = random.Random(seed)
    return Record(seed, 3, tuple(rng.random() < 0.75 for _ in range(tokens)), (0.7,) * tokens)


def rate(slowdown: float, *, shared: bool, text: Record | None = None) -> float:
    """Tokens/s of a cold text; a draft takes 20 ms and a step 50, alone."""
    costs = Costs(50.0, 20.0, 0.2, slowdown=slowdown, shared=shared)
    return play(costs, text or record(), "auto").tokens_per_s


def test_who_takes_turns_from_the_first_token_hardly_notices_the_other():
    """No step is begun beside a draft that is waited for, not even the first."""
    assert rate(2.5, shared=True) > 0.95 * rate(1.0, shared=True)
    # The control: who has to find out has paid for it by then.
    assert rate(2.5, shared=False) < 0.9 * rate(1.0, shared=False)


@pytest.mark.parametrize("slowdown", [1.5, 2.5])
def test_who_has_to_find_out_takes_turns_to_compare(monkeypatch, slowdown):
    """Cold texts are nearly as fast as where it is known that both ends share a machine."""
    texts = [record(seed=seed) for seed in range(20, 28)]
    known = [rate(slowdown, shared=True, text=text) for text in texts]

    def found() -> float:
        each = zip(known, texts, strict=True)
        return fmean(rate(slowdown, shared=False, text=text) / best for best, text in each)

    tries = found()
    assert tries > 0.94
    # The control: a device that drafts on hardly ever has a forward of its own to compare.
    monkeypatch.setattr(Work, "lacks", property(lambda self: False))
    assert found() < tries - 0.015


def test_on_a_machine_of_its_own_it_costs_little_to_see_that_nothing_is_slowed(monkeypatch):
    tried = rate(1.0, shared=False)
    monkeypatch.setattr(Work, "lacks", property(lambda self: False))
    assert tried > 0.97 * rate(1.0, shared=False)


TURNS = {
    "it drafts, and is waited for": (Costs(50.0, 20.0, 0.2, slowdown=2.0, shared=True), True, True),
    "nothing is known of its draft": (
        Costs(20.0, 20.0, 0.2, slowdown=2.0, shared=True), True, False,
    ),
    "on another machine": (Costs(50.0, 20.0, 0.2), False, False),
}  # fmt: skip


@pytest.mark.parametrize(("costs", "first", "second"), TURNS.values(), ids=TURNS)
def test_it_says_so_only_where_it_will_propose(monkeypatch, costs, first, second):
    """Else the base station would wait for nothing at the beginning of each text."""
    said: list[bool] = []
    send = Session.send

    def sent(self, frame):
        if isinstance(frame, Start):
            said.append(frame.turns is True)
        return send(self, frame)

    monkeypatch.setattr(Session, "send", sent)

    async def main() -> None:
        text = record(40)
        async with costs.world([text]).device(make_link(costs.link, seed=1)) as device:
            for _ in range(2):
                generation = begun(device, text, "auto")
                async for _ in generation:
                    pass

    run(main())
    assert said == [first, second]


@pytest.mark.parametrize("near_s", [controller.NEAR_S, 1.0], ids=["", "control"])
def test_a_tunnel_at_this_machines_address_leads_elsewhere(monkeypatch, near_s):
    """To a machine with cores of its own: no turns are taken there. Control: they are."""
    monkeypatch.setattr(controller, "NEAR_S", near_s)
    tunnel = Costs(50.0, 10.0, 60.0, shared=True)
    through = play(tunnel, record(), "auto").tokens_per_s
    elsewhere = play(replace(tunnel, shared=False), record(), "auto").tokens_per_s
    assert (through > 0.9 * elsewhere) == (near_s < 1.0)

"""A round's block is bound when its step begins: what comes while it waits is in it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from bench.virtual.loop import VirtualLoop, run
from bs_runtime.engine.batching import LEAST_CAP, Batcher
from bs_runtime.engine.generation import Generation
from bs_runtime.engine.late import Late
from bs_runtime.engine.patience import Patience
from bs_runtime.engine.scheduler import Scheduler
from bs_runtime.model.kv import Feed
from bs_runtime.serving.both import Both
from bs_runtime.serving.connection import Connection
from bs_runtime.serving.conversations import Conversations
from bs_runtime.serving.tickets import Sealer
from bs_runtime.verify.job import Outcome
from draftlink.coding.ids import IdModel
from draftlink.distribution.sampling import Sampling
from draftlink.distribution.sparse import Drafted
from draftlink.protocol import frames
from draftlink.schemes import GREEDY
from draftlink.schemes.greedy import Greedy
from draftlink.schemes.topk import TopK
from tests.fake_models import HASH
from tests.fakes import FakeTarget

SIZE = 8
TABLE = np.where(np.roll(np.eye(SIZE), 1, axis=1) > 0, 30.0, -30.0)  # after i comes i + 1
STEP_S = 0.1


class Paced(FakeTarget):
    """Each step takes ``STEP_S`` of virtual time."""

    def forward(self, feeds: Sequence[Feed]) -> torch.Tensor:
        loop = asyncio.get_running_loop()  # what a worker does is done in the loop's own thread
        assert isinstance(loop, VirtualLoop)
        loop.spend(STEP_S)
        return super().forward(feeds)


def generation(target: FakeTarget, prompt: Sequence[int] = (0,)) -> Generation:
    start = frames.Start(1, 0, list(prompt), Sampling(temperature=0.0), GREEDY, "both", 99, [], 1)
    return Generation(target.open(), start, list(prompt), SIZE, 1 << 20, bytes(32))


def beside_another(proposed: list[int], *, late: bool) -> Outcome:
    """A round that waits for another's step; ids come meanwhile, and others once it has begun."""
    target = Paced(TABLE)

    async def main() -> Outcome:
        scheduler = Scheduler(target)
        first, second = generation(target), generation(target, [3])
        other = scheduler.run(first.next())
        await asyncio.sleep(STEP_S / 2)
        round = Late(second, lambda: proposed) if late else second.next(proposed)
        waiting = scheduler.run(round)
        await asyncio.sleep(STEP_S / 4)
        proposed.extend([4, 5, 6, 0])
        await other
        await asyncio.sleep(STEP_S / 2)
        proposed.extend([1, 2])
        outcome = await waiting
        assert second.history == [3, 4, *[5, 6, 7][: outcome.accepted]]
        assert second.slot.length == len(second.history) - 1
        return outcome

    return run(main())


def test_what_is_proposed_while_a_round_waits_is_in_its_block():
    assert beside_another([], late=True).accepted == 3
    assert beside_another([], late=False).accepted == 0  # the control: bound when it is queued


def test_a_long_block_is_counted_as_what_it_has_come_to():
    """Not as what it was when it was queued: the step would have more than its cap."""
    held: dict[str, int] = {"prompt": LEAST_CAP - 8, "late": 1}
    batcher: Batcher[str] = Batcher(held.__getitem__)
    for name, tokens in held.items():
        batcher.add(name, tokens, 0.0)
    held["late"] = 12
    assert sorted(batcher.take()) == [("late", 12), ("prompt", LEAST_CAP - 12)]


@pytest.mark.parametrize("reads", [True, False])
def test_proposals_are_read_while_a_round_waits(monkeypatch, reads):
    """They come over the wire in the middle of the others' step, behind which the round begins."""
    monkeypatch.setattr(
        Patience, "wait_s", lambda self, now, since, *_: max(0.0, since + STEP_S / 4 - now)
    )
    if not reads:

        async def deaf(self):
            pass

        monkeypatch.setattr(Both, "_read", deaf)
    target = Paced(TABLE)
    target.tokenizer_hash = HASH
    ids = IdModel(SIZE)
    ids.extend([3, 4])
    payload = Greedy().encode([Drafted(token) for token in (5, 6, 7)], ids)[0]

    async def main() -> int:
        up: asyncio.Queue[bytes | None] = asyncio.Queue()
        down: asyncio.Queue[bytes] = asyncio.Queue()
        scheduler = Scheduler(target)
        memory = Conversations(target.open, scheduler.close, Sealer(bytes(32)))
        connection = Connection(target, scheduler, memory, up.get, down.put)
        serving = asyncio.create_task(connection.serve())
        other = generation(target)

        async def stream() -> None:
            while True:
                await scheduler.run(other.next())

        streaming = asyncio.create_task(stream())
        hello = frames.Hello(frames.VERSION, HASH, SIZE, ["topk"], "test", features=[frames.BOTH])
        start = frames.Start(1, 0, [3], Sampling(temperature=0.0), TopK(), "both", 9, [], 7)
        up.put_nowait(frames.encode(hello))
        assert isinstance(frames.decode(await down.get()), frames.Welcome)
        up.put_nowait(frames.encode(start))
        written = frames.decode(await down.get())
        assert isinstance(written, frames.Written) and written.ids == (4,)
        # The others' step has begun, and this round will not be in it.
        await asyncio.sleep(STEP_S / 2)
        up.put_nowait(frames.encode(frames.Propose(1, 2, 2, 0, 3, payload)))
        written = frames.decode(await down.get())
        assert isinstance(written, frames.Written)
        streaming.cancel()
        up.put_nowait(None)
        await serving
        return written.accepted

    assert run(main()) == 3 * reads

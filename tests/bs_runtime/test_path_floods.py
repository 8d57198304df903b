"""What a device can make a base station decode by proposals, whose frames cost it nothing."""

from __future__ import annotations

import asyncio
import time

import pytest

from bench.virtual.loop import run
from bs_runtime.engine.decoding import Decoder
from bs_runtime.engine.lookup import Nothing
from bs_runtime.engine.paths import Paths
from bs_runtime.engine.patience import Patience
from bs_runtime.engine.scheduler import Scheduler
from bs_runtime.operations.limits import Limits, Tenant
from bs_runtime.serving.account import Account
from bs_runtime.serving.both import DECODES
from bs_runtime.serving.connection import Connection
from bs_runtime.serving.conversations import Conversations
from bs_runtime.serving.tickets import Sealer
from draftlink.coding.ids import IdModel
from draftlink.coding.slices import whole
from draftlink.distribution.sampling import Sampling
from draftlink.distribution.sparse import Drafted
from draftlink.protocol import frames
from draftlink.schemes.base import MAX_DRAFT
from draftlink.schemes.greedy import Greedy
from draftlink.schemes.topk import TopK
from tests.bs_runtime.tiny import VOCAB
from tests.fake_models import HASH, random_logits
from tests.fakes import FakeTarget
from tests.watched import Watched

PROMPT = [3, 1, 4]
TOKENS = 400
TABLE = random_logits(3, VOCAB, 3.0)


def block(context: list[int], ids: list[int]) -> bytes:
    model = IdModel(VOCAB)
    model.extend(context)
    return Greedy().encode([Drafted(token) for token in ids], model)[0]


def flooded(count: int, tenant: Tenant | None = None) -> int:
    """Frames that were written by when ``count`` paths had been taken, all of them wrong."""
    target = FakeTarget(TABLE)
    target.tokenizer_hash = HASH
    wrong = block(PROMPT, [VOCAB - 1] * MAX_DRAFT)

    async def main() -> int:
        up: asyncio.Queue[bytes | None] = asyncio.Queue()
        down: asyncio.Queue[bytes] = asyncio.Queue()
        scheduler = Scheduler(target)
        memory = Conversations(target.open, scheduler.close, Sealer(bytes(32)))
        account = None if tenant is None else Account(tenant)
        connection = Connection(target, scheduler, memory, up.get, down.put, account, Nothing)
        serving = asyncio.create_task(connection.serve())
        features = [frames.BOTH]
        up.put_nowait(
            frames.encode(
                frames.Hello(frames.VERSION, HASH, VOCAB, ["topk"], "test", features=features)
            )
        )
        assert isinstance(frames.decode(await down.get()), frames.Welcome)
        up.put_nowait(
            frames.encode(
                frames.Start(1, 0, PROMPT, Sampling(temperature=0.0), TopK(), "both", TOKENS, [], 7)
            )
        )
        begin = len(PROMPT)
        for path in range(1, count + 1):
            one = frames.Propose(path, begin, begin, 0, MAX_DRAFT, wrong)
            up.put_nowait(frames.encode(one))
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.05)
        assert up.empty()
        found = [frames.decode(down.get_nowait()) for _ in range(down.qsize())]
        assert all(isinstance(one, frames.Written) for one in found), found
        up.put_nowait(None)
        await serving
        return len(found)

    return run(main())


@pytest.fixture
def decoded(monkeypatch):
    """Tokens that are decoded."""
    found: list[int] = []
    decoding = Decoder.decoding

    def counts(self, scheme, drafts, history, beside=()):
        found.extend(draft.length for draft in drafts)
        return decoding(self, scheme, drafts, history, beside)

    monkeypatch.setattr(Decoder, "decoding", counts)
    return found


def test_between_two_steps_not_much_more_is_decoded_than_one_may_take(monkeypatch, decoded):
    """Though it waits for proposals, and new paths come and come."""
    begun: list[float] = []

    def waits(self, now, since, held, left, least=0.0, behind=0):
        begun[:] = begun or [now]
        return max(0.0, begun[0] + 0.5 - now)

    monkeypatch.setattr(Patience, "wait_s", waits)
    flooded(300)
    assert sum(decoded) <= DECODES
    # The control: as many as come.
    decoded.clear()
    begun.clear()
    monkeypatch.setattr("bs_runtime.serving.both.DECODES", 1 << 30)
    flooded(300)
    assert sum(decoded) > 100 * DECODES


def test_a_token_rate_delays_steps_and_never_the_reader(monkeypatch):
    """Charged is what a step is fed, its rows; proposals are taken as they come."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    slow = Tenant("slow", Limits(tokens_per_s=2.0))
    assert flooded(100) == TOKENS
    assert 0 < flooded(100, slow) < 10


def test_a_context_is_not_copied(decoded):
    """What a proposal costs does not grow with the text that its path begins behind."""
    history = Watched([7] * 50_000)
    paths = Paths(Greedy(), VOCAB, history)
    model = IdModel(VOCAB)
    model.extend(history)
    begin = len(history)
    for path in range(1, 20):
        payload = Greedy().encode([Drafted(9)], model)[0]
        whole(paths.adding(frames.Propose(path, begin, begin, 0, 1, payload)))
        assert paths.following(9) == [9]
        if path == 1:
            history.read = 0  # it has come to know the text
    assert history.read < 100

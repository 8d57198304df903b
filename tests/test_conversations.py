"""Several conversations on one device: each as if it were alone, and drafted for in turns."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from bench.virtual.loop import run
from bench.virtual.world import World
from device_runtime.device import Coupled, Device, Sampling, Split, TopK
from device_runtime.drafting.drafter import CHUNK
from device_runtime.worker import Job, Worker
from draftlink.link.pacing import pace
from draftlink.link.shaping import LinkProfile, make_link
from export.bundle import export_bundle
from tests.conftest import save_random
from tests.fake_models import HASH, FakeModel, letters, random_logits
from tests.fakes import FakeTarget, served
from tests.fragile import connector

SIZE = 20
TABLE = random_logits(7, SIZE, 1.5)
DRAFT = TABLE + np.random.default_rng(8).normal(0.0, 0.7, TABLE.shape)
SCHEMES = [TopK(8, 64), Split(8, 64), Coupled()]


def several(url: str, make=lambda: FakeModel(DRAFT, rows=False)) -> Device:
    model = make()
    return Device.from_parts(
        model, letters(SIZE), url, tokenizer_hash=HASH, vocab_size=SIZE, context=model.context,
        eos_ids=(), another=make,
    )  # fmt: skip


def plan(number: int, texts: int) -> list[dict]:
    """The texts of one conversation: prompts that go on or begin anew, in every scheme and mode."""
    rng = random.Random(number)
    made = []
    for _ in range(texts):
        options = {
            "prompt": [rng.randrange(SIZE) for _ in range(rng.choice((1, 3, 3 * CHUNK)))],
            "append": rng.random() < 0.5,
            "max_tokens": rng.randint(5, 40),
            "scheme": rng.choice(SCHEMES),
            # In these modes a seed fixes the text, whatever time passes.
            "mode": rng.choice(("stop-and-wait", "run-ahead", "stream")),
            "gamma": rng.randint(1, 6),
            "seed": rng.randrange(1000),
            "sampling": Sampling(rng.choice((0.0, 1.0))),
        }
        shared = options["scheme"].shares_seed or options["sampling"].greedy
        if shared and rng.random() < 0.5:
            options["mode"] = "both"
        stop = rng.randint(1, 20) if rng.random() < 0.25 else None
        made.append({"options": options, "stop": stop})
    return made


async def write(conversation, texts: list[dict]) -> list[list[int]]:
    """Each text, some of them cancelled behind so many tokens."""
    found = []
    for text in texts:
        options = dict(text["options"])
        generation = conversation.generate(options.pop("prompt"), **options)
        async for _ in generation:
            if len(generation.tokens) == text["stop"]:
                generation.cancel()
        found.append(generation.tokens)
        history = conversation.history
        assert history[len(history) - len(generation.tokens) :] == generation.tokens
        cache = conversation.model.cache
        assert cache == history[: len(cache)]
    return found


@pytest.mark.parametrize(
    "per", [8, pytest.param(50, marks=pytest.mark.full)], ids=["32 texts", "200 texts"]
)
def test_four_at_once_write_what_each_would_alone(per):
    cuts = random.Random(1)
    lost = []

    def breaks(direction: str, frame: object, rejection: bool) -> bool:
        lost.append(cuts.random() < 0.01)
        return lost[-1]

    async def alone(url: str) -> list[list[list[int]]]:
        found = []
        for number in range(4):
            async with several(url) as device:
                found.append(await write(device._own, plan(number, per)))
        return found

    async def together(url: str) -> list[list[list[int]]]:
        async with several(url) as device:
            device._connect = connector(breaks)
            conversations = [device.conversation() for _ in range(4)]
            for conversation in conversations:
                await conversation.open()
            tasks = [write(one, plan(number, per)) for number, one in enumerate(conversations)]
            return list(await asyncio.gather(*tasks))

    with served(FakeTarget(TABLE)) as url:
        expected = asyncio.run(alone(url))
        found = asyncio.run(together(url))
    assert sum(lost) >= per // 4
    assert found == expected
    # The control: other conversations write something else.
    assert len({str(texts) for texts in expected}) == 4


# --- Connections ---

GREETED = LinkProfile(5e6, 5e6, 0.1)  # so slow that a greeting shows


def one_after_another(texts: int, between=None) -> tuple[int, list[list[int]], list[float]]:
    """Connections made, and texts and times to the first token of conversations that are opened
    and closed one after another; ``between`` is told the device after each."""

    async def main():
        loop = asyncio.get_running_loop()
        target = FakeTarget(TABLE)
        model = FakeModel(DRAFT, rows=False)
        world = World(model, target, letters(SIZE), 2048, 0.01, 0.03)
        connections, found, first_s = 0, [], []
        async with world.device(make_link(GREETED, seed=1)) as device:
            connect = device._connect

            async def counted(url: str):
                nonlocal connections
                connections += 1
                return await connect(url)

            device._connect, device._another = counted, lambda: FakeModel(DRAFT, rows=False)
            for number in range(texts):
                asked_s = loop.time()
                async with device.conversation() as one:
                    generation = one.generate(
                        [1, 2, 3, number % 3], max_tokens=20, seed=number, mode="stop-and-wait",
                        gamma=3, scheme=SCHEMES[number % 3],
                    )  # fmt: skip
                    async for _ in generation:
                        if len(generation.tokens) == 1:
                            first_s.append(loop.time() - asked_s)
                    found.append(generation.tokens)
                    assert generation.result.target_cached_tokens == 0
                    cached = target.slots[-1].cache
                    assert cached == one.history[: len(cached)]
                if between is not None:
                    await between(device)
        return connections, found, first_s

    return run(main())


def test_a_conversation_takes_over_the_connection_of_one_that_has_ended():
    connections, texts, first_s = one_after_another(9)
    assert connections == 1

    # Control: where none is kept, each is greeted, and its first token comes that much later.
    async def close(device) -> None:
        await device.pool.close()

    every, same, later_s = one_after_another(9, close)
    assert every == 9 and same == texts
    assert all(late - soon > 0.09 for soon, late in zip(first_s[1:], later_s[1:], strict=True))


def test_an_idle_connection_is_closed_after_a_while():
    async def wait(device) -> None:
        assert len(device.pool) == 1
        await asyncio.sleep(61)  # of virtual time
        assert len(device.pool) == 0

    assert one_after_another(3, wait)[0] == 3


def test_a_conversation_that_is_closed_in_mid_text_leaves_no_connection():
    async def main(url: str) -> None:
        async with several(url) as device:
            one = await device.conversation().open()
            generation = one.generate([1, 2, 3], max_tokens=40)
            async for _ in generation:
                break
            await one.close()
            assert len(device.pool) == 0
            others = [await device.conversation().open() for _ in range(6)]
            for other in others:
                await other.close()
            assert len(device.pool) == 4  # and no more
            again = await one.open()  # what it had written is sent again
            later = again.generate([4], append=True, max_tokens=5, mode="stream")
            async for _ in later:
                pass
            assert later.result.target_cached_tokens == 0
            assert later.tokens == one.history[-5:]

    with served(FakeTarget(TABLE)) as url:
        asyncio.run(main(url))


# --- Turns ---

DRAFT_S = 0.01


def in_turns(**options) -> tuple[list[int], list]:
    """Draft forwards of each of four conversations when the first one ends; and their results."""

    async def main():
        loop = asyncio.get_running_loop()
        world = World(
            FakeModel(DRAFT, rows=False), FakeTarget(TABLE), letters(SIZE), 2048, 1.0, 1e-4
        )
        async with world.device(make_link(LinkProfile(1e9, 1e9, 1e-4), seed=1)) as device:

            def another() -> FakeModel:
                model = FakeModel(DRAFT, rows=False)
                model.forward = pace(model.forward, DRAFT_S, loop.time, loop.spend)
                return model

            device._another = another
            conversations = [device.conversation() for _ in range(4)]
            counts = []

            async def write(number: int):
                conversation = await conversations[number].open()
                generation = conversation.generate(
                    [number + 1], max_tokens=150, seed=number, **options
                )
                async for _ in generation:
                    pass
                if not counts:
                    counts.extend(one.model.forwards for one in conversations)
                return generation

            written = await asyncio.gather(*(write(number) for number in range(4)))
            return counts, written

    return run(main())


@pytest.mark.parametrize("mode", ["stop-and-wait", "run-ahead"])
def test_forwards_are_shared_fairly_and_the_queue_is_not_the_drafts_cost(mode):
    counts, written = in_turns(mode=mode, gamma=4, scheme=TopK(8, 64))
    assert max(counts) / min(counts) <= 1.5, counts
    for generation in written:
        result, draft = generation.result, generation.estimates.draft
        # Its forwards take what they take alone; three of four turns were the others'.
        assert draft.typical == pytest.approx(DRAFT_S, rel=1e-6)
        assert result.draft_queue_s > 1.5 * result.draft_s


def test_where_others_turns_count_the_draft_seems_slow(monkeypatch):
    """The control of the one above: the whole time until a job's result is there."""
    real = Job.finish

    def finish(job):
        job.waited_s = 0.0
        real(job)

    monkeypatch.setattr(Job, "finish", finish)
    _, written = in_turns(mode="stop-and-wait", gamma=4, scheme=TopK(8, 64))
    assert min(one.estimates.draft.typical for one in written) > 2 * DRAFT_S


def test_nobody_waits_for_anothers_whole_prompt():
    """A prompt is fed in parts, and others have their turns between them."""

    async def main() -> None:
        worker = Worker(ThreadPoolExecutor(1))
        may_go, begun = threading.Semaphore(0), threading.Event()
        parts = 0

        def prompt():
            nonlocal parts
            for _ in range(10):
                begun.set()
                may_go.acquire()
                parts += 1
                yield
            return "fed"

        long = worker.run(prompt)
        await asyncio.to_thread(begun.wait)
        short = worker.run(lambda: parts)
        may_go.release()
        assert await short == 1 and not long.done()
        second = worker.run(lambda: parts)
        may_go.release(10)
        assert 1 < await second < 10
        assert await long == "fed"
        worker.executor.shutdown()

    asyncio.run(main())


def test_a_job_that_fails_is_its_own_affair():
    async def main() -> None:
        worker = Worker(ThreadPoolExecutor(1))

        def fails():
            yield
            raise ValueError("no")

        jobs = [worker.run(fails), worker.run(lambda: 3), worker.run(fails)]
        assert await jobs[1] == 3
        for job in (jobs[0], jobs[2]):
            with pytest.raises(ValueError, match="no"):
                await job
        worker.executor.shutdown()
        with pytest.raises(RuntimeError):
            await worker.run(lambda: 3)

    asyncio.run(main())


def test_a_device_of_a_single_model_says_how_to_get_another():
    device = several("ws://127.0.0.1:9")
    device._another = None
    with pytest.raises(ValueError, match="from_parts"):
        device.conversation()


def test_weights_rest_only_while_no_conversation_writes():
    async def main(url: str) -> list[str]:
        log = []
        async with several(url) as device:
            device._rest = lambda: log.append("rested")
            async with device.conversation() as other:
                under_way = other.generate([1], max_tokens=50, mode="stop-and-wait")
                iterator = aiter(under_way)
                await anext(iterator)
                async for _ in device.generate([2], max_tokens=3):
                    pass
                log.append("one has ended")
                async for _ in iterator:
                    pass
                await device._resting
        return log

    with served(FakeTarget(TABLE)) as url:
        assert asyncio.run(main(url)) == ["one has ended", "rested"]


# --- Memory ---

MEASURE = """
import asyncio, sys
from pathlib import Path
from device_runtime.device import Device
from device_runtime.drafting.drafter import CHUNK

def resident():
    told = Path("/proc/self/smaps_rollup").read_text()
    return 1024 * int(told.split("Rss:")[1].split()[0])

device = Device(Path(sys.argv[1]), "ws://127.0.0.1:9", threads=1)

def fill(conversation):
    model = conversation.model
    conversation.history = [i % 7 for i in range(model.context)]
    for begin in range(0, model.context, CHUNK):
        model.forward(conversation.history[begin : begin + CHUNK])

fill(device.conversation())  # what is allocated once
before = resident()
conversations = [device.conversation() for _ in range(2)]
for one in conversations:
    fill(one)
print((resident() - before) / 2, one.kv_bytes)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux for its memory")
def test_a_conversation_takes_the_memory_of_its_cache(tmp_path, tokenizer):
    shape = {
        "num_hidden_layers": 4, "num_key_value_heads": 8, "num_attention_heads": 8, "head_dim": 64,
        "max_position_embeddings": 2048,
    }  # fmt: skip
    folder = save_random(tmp_path / "model", "llama", tokenizer, **shape)
    made = export_bundle(folder, tmp_path / "bundle", "fp32")
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(made.path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    taken, stated = map(float, done.stdout.split())
    assert stated == 2 * 4 * 8 * 64 * 2048 * 4
    assert taken == pytest.approx(stated, rel=0.05)

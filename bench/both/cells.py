"""One device, in cells: a target's step, a draft's forward and a round trip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from bench.virtual.loop import run
from bench.virtual.record import CONTEXT, VOCAB, Draft, Record, Target
from bench.virtual.world import World
from device_runtime.device import Coupled, Device, Result, Sampling
from device_runtime.drafting import leaves
from device_runtime.drafting.tree import ROW
from device_runtime.generation import Generation
from device_runtime.result import Mode
from draftlink.link.shaping import PROFILES, LinkProfile, make_link

STEPS_MS, DRAFTS_MS = (8.0, 20.0, 50.0, 100.0), (1.0, 4.0, 10.0, 20.0)
RTTS_MS = (0.5, 2.0, 15.0, 60.0, 150.0)
GAMMAS = (1, 2, 3, 4, 6, 8, 12, 16)
RATE = 1e9  # bit/s: what bytes cost is not the question here
# Of a draft's forward and draw, what the draw of a second arrival takes more: at 49,152 ids .37 ms
# for .35, where a forward takes 6.5 (SmolLM2-135M in int8, two threads).
DRAW = 0.003
FIXED: tuple[Mode, ...] = ("run-ahead", "stream")
OTHERS: tuple[Mode, ...] = (*FIXED, "auto")  # than stop-and-wait, which has lengths


def tokenizer() -> Tokenizer:
    """One whose token i is the character 256 + i."""
    made = Tokenizer(models.BPE({chr(256 + i): i for i in range(VOCAB)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return made


TOKENIZER = tokenizer()


@dataclass(frozen=True)
class Costs:
    """Milliseconds. ``slowdown``: of both ends while both are at work; ``shared``: and the device
    knows it, since the address is its own machine's. ``row_ms``: of a row beyond the first.
    ``tariff``: tokens that a second of the base station's model is worth. ``profile``: whose rates,
    stalls and round trip the link has, instead of a round trip alone. A further row of a draft
    forward takes ``tree.ROW`` of one.
    """

    step_ms: float
    draft_ms: float
    rtt_ms: float
    row_ms: float = 0.0
    slowdown: float = 1.0
    shared: bool = False
    tariff: float = 0.0
    profile: str = ""

    @property
    def link(self) -> LinkProfile:
        """The link."""
        if self.profile:
            return PROFILES[self.profile]
        return LinkProfile(RATE, RATE, self.rtt_ms / 1e3)

    def world(self, records: Sequence[Record], *, candidates: bool = False) -> World:
        """A world of these costs; its target writes the texts of records.

        ``candidates``: are drawn beside each drafted token, but in turns.
        """
        draft_s = self.draft_ms / 1e3 * (1.0 + DRAW * (candidates and not self.shared))
        url = "ws://127.0.0.1:1" if self.shared else "virtual"
        return World(
            Draft(records[0]), Target(records), TOKENIZER, CONTEXT, draft_s,
            self.step_ms / 1e3, row_s=self.row_ms / 1e3, slowdown=self.slowdown, url=url,
            tariff=self.tariff, draft_row=ROW,
        )  # fmt: skip


def begun(device: Device, record: Record, mode: Mode, **options: Any) -> Generation:
    """A record's text, written in a mode."""
    return device.generate(
        record.ids, max_tokens=len(record.right), eos_ids=(), mode=mode, scheme=Coupled(),
        sampling=Sampling(0.0), seed=0, **options,
    )  # fmt: skip


def draws(mode: Mode, branches: int = 1, **_: Any) -> bool:
    """Whether candidates are drawn in a mode."""
    return mode == "auto" and (leaves.MOST > 0 or branches > 1)


def play(costs: Costs, record: Record, mode: Mode, **options: Any) -> Result:
    """One text. Raises RuntimeError where it is not the record's."""
    world = costs.world([record], candidates=draws(mode, **options))
    world.draft.branches = options.get("branches", 1) > 1

    async def one() -> Result:
        async with world.device(make_link(costs.link, seed=record.number)) as device:
            generation = begun(device, record, mode, **options)
            async for _ in generation:
                pass
            return generation.result

    result = run(one())
    if result.tokens != [record.token(record.prompt + i) for i in range(len(record.right))]:
        raise RuntimeError(f"{mode} wrote another text at {costs}")
    return result


@dataclass(frozen=True)
class Cell:
    """Tokens/s of each mode; of both ends, counts for each token of the text."""

    costs: Costs
    tokens_per_s: dict[str, float]
    gamma: int  # stop-and-wait's best
    forwards: float
    drafted: float

    @property
    def of_best(self) -> float:
        """Both ends over the best of the fixed modes."""
        fixed = [rate for mode, rate in self.tokens_per_s.items() if mode != "auto"]
        return self.tokens_per_s["auto"] / max(fixed)

    @property
    def of_stream(self) -> float:
        """Both ends over the target alone."""
        return self.tokens_per_s["auto"] / self.tokens_per_s["stream"]


def measure(costs: Costs, records: Sequence[Record]) -> Cell:
    """One cell: each mode on each record."""
    waits = {
        gamma: [play(costs, one, "stop-and-wait", gamma=gamma) for one in records]
        for gamma in GAMMAS
    }
    found = {mode: [play(costs, one, mode) for one in records] for mode in OTHERS}
    gamma = max(waits, key=lambda gamma: rate(waits[gamma]))
    count = sum(len(one.right) for one in records)
    rates: dict[str, float] = {mode: rate(results) for mode, results in found.items()}
    return Cell(
        costs,
        {"stop-and-wait": rate(waits[gamma]), **rates},
        gamma,
        sum(r.rounds for r in found["auto"]) / count,
        sum(r.drafted for r in found["auto"]) / count,
    )


def rate(results: Sequence[Result]) -> float:
    """Tokens/s of all together, one after the other."""
    tokens = sum(len(r.tokens) for r in results)
    return tokens / sum(len(r.tokens) / r.tokens_per_s for r in results)

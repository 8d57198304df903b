"""``draftlink compare``: the schemes side by side, on the same prompts and seeds."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from bs_runtime.model.target import Target
from device_runtime.device import Coupled, Dense, Device, Result, Sampling, Split, TopK
from device_runtime.model.bundle import load_bundle
from device_runtime.model.draft_model import DraftModel
from device_runtime.result import DOWN, UP, Mode, alpha
from draftlink.cli import common, compare_view
from draftlink.cli.common import model_path
from draftlink.cli.compare_view import Row
from draftlink.cli.demo import full_row_bits
from draftlink.distribution import sampling, sparse
from draftlink.host import children
from draftlink.link.ledger import total
from draftlink.planning import theory
from draftlink.protocol.hot import MAX_BESIDE
from draftlink.schemes import AnyScheme, topk
from tinypair.loopback import base_station


@dataclass
class _Case:
    """A scheme as it is asked for."""

    name: str
    scheme: AnyScheme | None  # None: the target streams alone
    learn: bool = False
    mode: Mode = "stop-and-wait"
    look_up: bool = False  # at the base station: such cases have one of their own
    runs: list[tuple[list[int], Result]] = field(default_factory=list)

    @property
    def shares(self) -> bool:
        """Whether both ends draw by the same noise."""
        return isinstance(self.scheme, Coupled)


def cases(
    vocab_size: int, ks: Sequence[int], totals: Sequence[int], tiers: Sequence[int | None]
) -> list[_Case]:
    """What is compared: the published systems, the lattice over K, ℓ and tiers, split, coupled.

    Of ``tiers`` None stands for as many as are usual.
    """
    fits = [k for k in ks if k <= vocab_size]
    lattices = [topk.usual(k, t, n) for n in tiers for k in fits for t in totals]
    default = topk.usual(k=min(topk.K, vocab_size))
    lattices += [] if default in lattices else [default]
    return [
        _Case("stream (target alone)", None, mode="stream"),
        _Case("dense FP16", Dense()),
        _Case("topk FP16 K=320 (the paper's)", TopK(min(320, vocab_size), coding="fp16")),
        *(_Case(f"topk lattice K={s.k} l={s.total}{_tiers(s)}", s) for s in lattices),
        _Case("topk lattice top-p 0.95 K=64 l=256", TopK(min(64, vocab_size), 256, mass=0.95)),
        _Case(
            f"topk lattice K={default.k} l={default.total}{_tiers(default)}, learned T",
            default,
            learn=True,
        ),
        _Case("split, rows (DSSD)", Split(k=min(64, vocab_size), pairs=0)),
        _Case("split, pairs", Split(k=min(64, vocab_size))),
        _Case("coupled", Coupled()),
        _Case("coupled, learned T", Coupled(), learn=True),
        _Case("coupled, both ends write", Coupled(), mode="both"),
        _Case(
            "stream, look-up (the server speculates by itself)", None, mode="stream", look_up=True
        ),
        _Case("coupled, both ends write, look-up", Coupled(), mode="both", look_up=True),
    ]


def _tiers(scheme: TopK) -> str:
    return f" tiers={scheme.tiers}" if scheme.tiers > 1 else ""


def compare(
    out: Console,
    err: Console,
    *,
    target: str,
    bundle: Path,
    prompts: Sequence[str],
    temperature: float | None,
    source: str | None,
    max_tokens: int,
    repeats: int,
    gamma: int | None,
    ks: Sequence[int],
    totals: Sequence[int],
    tiers: Sequence[int | None],
    plot: Path | None,
) -> dict[str, Any]:
    """Run every case on every prompt, interleaved, and print the table.

    ``source`` and ``temperature``: see ``common.sampling``.
    """
    loaded = load_bundle(bundle)
    compared = cases(loaded.manifest.vocab_size, ks, totals, tiers)

    async def run(url: str, progress: Progress, *, look_up: bool) -> Sampling:
        mine = [case for case in compared if case.look_up is look_up]
        turns = list(itertools.product(range(repeats), prompts, mine))
        task = progress.add_task("comparing", total=len(turns))
        async with AsyncExitStack() as stack:
            device = await stack.enter_async_context(Device(loaded, url))
            stated = {"temperature": temperature}
            params: Sampling = common.sampling(device.client.welcome, source, stated, Sampling())
            if params.greedy:
                raise ValueError("the target suggests greedy decoding; state a --temperature")
            await _one(device, prompts[0], params, 16, mine[1], gamma, 0)  # starts cold
            # A device of its own for each that learns: what it learns is its session's.
            own = {
                case.name: await stack.enter_async_context(Device(loaded, url))
                for case in mine
                if case.learn
            }
            for seed, prompt, case in turns:
                user = own.get(case.name, device)
                case.runs.append(await _one(user, prompt, params, max_tokens, case, gamma, seed))
                progress.advance(task)
        return params

    params = _by_both(run, err, target)
    with err.status("measuring the bounds on the same positions"):
        rows = _rows(compared, target, DraftModel(loaded), params)
    out.print(compare_view.table(rows, params.temperature))
    if plot is not None:
        compare_view.plot(rows, plot, params.temperature)
    return {
        "temperature": params.temperature,
        "prompts": len(prompts),
        "max_tokens": max_tokens,
        "repeats": repeats,
        "rows": msgspec.to_builtins(rows),
    }


def _by_both(
    run: Callable[..., Coroutine[Any, Any, Sampling]], err: Console, target: str
) -> Sampling:
    """Run the cases of a base station without look-up, and then those of one with it.

    One after the other: two targets at once may be more than the memory holds.
    """
    for look_up, option in ((False, "--no-look-up"), (True, "--look-up")):
        with (
            base_station(err, target, option) as url,
            Progress(console=err, transient=True) as progress,
        ):
            params = children.run(run(url, progress, look_up=look_up))
    return params


async def _one(
    device: Device,
    prompt: str,
    params: Sampling,
    max_tokens: int,
    case: _Case,
    gamma: int | None,
    seed: int,
) -> tuple[list[int], Result]:
    """A generation: the prompt's ids, and the result."""
    generation = device.generate(
        prompt,
        sampling=params,
        max_tokens=max_tokens,
        scheme=case.scheme or Coupled(),
        mode=case.mode,
        gamma=gamma,
        seed=seed,
        learn_temperature=case.learn,
    )
    async for _ in generation:
        pass
    written = len(generation.result.tokens)
    return device.history[: len(device.history) - written], generation.result


@dataclass(frozen=True)
class _Foretold:
    """Means over the same positions, the streamed texts': acceptances, free of drawing's noise.

    ``bound``: Σ min(p, q); ``overlaps``: Σ min(p, q̂), by scheme; ``candidates``: of the first 1, 2,
    ... arrivals under a noise that is shared, how often the target's own is among them, at least.
    """

    bound: float
    overlaps: dict[str, float]
    candidates: tuple[float, ...]


def _foretold(
    compared: Sequence[_Case], target: str, draft: DraftModel, params: Sampling
) -> _Foretold:
    verifier = Target.load(model_path(target))
    slot = verifier.open()
    suppressed = np.unique(np.array(verifier.facts.suppressed_ids, dtype=np.int64))
    sampled = [
        c for c in compared if c.scheme is not None and c.scheme.rule == "sample" and not c.learn
    ]
    bounds: list[float] = []
    overlaps: dict[str, list[float]] = {case.name: [] for case in sampled}
    among: list[list[float]] = []
    for prompt, result in next(c for c in compared if c.scheme is None).runs:
        draft.rollback(0)
        slot.rollback(0)
        p_rows = slot.forward([*prompt, *result.tokens[:-1]]).numpy()[len(prompt) - 1 :]
        unfed = prompt
        for j, token in enumerate(result.tokens):
            past = [*prompt, *result.tokens[:j]]
            q, p = (
                sampling.distribution(sampling.without(row, suppressed), params, past)
                for row in (draft.forward(unfed)[: p_rows.shape[1]], p_rows[j])
            )
            q = np.pad(q, (0, len(p) - len(q)))  # ids that the draft lacks
            bounds.append(float(np.minimum(p, q).sum()))
            among.append(
                [theory.candidates_acceptance_bound(p, q, 1 + m) for m in range(1 + MAX_BESIDE)]
            )
            for case in sampled:
                assert case.scheme is not None
                rows = _chain(case.scheme, q)
                overlaps[case.name].append(sparse.expected_acceptance(p, rows))
            unfed = [token]
    means = {name: float(np.mean(each)) for name, each in overlaps.items()}
    return _Foretold(statistics.fmean(bounds), means, tuple(np.mean(among, axis=0).tolist()))


def _chain(scheme: AnyScheme, q: NDArray[np.float64]) -> Iterable[sparse.SparseRow]:
    """All that could be drawn from at a position."""
    if isinstance(scheme, TopK):
        return scheme.rows(q)
    row = scheme.propose(q, b"", 0).row
    assert row is not None
    return (row,)


def _rows(compared: Sequence[_Case], target: str, draft: DraftModel, params: Sampling) -> list[Row]:
    foretold = _foretold(compared, target, draft, params)
    rows = []
    for case in compared:
        results = [result for _, result in case.runs]
        up = [total(r.ledger, "up", *UP) for r in results]
        down = [total(r.ledger, "down", *DOWN) for r in results]
        accepted, drafted = sum(r.accepted for r in results), sum(r.drafted for r in results)
        tokens = sum(len(r.tokens) for r in results)
        per = accepted or tokens  # streaming: per token
        payload = sum(e.payload_bits for e in up) / drafted if drafted else 0.0
        rounds = sum(r.rounds for r in results)
        rows.append(
            Row(
                name=case.name,
                acceptance=alpha(results),
                expected=foretold.overlaps.get(case.name),
                bound=foretold.bound,
                tokens_per_round=tokens / rounds if rounds else 0.0,
                draft_share=accepted / tokens,
                forwards_per_token=sum(r.forwards for r in results) / tokens,
                drafted_per_token=drafted / tokens,
                payload_bits_per_drafted=payload,
                bits_up_per_accepted=8 * sum(e.packet_bytes for e in up) / per,
                bits_down_per_accepted=8 * sum(e.packet_bytes for e in down) / per,
                websocket_bits_up_per_accepted=8 * sum(e.websocket_bytes for e in up) / per,
                share_of_full_row=payload / full_row_bits(draft.vocab_size),
                tokens_per_s=statistics.median(r.tokens_per_s for r in results),
                draft_temperature=results[-1].draft_temperature * params.temperature,
                candidates=foretold.candidates if case.shares and not case.learn else (),
            )
        )
    return rows

"""``draftlink demo``: base station and device as two processes on loopback, the embedded pair."""

from __future__ import annotations

import asyncio
import secrets
import statistics
import time
from collections.abc import Callable
from typing import Any, Final

import msgspec
from rich.table import Table

import tinypair
from device_runtime.device import Coupled, Device, Result, Sampling
from device_runtime.result import alpha
from draftlink.cli.common import hold
from draftlink.cli.consoles import Console
from draftlink.cli.output import show
from draftlink.host import children
from draftlink.schemes import topk
from tinypair.loopback import base_station, draft_bundle

# What writes a text here, by name. Where the text depends on who proposes it, the device drafts and
# waits: both ends share this machine's cores, and who drafted on would slow the one who verifies.
COUPLED, TOPK, ALONE, GENERATE = "coupled", "topk", "target alone", "transformers generate"
SYSTEMS: Final[dict[str, dict[str, Any]]] = {
    COUPLED: {"scheme": Coupled(), "mode": "both"},
    TOPK: {"scheme": topk.usual(), "mode": "stop-and-wait"},
    ALONE: {"scheme": Coupled(), "mode": "stream"},
}
BENCH_PROMPTS = 10
BENCH_REPEATS = 3
BENCH_TEMPERATURE = 0.8
BENCH_TOKENS = 128


def full_row_bits(vocab_size: int) -> int:
    """Bits of the whole FP16 row that the baseline sends for every drafted token."""
    return 16 * vocab_size


async def one(
    device: Device, prompt: str, temperature: float, max_tokens: int, **options: Any
) -> Result:
    """A generation, unseen."""
    generation = device.generate(
        prompt, sampling=Sampling(temperature=temperature), max_tokens=max_tokens, **options
    )
    async for _ in generation:
        pass
    return generation.result


def demo(
    out: Console,
    err: Console,
    prompt: str,
    temperature: float,
    max_tokens: int,
    seed: int | None,
    gamma: int | None,
    pace_target: str | None = None,
    pace_draft: str | None = None,
) -> dict[str, Any]:
    """Write one text with ``coupled``, with ``topk`` and with the target alone; their numbers."""
    bundle = draft_bundle(err)

    async def run(url: str) -> tuple[dict[str, Result], int]:
        opened = Device(bundle, url)
        hold(opened.model, pace_draft)
        async with opened as device:
            for asked in SYSTEMS.values():  # the first forward of a process is slow
                await one(device, prompt, temperature, 8, seed=0, **asked)
            generation = device.generate(
                prompt,
                sampling=Sampling(temperature=temperature),
                max_tokens=max_tokens,
                seed=key,
                gamma=gamma,
                **SYSTEMS[COUPLED],
            )
            written = {COUPLED: await show(prompt, generation)}
            for name in (TOPK, ALONE):
                asked = {"gamma": gamma, **SYSTEMS[name]}
                written[name] = await one(
                    device, prompt, temperature, max_tokens, seed=key, **asked
                )
            return written, device.client.welcome.vocab_size

    key = secrets.randbits(32) if seed is None else seed  # ``coupled`` needs one
    pace = () if pace_target is None else ("--pace-target", pace_target)
    with base_station(err, "tinypair", *pace) as url:
        written, vocab_size = children.run(run(url))
    out.print(
        "\n[green]drafted and accepted[/]  [yellow]corrected[/]  [cyan]written by the target[/]\n"
    )
    names = {COUPLED: "coupled, both ends write", TOPK: "topk, the device drafts"}
    table = Table("", *(names.get(name, name) for name in written))
    for label, value in rows(vocab_size):
        table.add_row(label, *(value(result) for result in written.values()))
    out.print(table)
    out.say(f"{COUPLED}: {written[COUPLED].summary}")
    found = {name: msgspec.to_builtins(result) for name, result in written.items()}
    return {**found[COUPLED], TOPK: found[TOPK], "target_only": found[ALONE]}


def rows(vocab_size: int) -> list[tuple[str, Callable[[Result], str]]]:
    """What the table says of a text, line by line."""

    def bits(result: Result) -> str:
        per = result.accepted
        return f"{8 * result.uplink_bytes / per:.0f}" if per else ""

    def full(result: Result) -> str:
        if not result.accepted:
            return ""
        count = full_row_bits(vocab_size) * result.drafted
        times = count / (8 * result.uplink_bytes)
        return f"{count / result.accepted:.0f} ({times:.0f}x)"

    return [
        ("tokens/s (one text; --bench for more)", lambda r: f"{r.tokens_per_s:.0f}"),
        ("acceptance: alpha", lambda r: f"{r.alpha:.2f}" if r.drafted else ""),
        ("written by drafts", lambda r: f"{100 * r.draft_share:.0f}%"),
        ("forwards of the target a token", lambda r: f"{r.forwards / max(1, len(r.tokens)):.2f}"),
        ("bits up per accepted token, all counted", bits),
        ("  the same with full FP16 rows", full),
    ]


def bench(out: Console, err: Console, gamma: int | None) -> dict[str, Any]:
    """The listed prompts: all systems and transformers' generate, interleaved."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    prompts = tinypair.prompts(BENCH_PROMPTS)
    bundle = draft_bundle(err)
    model: Any = AutoModelForCausalLM.from_pretrained(
        tinypair.TARGET, dtype=torch.float32, trust_remote_code=False
    )
    model.generation_config.eos_token_id = None  # every system writes the same number of tokens
    tokenizer = AutoTokenizer.from_pretrained(tinypair.TARGET, trust_remote_code=False)

    def generate(prompt: str, max_tokens: int) -> float:
        ids = tokenizer(prompt, return_tensors="pt")
        begun = time.perf_counter()
        written = model.generate(
            **ids,
            do_sample=True,
            temperature=BENCH_TEMPERATURE,
            top_k=0,
            max_new_tokens=max_tokens,
            pad_token_id=0,
        )
        count = int(written.shape[1] - ids["input_ids"].shape[1])
        return count / (time.perf_counter() - begun)

    async def run(url: str) -> tuple[dict[str, list[Result]], list[float]]:
        written: dict[str, list[Result]] = {name: [] for name in SYSTEMS}
        plain: list[float] = []
        async with Device(bundle, url) as device:
            settings = (BENCH_TEMPERATURE, BENCH_TOKENS)
            asked = {name: {"gamma": gamma, "eos_ids": (), **how} for name, how in SYSTEMS.items()}
            for prompt in prompts[:2]:
                for how in asked.values():
                    await one(device, prompt, *settings, seed=0, **how)
                await asyncio.to_thread(generate, prompt, 16)
            for repeat in range(BENCH_REPEATS):
                for prompt in prompts:
                    for name, how in asked.items():
                        written[name].append(
                            await one(device, prompt, *settings, seed=repeat, **how)
                        )
                    plain.append(await asyncio.to_thread(generate, prompt, BENCH_TOKENS))
        return written, plain

    with base_station(err) as url:
        written, plain = children.run(run(url))
    summary = _summary(written, plain, tokenizer.vocab_size)
    out.print(_table(summary))
    return summary


def _summary(
    written: dict[str, list[Result]], plain: list[float], vocab_size: int
) -> dict[str, Any]:
    """The figures of the systems' runs; ``plain`` is tokens/s."""
    speed = {
        name: statistics.median(r.tokens_per_s for r in results)
        for name, results in written.items()
    }
    speed[GENERATE] = statistics.median(plain)
    best = max(speed[ALONE], speed[GENERATE])
    drafting = {name: _drafting(written[name], vocab_size) for name in (COUPLED, TOPK)}
    return {
        "tokens_per_s": speed,
        "speedup": {name: speed[name] / best for name in drafting},
        **drafting,
        "runs": {**written, "transformers_tokens_per_s": plain},
    }


def _drafting(results: list[Result], vocab_size: int) -> dict[str, float]:
    """What drafting came to, over all texts."""
    accepted = sum(r.accepted for r in results)
    proposed = sum(r.drafted for r in results)
    tokens = sum(len(r.tokens) for r in results)
    row = full_row_bits(vocab_size)
    payload = sum(r.uplink_payload_bits for r in results) / proposed
    counted = 8 * sum(r.uplink_bytes for r in results) / accepted
    # Full rows ride in the same frames: what is not payload stays.
    full = row * proposed / accepted + counted - payload * proposed / accepted
    return {
        "alpha": alpha(results),
        "acceptance_rate": accepted / proposed,
        "draft_share": accepted / tokens,
        "forwards_per_token": sum(r.forwards for r in results) / tokens,
        "drafted_per_token": proposed / tokens,
        "payload_bits_per_drafted_token": payload,
        "full_row_over_payload": row / payload,
        "bits_up_per_accepted_token": counted,
        "full_row_bits_up_per_accepted_token": full,
        "full_row_over_counted": full / counted,
    }


def _table(summary: dict[str, Any]) -> Table:
    runs = BENCH_PROMPTS * BENCH_REPEATS
    names = summary["tokens_per_s"]
    table = Table(f"embedded pair, loopback, temperature {BENCH_TEMPERATURE}", *names)

    def line(label: str, key: str, form: str) -> None:
        values = (summary.get(name, {}).get(key) for name in names)
        table.add_row(label, *("" if v is None else form.format(v) for v in values))

    table.add_row(f"tokens/s (median of {runs})", *(f"{rate:.0f}" for rate in names.values()))
    speedup = summary["speedup"]
    ratios = (f"{speedup[name]:.2f}x" if name in speedup else "" for name in names)
    table.add_row("/ the faster of the two without a draft", *ratios)
    line("acceptance: alpha", "alpha", "{:.3f}")
    line("written by drafts", "draft_share", "{:.0%}")
    line("forwards of the target a token", "forwards_per_token", "{:.2f}")
    line("drafted a token", "drafted_per_token", "{:.2f}")
    line("payload bits per drafted token", "payload_bits_per_drafted_token", "{:.0f}")
    line("  a full FP16 row", "full_row_over_payload", "{:.0f}x")
    line("bits up per accepted token, all counted", "bits_up_per_accepted_token", "{:.0f}")
    line("  the same with full rows", "full_row_over_counted", "{:.0f}x")
    return table

"""``draftlink demo``: base station and device as two processes on loopback, the embedded pair."""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.table import Table

import tinypair
from device_runtime.device import Device, Result, Sampling
from draftlink.cli.common import hold
from draftlink.cli.output import show
from draftlink.host import children
from tinypair.loopback import base_station, draft_bundle

# Both ends share this machine's cores here: who drafted on would slow the one who verifies.
# ``auto`` finds that out in some dozen tokens of a connection, which the demo need not show.
TOGETHER: Final = "stop-and-wait"
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
    """Write one text together, then the same length with the target alone; the numbers of both."""
    bundle = draft_bundle(err)

    async def run(url: str) -> tuple[Result, Result, int]:
        opened = Device(bundle, url)
        hold(opened.model, pace_draft)
        async with opened as device:
            for mode in (TOGETHER, "stream"):  # the first forward of a process is slow
                await one(device, prompt, temperature, 8, mode=mode)
            generation = device.generate(
                prompt,
                sampling=Sampling(temperature=temperature),
                max_tokens=max_tokens,
                seed=seed,
                mode=TOGETHER,
                gamma=gamma,
            )
            written = await show(prompt, generation)
            alone = await one(device, prompt, temperature, max_tokens, seed=seed, mode="stream")
            return written, alone, device.client.welcome.vocab_size

    pace = () if pace_target is None else ("--pace-target", pace_target)
    with base_station(err, "tinypair", *pace) as url:
        result, alone, vocab_size = children.run(run(url))
    out.print(
        "\n[green]drafted and accepted[/]  [yellow]corrected[/]  [cyan]written by the target[/]\n"
    )
    table = Table("", "together", "target alone")
    table.add_row(
        "tokens/s (one text; --bench for more)",
        f"{result.tokens_per_s:.0f}",
        f"{alone.tokens_per_s:.0f}",
    )
    table.add_row("acceptance: alpha", f"{result.alpha:.2f}", "")
    table.add_row("mean accepted length, tokens a round", f"{result.tokens_per_round:.2f}", "")
    if result.accepted:
        full = full_row_bits(vocab_size) * result.drafted / result.accepted
        bits = 8 * result.uplink_bytes / result.accepted
        table.add_row("bits up per accepted token, all counted", f"{bits:.0f}", "")
        table.add_row("  the same with full FP16 rows", f"{full:.0f} ({full / bits:.0f}x)", "")
    out.print(table)
    return {**msgspec.to_builtins(result), "target_only": msgspec.to_builtins(alone)}


def bench(out: Console, err: Console, gamma: int | None) -> dict[str, Any]:
    """The listed prompts: drafting, streaming and transformers' generate, interleaved."""
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

    async def run(url: str) -> tuple[list[Result], list[Result], list[float]]:
        drafted: list[Result] = []
        streamed: list[Result] = []
        plain: list[float] = []
        async with Device(bundle, url) as device:
            settings = (BENCH_TEMPERATURE, BENCH_TOKENS)
            drafting: dict[str, Any] = {"mode": TOGETHER, "gamma": gamma, "eos_ids": ()}
            streaming: dict[str, Any] = {"mode": "stream", "eos_ids": ()}
            for prompt in prompts[:2]:
                await one(device, prompt, *settings, **drafting)
                await one(device, prompt, *settings, **streaming)
                await asyncio.to_thread(generate, prompt, 16)
            for repeat in range(BENCH_REPEATS):
                for prompt in prompts:
                    drafted.append(await one(device, prompt, *settings, seed=repeat, **drafting))
                    streamed.append(await one(device, prompt, *settings, seed=repeat, **streaming))
                    plain.append(await asyncio.to_thread(generate, prompt, BENCH_TOKENS))
        return drafted, streamed, plain

    with base_station(err) as url:
        drafted, streamed, plain = children.run(run(url))
    summary = _summary(drafted, streamed, plain, tokenizer.vocab_size)
    out.print(_table(summary))
    return summary


def _summary(
    drafted: list[Result], streamed: list[Result], plain: list[float], vocab_size: int
) -> dict[str, Any]:
    """The figures of the three systems' runs; ``plain`` is tokens/s."""
    speed = {
        "together": statistics.median(r.tokens_per_s for r in drafted),
        "stream": statistics.median(r.tokens_per_s for r in streamed),
        "transformers generate": statistics.median(plain),
    }
    best = max(speed["stream"], speed["transformers generate"])
    accepted = sum(r.accepted for r in drafted)
    proposed = sum(r.drafted for r in drafted)
    row = full_row_bits(vocab_size)
    payload = sum(r.uplink_payload_bits for r in drafted) / proposed
    counted = 8 * sum(r.uplink_bytes for r in drafted) / accepted
    # Full rows ride in the same frames: what is not payload stays.
    overhead = counted - payload * proposed / accepted
    full = row * proposed / accepted + overhead
    judged = sum(r.drafted - r.discarded for r in drafted)
    return {
        "tokens_per_s": speed,
        "speedup": speed["together"] / best,
        "alpha": accepted / judged if judged else 0.0,
        "acceptance_rate": accepted / proposed,
        "tokens_per_round": sum(len(r.tokens) for r in drafted) / sum(r.rounds for r in drafted),
        "payload_bits_per_drafted_token": payload,
        "full_row_over_payload": row / payload,
        "bits_up_per_accepted_token": counted,
        "full_row_bits_up_per_accepted_token": full,
        "full_row_over_counted": full / counted,
        "runs": {"together": drafted, "stream": streamed, "transformers_tokens_per_s": plain},
    }


def _table(summary: dict[str, Any]) -> Table:
    table = Table("embedded pair, loopback, temperature 0.8", "")
    runs = BENCH_PROMPTS * BENCH_REPEATS
    for name, value in summary["tokens_per_s"].items():
        table.add_row(f"{name}, tokens/s (median of {runs})", f"{value:.0f}")
    payload, counted = (
        summary["payload_bits_per_drafted_token"],
        summary["bits_up_per_accepted_token"],
    )
    table.add_row("together / the faster of the others", f"{summary['speedup']:.2f}x")
    table.add_row("acceptance: alpha", f"{summary['alpha']:.3f}")
    table.add_row("mean accepted length, tokens a round", f"{summary['tokens_per_round']:.2f}")
    table.add_row(
        "payload bits per drafted token",
        f"{payload:.0f} (row: {summary['full_row_over_payload']:.0f}x)",
    )
    table.add_row(
        "bits up per accepted token, all counted",
        f"{counted:.0f} (rows: {summary['full_row_over_counted']:.0f}x)",
    )
    return table

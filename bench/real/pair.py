"""A pretrained model drafted for by itself: its float32 reference, and a bundle made of it.

    python -m bench.real [--model smollm2] [--bundle DIR] [--links loopback wifi lte]
        [--scheme topk|coupled] [--json FILE]

The base station has the reference in float32; every mode has a device of its own, in a process of
its own, so that what ``auto`` knows is what it has found out. Chat prompts go through the model's
template; each is gone on with for 128 tokens at temperature 1, past the model's own end, so that
all write the same number. Turns are interleaved: a prompt goes through all modes, and through
transformers' ``generate`` of the same float32 model, beginning with another one each time; links
one after the other, by the project's proxy. Medians over the prompts; ratios are to the faster of
``stream`` over the same link and ``generate``, which has no link. About 15 minutes on two cores,
which both ends share; ``--prompts 2 --tokens 32 --links loopback`` for a trial.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.real import forms, reference, texts
from bench.real.systems import device, generate
from bench.runtimes import turns
from bench.serving.links import over
from draftlink.host import children
from draftlink.schemes import AnyScheme, topk
from draftlink.schemes.coupled import Coupled
from tinypair.loopback import base_station

MODES = ("stream", "stop-and-wait", "run-ahead", "auto")
GENERATE = "generate"  # transformers' own
LOOPBACK = "loopback"
LINKS = (LOOPBACK, "wifi", "lte")
PROMPTS, TOKENS = 10, 128
WARM_UP = "Which month has the fewest days?"
WARM_TOKENS = 24
Run = dict[str, Any]  # a generation's result


def scheme_of(options: argparse.Namespace) -> AnyScheme:
    """The scheme that was asked for; of ``topk`` the product's own rows, where none are stated.

    Raises ValueError for what is not the scheme's.
    """
    stated = {"k": options.k, "total": options.lattice, "tiers": options.tiers}
    stated = {name: value for name, value in stated.items() if value is not None}
    if options.scheme == "coupled":
        if stated:
            raise ValueError("--k, --lattice and --tiers are of topk")
        return Coupled()
    return topk.usual(**stated)


def measure(options: argparse.Namespace, err: Console) -> dict[str, dict[str, list[Run]]]:
    """The runs of each system over each link."""
    folder = reference.folder(options.model)
    bundle = options.bundle
    if bundle is None:
        with err.status("exporting the draft's bundle"):
            bundle = forms.bundle(folder, forms.DRAFT, options.context)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    first = texts.prompt_ids(tokenizer, "chat", WARM_UP)
    listed = texts.PROMPTS["chat"][: options.prompts]
    prompts = [texts.prompt_ids(tokenizer, "chat", prompt) for prompt in listed]
    found: dict[str, dict[str, list[Run]]] = {}
    scheme = scheme_of(options)
    with base_station(err, str(folder)) as url:
        for link in options.links:
            named = () if link == LOOPBACK else (link,)
            with over(named, url, err) as address, ExitStack() as stack:
                modes = [name for name in options.systems if name != GENERATE]
                asks = {
                    mode: stack.enter_context(
                        turns.process(device, bundle, address, mode, scheme, stops=False)
                    )
                    for mode in modes
                }
                if link == options.links[0] and GENERATE in options.systems:
                    asks[GENERATE] = stack.enter_context(turns.process(generate, folder))
                for name, ask in asks.items():
                    with err.status(f"{link}: {name} warms up"):
                        ask((first, WARM_TOKENS, 0))
                found[link] = interleaved(asks, prompts, options.tokens, link, err)
    return found


def interleaved(
    asks: dict[str, turns.Ask], prompts: Sequence[list[int]], tokens: int, link: str, err: Console
) -> dict[str, list[Run]]:
    """A run of each system for each prompt; nobody is always the first, or behind the same one."""
    runs: dict[str, list[Run]] = {name: [] for name in asks}
    for number, prompt in enumerate(prompts):
        names = list(asks)
        first = number % len(names)
        for name in names[first:] + names[:first]:
            with err.status(f"{link}: {name}, prompt {number + 1} of {len(prompts)}"):
                runs[name].append(asks[name]((prompt, tokens, number + 1)))
    return runs


def summary(found: dict[str, dict[str, list[Run]]]) -> list[dict[str, Any]]:
    """A row a link and system: medians of tokens/s and TTFT, the ratio, acceptance and bits."""
    rates = {
        (link, name): statistics.median(run["tokens_per_s"] for run in runs)
        for link, systems in found.items()
        for name, runs in systems.items()
    }
    plain = max((rate for (_, name), rate in rates.items() if name == GENERATE), default=0.0)
    rows = []
    for (link, name), rate in rates.items():
        best = max(plain, rates.get((link, "stream"), 0.0))
        row: dict[str, Any] = {"link": link, "system": name, "tokens_per_s": rate,
                               "ratio": rate / best if best else None}  # fmt: skip
        runs = found[link][name]
        drafted = sum(run.get("drafted", 0) for run in runs)
        judged = drafted - sum(run.get("discarded", 0) for run in runs)
        accepted = sum(run.get("accepted", 0) for run in runs)
        if name != GENERATE:
            row["ttft_s"] = statistics.median(run["ttft_s"] for run in runs)
        if accepted:
            rounds = sum(run["rounds"] for run in runs)
            row |= {
                "alpha": (accepted + sum(run.get("overtaken", 0) for run in runs)) / judged,
                "acceptance_rate": accepted / drafted,
                "tokens_per_round": sum(len(run["tokens"]) for run in runs) / rounds,
                "payload_bits": sum(run["uplink_payload_bits"] for run in runs) / drafted,
                "bits_up": 8 * sum(run["uplink_bytes"] for run in runs) / accepted,
            }
        rows.append(row)
    return rows


def table(rows: Sequence[dict[str, Any]], title: str) -> Table:
    """The rows, as they are read."""
    shown = {
        "tokens_per_s": "{:.1f}",
        "ratio": "{:.2f}",
        "ttft_s": "{:.3f}",
        "alpha": "{:.3f}",
        "tokens_per_round": "{:.2f}",
        "payload_bits": "{:.0f}",
        "bits_up": "{:.0f}",
    }
    out = Table("link", "system", "tokens/s", "/ best of stream, generate", "TTFT s", "α",
                "tokens a round", "bits up a drafted token", "all bits up an accepted token",
                title=title)  # fmt: skip
    for row in rows:
        cells = [(form, row.get(key)) for key, form in shown.items()]
        told = ["" if value is None else form.format(value) for form, value in cells]
        out.add_row(row["link"], row["system"], *told)
    return out


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="smollm2", help="smollm2, gemma3, or its folder")
    parser.add_argument("--bundle", type=Path, help="the draft; exported if not given")
    parser.add_argument("--context", type=int, help="of a bundle that is exported")
    parser.add_argument("--links", nargs="+", default=LINKS, help="loopback, or a link profile")
    systems = (*MODES, GENERATE)
    parser.add_argument("--systems", nargs="+", default=systems, choices=systems)
    parser.add_argument("--scheme", default="topk", choices=("topk", "coupled"))
    parser.add_argument("--k", type=int, help="of topk")
    parser.add_argument("--lattice", type=int, help="of topk")
    parser.add_argument("--tiers", type=int, help="of topk")
    parser.add_argument("--prompts", type=int, default=PROMPTS)
    parser.add_argument("--tokens", type=int, default=TOKENS)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    err = Console(stderr=True)
    begun = time.perf_counter()
    with children.terminable():
        found = measure(options, err)
    rows = summary(found)
    title = (
        f"{options.model}, {scheme_of(options)}, {options.prompts} chat prompts x {options.tokens}"
        " tokens, medians"
    )
    console = Console(width=None if Console().is_terminal else 160)
    console.print(table(rows, title))
    console.print(f"{time.perf_counter() - begun:.0f} s")
    if options.json:
        options.json.write_text(json.dumps({"rows": rows, "runs": found}, indent=1) + "\n")

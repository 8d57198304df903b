"""Texts that copy: tokens a step of the target, with look-up at the base station and without.

    python -m bench.real.copying [--model smollm2] [--tokens N]

A pretrained chat model is asked to edit code and to repeat or sum up a page; its own int8 bundle
drafts for it. Both ends' own code in virtual time: forwards are counted, and nothing is timed. A
step's rows cost nothing here, and the rate is what the paces make of it (step 45 ms, draft 10 ms,
round trip 15 ms). All of a prompt's texts must be the same. ``stream`` is the base station alone.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from bench.real import forms, reference, texts
from bench.virtual import pair
from bench.virtual.loop import run
from bench.virtual.world import World
from bs_runtime.model.target import Target
from device_runtime.device import Coupled, Result, Sampling
from device_runtime.model.bundle import load_bundle
from device_runtime.model.draft_model import DraftModel
from device_runtime.result import Mode
from draftlink.link.shaping import LinkProfile, make_link

MODES: tuple[Mode, ...] = ("stream", "both")
STEP_S, DRAFT_S, LINK = 0.045, 0.010, LinkProfile(1e9, 1e9, 0.015)
TOKENS, CONTEXT = 160, 2048
CODE = """def total(prices, tax):
    result = 0
    for price in prices:
        result = result + price
    result = result + result * tax
    return result


def report(name, prices, tax):
    amount = total(prices, tax)
    print("Customer: " + name)
    print("Items: " + str(len(prices)))
    print("Amount: " + str(amount))
    return amount
"""
PAGE = (
    "The harbour bridge was closed on Monday after inspectors found cracks in two of its twelve"
    " bearings. Traffic is led over the old stone bridge, where lorries above seven tonnes are not"
    " allowed. The city expects the repair to take six weeks and to cost four million euros. Buses"
    " on lines 4 and 11 run every twenty minutes instead of every ten. Ferries carry cyclists and"
    " people on foot across the harbour free of charge from six in the morning until midnight."
)
PROMPTS = {
    "edit code": f"Rename the variable result to sum, and change nothing else:\n\n{CODE}",
    "repeat a page": f"Copy this text word for word:\n\n{PAGE}",
    "sum up a page": f"Summarise this page in its own words and numbers:\n\n{PAGE}",
    "no copy": "Tell me a story about a lighthouse keeper who is afraid of the dark.",
}
RULES: dict[str, dict[str, Any]] = {
    "greedy": {"sampling": Sampling(0.0)},
    "coupled, T = 0.8": {"sampling": Sampling(0.8), "scheme": Coupled(), "seed": 1},
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--tokens", type=int, default=TOKENS)
    asked = parser.parse_args()
    from transformers import AutoTokenizer

    err = Console(stderr=True)
    folder = reference.folder(asked.model)
    bundle = load_bundle(forms.bundle(folder, forms.DRAFT, CONTEXT))
    words = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    torch.set_num_threads(1)
    target, draft = pair.Target(Target.load(folder)), pair.Draft(DraftModel(bundle))

    def write(ids: list[int], mode: Mode, rule: str, *, look_up: bool) -> Result:
        world = World(draft, target, bundle.tokenizer(), CONTEXT, DRAFT_S, STEP_S, look_up=look_up)

        async def one() -> Result:
            async with world.device(make_link(LINK, seed=0)) as device:
                generation = device.generate(
                    ids, max_tokens=asked.tokens, eos_ids=(), mode=mode, **RULES[rule]
                )
                async for _ in generation:
                    pass
                return generation.result

        return run(one())

    out = Table("", "rule", "stream", "+ look-up", "both", "+ look-up", title="tokens a step (/s)")
    for name, prompt in PROMPTS.items():
        ids = texts.prompt_ids(words, "chat", prompt)
        for rule in RULES:
            found = [write(ids, mode, rule, look_up=look_up)
                     for mode in MODES for look_up in (False, True)]  # fmt: skip
            if len({tuple(result.tokens) for result in found}) != 1:
                raise RuntimeError(f"{name}, {rule}: different texts")
            out.add_row(
                name,
                rule,
                *(f"{len(r.tokens) / r.forwards:.2f} ({r.tokens_per_s:.0f})" for r in found),
            )
            target.forget()
            draft.forget()
            err.print(f"{name}, {rule}")
    Console(width=110).print(out)


if __name__ == "__main__":
    main()

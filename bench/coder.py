"""The entropy coder on the embedded pair's own text: bits against their bounds, and time.

    python -m bench.coder [--prompts 6] [--json FILE]

The target writes; at every fourth token the draft drafts four. A row's bound is
log2 C(V, K_j) + log2 C(ℓ-1, K_j-1) - log2 q̂(x), without anything for K_j, which the coder does
send. The bound of nested rows (tiers above 1) is the sum over the rows that a token sends, where
the rest is one part more of ℓ, and q̂(x) is the share in them all. The larger vocabularies are the
pair's own ids, moved apart in order ("kept") or shuffled.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForCausalLM, AutoTokenizer

import tinypair
from device_runtime.model.draft_model import DraftModel
from draftlink.coding.bits import width_for
from draftlink.coding.ids import IdModel
from draftlink.coding.rangecoder import RangeDecoder, RangeEncoder
from draftlink.coding.slices import whole
from draftlink.distribution import sparse
from draftlink.distribution.sampling import Sampling, distribution, draw
from draftlink.schemes.topk import TopK
from export.bundle import export_bundle

PROMPTS = tinypair.ROOT / "prompts.json"
DRAFT_LENGTH = 4
TOKENS = 128  # written after each prompt
TEMPERATURES = (0.7, 1.0)  # of the rows; ids are drafted greedily (0) too
ROWS = (  # K, ℓ, tiers
    (16, 100, 1), (16, 256, 1), (32, 256, 1), (32, 1024, 1), (8, 64, 3), (8, 64, 4), (16, 256, 7),
    (32, 512, 5),
)  # fmt: skip
VOCABS = ((None, "kept"), (32_000, "kept"), (32_000, "shuffled"), (151_936, "kept"),
          (151_936, "shuffled"))  # fmt: skip


@dataclass(frozen=True)
class Drafted:
    """A block of drafted tokens after ``base`` tokens of a text, and the draft's distributions."""

    base: int
    ids: list[int]
    q: list[np.ndarray]


Text = tuple[list[int], list[Drafted]]  # a prompt and what follows it, and the blocks


def collect(temperature: float, prompts: int) -> list[Text]:
    """Texts of the target and what the int8 draft drafts along them; 0 is greedy."""
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    tokenizer = AutoTokenizer.from_pretrained(tinypair.TARGET, trust_remote_code=False)
    target = AutoModelForCausalLM.from_pretrained(
        tinypair.TARGET, dtype=torch.float32, trust_remote_code=False
    ).eval()
    choice: dict[str, Any] = {"do_sample": False, "pad_token_id": tokenizer.eos_token_id}
    if temperature:
        choice |= {"do_sample": True, "temperature": temperature, "top_k": 0}
    sampling = Sampling(temperature=temperature or 1.0)
    texts = []
    with tempfile.TemporaryDirectory() as scratch:
        draft = DraftModel(export_bundle(tinypair.DRAFT, Path(scratch) / "draft", "int8"))
        for entry in json.loads(PROMPTS.read_text(encoding="utf-8"))[:prompts]:
            given = tokenizer(entry["prompt"], return_tensors="pt")
            with torch.inference_mode():
                text = target.generate(**given, max_new_tokens=TOKENS, **choice)[0].tolist()
            draft.rollback(0)
            blocks: list[Drafted] = []
            for base in range(given["input_ids"].shape[1], len(text), DRAFT_LENGTH):
                draft.rollback(base - DRAFT_LENGTH if blocks else 0)
                block = Drafted(base, [], [])
                feed = text[draft.length : base]
                for _ in range(DRAFT_LENGTH):
                    q = distribution(draft.forward(feed), sampling, ())
                    feed = [draw(q, random.random()) if temperature else int(q.argmax())]
                    block.ids.extend(feed)
                    block.q.append(q)
                blocks.append(block)
            texts.append((text, blocks))
    return texts


def _log2_choose(n: int, k: int) -> float:
    return (math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)) / math.log(2)


def _timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """What a call returns, and the fastest of three, in seconds of this process."""
    times = []
    for _ in range(3):
        begin = time.process_time()
        result = call()
        times.append(time.process_time() - begin)
    return result, min(times)


def _spread(q: np.ndarray, places: np.ndarray, vocab_size: int) -> np.ndarray:
    """A distribution over more ids; those that are new have all but nothing."""
    wide = np.full(vocab_size, 1e-12)
    wide[places] = q
    wide /= wide.sum()
    return wide


def tokens_of(
    texts: list[Text], scheme: TopK, places: np.ndarray | None, vocab_size: int
) -> list[list[sparse.Drafted]]:
    """Blocks of drawn tokens; ``places``: where each id goes, if anywhere."""
    blocks: list[list[sparse.Drafted]] = []
    for _, drafted in texts:
        for block in drafted:
            rows = [q if places is None else _spread(q, places, vocab_size) for q in block.q]
            begin = DRAFT_LENGTH * len(blocks)
            blocks.append([scheme.propose(q, bytes(32), begin + j) for j, q in enumerate(rows)])
    return blocks


def measure_rows(
    blocks: list[list[sparse.Drafted]], scheme: TopK, vocab_size: int
) -> dict[str, float]:
    """Means per drafted token: bits, the bound, the fixed-width form, and microseconds."""
    bits = bound = fixed = encode_s = decode_s = entries = 0.0
    ids = IdModel(vocab_size)
    for block in blocks:
        (payload, size), spent = _timed(partial(scheme.encode, block, ids))
        encode_s += spent
        _, spent = _timed(partial(scheme.decode, payload, len(block), ids))
        decode_s += spent
        bits += size
        for token in block:
            bound -= math.log2(token.reach * token.count / token.total)
            for depth, row in enumerate(token.path(vocab_size)[: scheme.tiers]):
                count = len(row.ids)
                entries += count
                fixed += width_for(scheme.k << depth) + width_for(count + 1)
                fixed += count * (width_for(vocab_size) + width_for(row.total))
                fixed += width_for(row.total + 1) * (scheme.tiers > 1)
                parts = count + (row.rest > 0)
                bound += _log2_choose(vocab_size, count) + _log2_choose(row.total - 1, parts - 1)
    tokens = sum(map(len, blocks))
    return {
        "entries": entries / tokens,
        "bits": bits / tokens,
        "bound": bound / tokens,
        "fixed_width": fixed / tokens,
        "encode_us": encode_s / tokens * 1e6,
        "decode_us": decode_s / tokens * 1e6,
    }


def measure_ids(texts: list[Text], vocab_size: int) -> dict[str, float]:
    """Means per drafted id: bits, the draft's cross-entropy (greedy: of its arg max), and time."""
    bits = entropy = encode_s = decode_s = extend_s = 0.0
    ids = tokens = 0
    for text, blocks in texts:
        model = IdModel(vocab_size)
        for block in blocks:
            new = text[model.length : block.base]
            begin = time.process_time()
            model.extend(new)
            extend_s += time.process_time() - begin
            tokens += len(new)

            def encode(model: IdModel = model, block: Drafted = block) -> tuple[bytes, int]:
                out = RangeEncoder()
                model.encode(out, block.ids)
                return out.finish()

            (payload, size), spent = _timed(encode)
            encode_s += spent

            def decode(model: IdModel = model, payload: bytes = payload) -> list[int]:
                return whole(model.decoding(RangeDecoder(payload), DRAFT_LENGTH))

            decode_s += _timed(decode)[1]
            bits += size
            ids += len(block.ids)
            entropy -= sum(math.log2(q[i]) for q, i in zip(block.q, block.ids, strict=True))
    return {
        "bits": bits / ids,
        "draft_bits": entropy / ids,
        "uniform_bits": math.log2(vocab_size),
        "encode_us": encode_s / ids * 1e6,
        "decode_us": decode_s / ids * 1e6,
        "extend_us": extend_s / tokens * 1e6,
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--prompts", type=int, default=6)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    found: dict[str, list[dict[str, Any]]] = {"rows": [], "ids": []}
    for temperature in (*TEMPERATURES, 0.0):
        texts = collect(temperature, options.prompts)
        size = len(texts[0][1][0].q[0])
        found["ids"].append({"T": temperature} | measure_ids(texts, size))
        if not temperature:
            continue
        for vocab, order in VOCABS:
            random = np.random.default_rng(0)
            places = None if vocab is None else random.choice(vocab, size, replace=False)
            if places is not None and order == "kept":
                places.sort()
            for k, total, tiers in ROWS:
                head = {"V": vocab or size, "ids": order, "K": k, "l": total, "tiers": tiers}
                scheme = TopK(k, total, tiers=tiers)
                blocks = tokens_of(texts, scheme, places, vocab or size)
                measured = measure_rows(blocks, scheme, vocab or size)
                found["rows"].append(head | {"T": temperature} | measured)

    rows = Table("V", "ids", "K", "ℓ", "tiers", "T", "entries", "bits", "bound", "bits/bound",
                 "fixed width", "encode µs", "decode µs",
                 title="a row, per drafted token")  # fmt: skip
    for r in found["rows"]:
        rows.add_row(
            *(str(r[key]) for key in ("V", "ids", "K", "l", "tiers", "T")),
            *(f"{r[key]:.1f}" for key in ("entries", "bits", "bound")),
            f"{r['bits'] / r['bound']:.3f}",
            *(f"{r[key]:.0f}" for key in ("fixed_width", "encode_us", "decode_us")),
        )
    ids = Table("T", "bits", "log2 V", "draft's cross-entropy", "encode µs", "decode µs",
                "extend µs", title="an id, per drafted token")  # fmt: skip
    for r in found["ids"]:
        ids.add_row(
            str(r["T"]),
            *(f"{r[key]:.2f}" for key in ("bits", "uniform_bits", "draft_bits")),
            *(f"{r[key]:.0f}" for key in ("encode_us", "decode_us", "extend_us")),
        )
    console = Console(width=120)
    console.print(rows, ids)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()

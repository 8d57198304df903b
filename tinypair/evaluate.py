"""How good the embedded pair is, on text that it was not trained on.

    python -m tinypair.evaluate --text stories.txt --text dialogues.txt [--json FILE]

Held-out documents are those that ``tinypair.train`` holds out of the same files.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from transformers import AutoModelForCausalLM, AutoTokenizer

import tinypair
from device_runtime.model.draft_model import DraftModel
from draftlink.distribution.sampling import Sampling, distribution
from draftlink.host import files
from export.bundle import export_bundle
from export.choose import Precision
from tinypair.corpus import split, token_row
from tinypair.train import held_out_loss

LENGTH = 512
TEMPERATURES = (1.0, 0.7)
PRECISIONS: tuple[Precision, ...] = ("fp32", "int8", "int4")


def overlaps(model: torch.nn.Module, draft: DraftModel, row: np.ndarray) -> dict[str, float]:
    """Mean sum of min(p, q) over a row of held-out ids, by temperature; no truncation."""
    total, count = dict.fromkeys(TEMPERATURES, 0.0), 0
    for begin in range(0, len(row) - LENGTH + 1, LENGTH):
        ids = row[begin : begin + LENGTH].astype(np.int64)
        with torch.inference_mode():
            target = model(input_ids=torch.from_numpy(ids)[None]).logits[0].float().numpy()
        draft.rollback(0)
        for token, expected in zip(ids, target, strict=True):
            found = draft.forward([int(token)])
            for temperature in TEMPERATURES:
                at = Sampling(temperature=temperature)
                p, q = distribution(expected, at, ()), distribution(found, at, ())
                total[temperature] += float(np.minimum(p, q).sum())
            count += 1
    return {str(temperature): value / count for temperature, value in total.items()}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--text", type=Path, action="append", required=True, metavar="FILE")
    parser.add_argument("--tokens", type=int, default=16_384, help="positions of each text")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    tokenizer = AutoTokenizer.from_pretrained(tinypair.TARGET, trust_remote_code=False)
    models = {
        name: AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, trust_remote_code=False
        ).eval()
        for name, folder in (("target", tinypair.TARGET), ("draft", tinypair.DRAFT))
    }
    texts = {path.name: split(path)[1] for path in options.text}
    rows = {name: token_row(tokenizer, held, 1)[: options.tokens] for name, held in texts.items()}
    every = np.concatenate([row[: len(row) // LENGTH * LENGTH] for row in rows.values()])
    found: dict[str, object] = {
        "positions": len(every),
        "parameters": {
            name: {
                "all": sum(p.numel() for p in model.parameters()),
                "non_embedding": sum(p.numel() for p in model.parameters())
                - model.get_input_embeddings().weight.numel(),
            }
            for name, model in models.items()
        },
        "held_out_loss": {
            name: {
                "all": held_out_loss(model, every, LENGTH, "cpu"),
                **{text: held_out_loss(model, row, LENGTH, "cpu") for text, row in rows.items()},
            }
            for name, model in models.items()
        },
    }
    overlap: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for precision in track(PRECISIONS, "overlap"):
            bundle = export_bundle(tinypair.DRAFT, Path(scratch) / precision, precision)
            draft = DraftModel(bundle)
            overlap[precision] = {"all": overlaps(models["target"], draft, every)}
            if precision == "int8":
                for text, row in rows.items():
                    overlap[f"int8, {text}"] = overlaps(models["target"], draft, row)
    found["overlap"] = overlap
    print(json.dumps(found, indent=2))
    if options.json:
        files.write(options.json, json.dumps(found, indent=2).encode() + b"\n")


if __name__ == "__main__":
    main()

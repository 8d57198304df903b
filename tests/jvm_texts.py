"""Tokenizers with texts and ids, and a bundle with its logits, for the JVM to come to the same."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, normalizers

import tinypair
from device_runtime.model.bundle import Bundle
from device_runtime.model.draft_model import DraftModel
from device_runtime.text import Detokenizer, Text
from tests.device_runtime import tokenizers_by_kind as kinds

Entry = dict[str, Any]
KNOWN = ("gpt-2", "llama-3", "qwen", "llama-2", "gemma")
# What each of the others has that is not known there, as it is named.
REFUSED = {
    "phi-3": "takes what is around it", "t5": "Unigram", "bert": "BertNormalizer",
    "word ends": "Whitespace", "words": "Whitespace",
}  # fmt: skip
RANDOM, SEQUENCES = 300, 300  # texts and sequences of ids of each tokenizer
PIECES = [
    " ", "  ", "\n", "\r\n", "\t", "\u00a0", "\u3000", "'s", "'LL", "'", "a", "The", "cat", "é",
    "e\u0301", "ß", "空", "は", "Ж", "0", "12", "345", "½", "Ⅷ", "٣", "😀", "👨\u200d👩\u200d👧",
    "\u200b", "\ufffd", "\x00", "\x1f", "—", "...", "[", "<", "<s>", "</s>", "<unk>", "▁", "x_y",
    "<|endoftext|>", "<|im_start|>", "<tool_call>", "<0x41>", "://", "def f(x):",
]  # fmt: skip
# Of a logit, between two versions of onnxruntime: both round activations to 8 bits, and where one
# comes out a last bit apart a step is 1/127 of the largest. PyTorch's own are up to 0.16 away.
TOLERANCE = 0.1


def write(folder: Path, bundle: Bundle, *, real: bool) -> None:
    """All of it, from one seed; ``real``: those of real models too, where they are in the cache."""
    rng = np.random.default_rng(28)
    with (folder / "texts.jsonl").open("w") as out:
        out.writelines(json.dumps(entry) + "\n" for entry in _texts(folder, rng, real))
    with (folder / "pieces.jsonl").open("w") as out:
        out.writelines(json.dumps(entry) + "\n" for entry in _pieces(rng))
    for name in REFUSED:
        kinds.KINDS[name]().save(str(folder / f"{name}.json"))
    said = {f"{name}.json": why for name, why in REFUSED.items()}
    (folder / "refused.json").write_text(json.dumps(said))
    (folder / "model.json").write_text(json.dumps(_model(bundle, rng)))


def _texts(folder: Path, rng: np.random.Generator, real: bool) -> Iterator[Entry]:
    made = {name: kinds.KINDS[name]() for name in KNOWN}
    made["tinypair"] = Tokenizer.from_file(str(tinypair.DRAFT / "tokenizer.json"))
    references = Path.home().glob(".cache/draftlink/references/*/tokenizer.json")
    for path in sorted(references) if real else []:
        made[path.parent.name] = Tokenizer.from_file(str(path))
    for name, tokenizer in made.items():
        tokenizer.save(str(folder / f"{name}.json"), pretty=False)
        texts = [*tinypair.prompts(20), *kinds.CORPUS, "", *_random(rng)]
        # Of every letter that is in use the writing of it, in one text.
        texts += ["".join(map(chr, range(begin, begin + 64))) for begin in range(1, 0x3000, 64)]
        texts = [text for text in texts if _normal(tokenizer, text)]
        encoded = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
        ids = [rng.integers(0, tokenizer.get_vocab_size(), 12).tolist() for _ in range(SEQUENCES)]
        yield {
            "tokenizer": f"{name}.json",
            "texts": [
                {"text": text, "ids": ids, "decoded": tokenizer.decode(ids)}
                for text, ids in zip(texts, encoded, strict=True)
            ],
            "ids": ids,
            "decoded": [tokenizer.decode(each) for each in ids],
        }


def _normal(tokenizer: Tokenizer, text: str) -> bool:
    """Whether its NFC is today's: that of tokenizers lacks some younger marks."""
    if not isinstance(tokenizer.normalizer, normalizers.NFC):
        return True
    return bool(tokenizer.normalizer.normalize_str(text) == unicodedata.normalize("NFC", text))


def _pieces(rng: np.random.Generator) -> Iterator[Entry]:
    """Texts token by token, true ones and of any ids, behind prompts and before stop strings."""
    for name in KNOWN:
        tokenizer = kinds.KINDS[name]()
        detokenizer = Detokenizer(tokenizer)
        for number in range(SEQUENCES):
            ids = rng.integers(0, tokenizer.get_vocab_size(), int(rng.integers(2, 60))).tolist()
            if number % 2:
                ids = (
                    tokenizer.encode("".join(_random(rng, 1)), add_special_tokens=False).ids or ids
                )
            cut = int(rng.integers(0, len(ids)))
            whole = tokenizer.decode(ids[cut:])
            stops, place = [], int(rng.integers(0, max(1, len(whole))))
            if number % 3 and whole[place : place + 2]:
                stops = [whole[place : place + 2], "never"]
            made = Text(detokenizer, ids[:cut], stops)
            pieces = [made.push(token) for token in ids[cut:]] + [made.finish()]
            yield {
                "tokenizer": f"{name}.json", "prompt": ids[:cut], "tokens": ids[cut:],
                "stops": stops, "pieces": pieces, "stopped": made.stopped,
            }  # fmt: skip


def _random(rng: np.random.Generator, count: int = RANDOM) -> list[str]:
    return ["".join(rng.choice(PIECES, int(rng.integers(1, 20)))) for _ in range(count)]


def _model(bundle: Bundle, rng: np.random.Generator) -> Entry:
    """Logits of a text that is fed in parts of many lengths, with rollbacks."""
    model, steps = DraftModel(bundle, threads=1), []
    for number in range(60):
        length = int(rng.integers(0, model.length + 1))
        ids = rng.integers(0, model.vocab_size, int(rng.integers(1, 150 if number == 9 else 6)))
        model.rollback(length)
        row = model.forward(ids.tolist())
        places = rng.choice(model.vocab_size, 64, replace=False).tolist()
        logits = [float(row[place]) for place in places]
        steps.append({"length": length, "ids": ids.tolist(), "places": places, "logits": logits,
                      "best": int(row.argmax())})  # fmt: skip
    return {"bundle": str(bundle.path), "steps": steps, "tolerance": TOLERANCE}

"""Plain-text files to documents, a tokenizer, and one long row of token ids.

A document is never cut in two between training and held-out text: every 50th document of every
file is held out, and files given as test-only are held out whole.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

BOUNDARY = "<|endoftext|>"
HELD_OUT_EVERY = 50


@dataclass(frozen=True)
class Source:
    """A text file, and how often its documents are repeated in one epoch."""

    path: Path
    repeats: int = 1

    @classmethod
    def parse(cls, text: str) -> Source:
        """Read ``FILE`` or ``FILE:REPEATS``."""
        path, colon, repeats = text.rpartition(":")
        if colon and repeats.isdigit():
            return cls(Path(path), int(repeats))
        return cls(Path(text))


def documents(path: Path) -> list[str]:
    """Split a file at ``<|endoftext|>``, else at two blank lines, else at one."""
    text = path.read_text(encoding="utf-8")
    for boundary in (BOUNDARY, "\n\n\n", "\n\n"):
        # Fewer than ten boundaries in a whole file are accidents of its layout, not documents.
        if text.count(boundary) >= 10:
            break
    return [piece.strip() for piece in text.split(boundary) if piece.strip()]


def split(path: Path) -> tuple[list[str], list[str]]:
    """Documents of a file: (training, held out)."""
    every = documents(path)
    held_out = every[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY]
    training = [d for i, d in enumerate(every) if (i + 1) % HELD_OUT_EVERY]
    return training, held_out


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE; digits stand alone, and every text starts with the boundary token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=[BOUNDARY],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=True,
        ),
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOUNDARY} $A", special_tokens=[(BOUNDARY, tokenizer.token_to_id(BOUNDARY))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOUNDARY,
        eos_token=BOUNDARY,
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )


def token_row(
    tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], seed: int | None
) -> np.ndarray:
    """All texts, each led by the boundary token, as one row of ids.

    Returns: uint16, shape (n,). ``seed`` shuffles the documents; None keeps their order.
    """
    order = list(texts)
    if seed is not None:
        random.Random(seed).shuffle(order)
    rows: list[int] = []
    for start in range(0, len(order), 1000):
        for ids in tokenizer(order[start : start + 1000])["input_ids"]:
            rows.extend(ids)
    return np.asarray(rows, dtype=np.uint16)

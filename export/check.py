"""Does the exported draft say what PyTorch says?

The float graph must, to the last digits: it is checked whatever the precision, since the rounded
graphs are made from it, and so what a rounded one loses is coarseness, unless it is broken. Broken
are weights in its file that are not those of the float graph to within a rounding (``faults``), a
cache that forgets, numbers that are none, and rows that have little to do with the float ones.
What is merely coarse is told, and stored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from device_runtime.model.bundle import Check
from device_runtime.model.draft_model import DraftModel
from draftlink.distribution.sampling import Sampling, distribution

POSITIONS = 256
TEXT = """Once upon a time there was a little girl who lived with her mother near a big forest. \
One day she found a small box under a tree. "What is in the box?" she asked. Her mother smiled and \
said, "Let us open it together." They were very happy, and they thanked the old man.

User: I would like to find a restaurant in San Jose.
System: What kind of food would you like, and for how many people?
User: Some Italian food for two people, please. I want to eat at half past six in the evening.
System: I found a nice place. Do you want me to reserve a table for two at 6:30 pm?
User: Yes, please do that. Thank you for your help."""

MAX_FP32_DIFFERENCE = 1e-3
# Of the mean sum of min(p, q). Two unrelated rows overlap by a few percent; no rounding of weights
# that passes ``faults`` comes near.
LEAST_OVERLAP: dict[str, float] = {"fp32": 0.999}
UNRELATED = 0.2
# Of a weight matrix, in the mean square, relative to it. The coarsest codes are 4 bits in blocks of
# 256 (0.15 for normal weights); making up for earlier columns moves weights by no more again.
MOST_MOVED = 0.5

AROUND = 24  # tokens before and behind a window's border
CHUNKS = (1, 2, 3, 5, 8, 13, 21, 34, 55, 89)


def compare(
    draft: DraftModel,
    model: Any,
    ids: Sequence[int],
    precision: str,
    text: str,
    progress: Callable[[int], None] = lambda position: None,
    window: int | None = None,
) -> Check:
    """Check ``draft`` against the float32 ``model`` of transformers, fed with ``ids``.

    Every row one token at a time, then the last rows of longer chunks, then a rollback; and where
    layers have a ``window``, rows about its border, which ``ids`` may not reach.
    """
    with torch.inference_mode():
        reference = model(input_ids=torch.tensor([list(ids)])).logits[0].float().numpy()
    difference, same, total = 0.0, 0, 0.0
    draft.rollback(0)
    for position, (token, expected) in enumerate(zip(ids, reference, strict=True)):
        progress(position)
        found = draft.forward([token])
        # Not max(): a NaN must stay.
        difference = float(np.maximum(difference, np.abs(found - expected).max()))
        same += int(found.argmax() == expected.argmax())
        total += overlap(expected, found)
    difference = float(np.maximum(difference, _chunked_difference(draft, ids, reference)))
    if window is not None:
        past = _difference_past(window, draft, model, ids)
        difference = float(np.maximum(difference, past))
    rollback = _rollback_difference(draft, ids)
    count = len(ids)
    passed = (
        bool(np.isfinite(difference))
        and total / count >= LEAST_OVERLAP.get(precision, UNRELATED)
        and rollback == 0.0
        and (precision != "fp32" or difference <= MAX_FP32_DIFFERENCE)
    )
    return Check(passed, count, difference, same / count, total / count, rollback, text)


def overlap(expected: NDArray[np.float32], found: NDArray[np.float32]) -> float:
    """sum of min(p, q) at temperature 1, of logits (V,); one may be padded with further ids."""
    size = min(len(expected), len(found))
    at_one = Sampling(temperature=1.0)
    p, q = (distribution(logits[:size], at_one, ()) for logits in (expected, found))
    return float(np.minimum(p, q).sum())


def reference(model: Any, rows: Sequence[Sequence[int]], path: Path) -> NDArray[np.float32]:
    """The float32 ``model``'s logits (n, V) along rows of ids, in a file that is mapped."""
    made = None
    at = 0
    for row in rows:
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([list(row)])).logits[0].float().numpy()
        if made is None:
            shape = (sum(map(len, rows)), logits.shape[1])
            made = np.lib.format.open_memmap(path, "w+", np.float32, shape)
        made[at : at + len(row)] = logits
        at += len(row)
    assert made is not None
    return made


def overlaps(
    draft: DraftModel,
    rows: Sequence[Sequence[int]],
    logits: NDArray[np.float32],
    progress: Callable[[int], None] = lambda position: None,
) -> NDArray[np.float64]:
    """sum of min(p, q) at temperature 1 for each position of ``rows``, and whether both agree on
    the likeliest token: (2, n). ``logits``: ``reference``'s.
    """
    found, at = np.zeros((2, len(logits))), 0
    for row in rows:
        draft.rollback(0)
        for token in row:
            progress(at)
            given = draft.forward([token])
            found[:, at] = overlap(logits[at], given), given.argmax() == logits[at].argmax()
            at += 1
    draft.rollback(0)
    return found


def mean(values: NDArray[np.float64]) -> tuple[float, float]:
    """The mean and its standard error."""
    return float(values.mean()), float(values.std() / max(1, len(values)) ** 0.5)


def _chunked_difference(
    draft: DraftModel, ids: Sequence[int], reference: NDArray[np.float32]
) -> float:
    """Feed chunks, as prompts and next turns do: the largest difference of their last rows."""
    draft.rollback(0)
    difference = 0.0
    for count in CHUNKS:
        begin, end = draft.length, draft.length + count
        if end > len(ids):
            break
        found = draft.forward(ids[begin:end])
        difference = float(np.maximum(difference, np.abs(found - reference[end - 1]).max()))
    return difference


def _difference_past(window: int, draft: DraftModel, model: Any, ids: Sequence[int]) -> float:
    """The largest difference of rows from shortly before a window's border on."""
    length = min(window + AROUND, draft.context)
    begin = max(1, window - AROUND)
    text = list(islice(cycle(ids), length))
    with torch.inference_mode():
        keep = {"logits_to_keep": length - begin + 1}
        rows = model(input_ids=torch.tensor([text]), **keep).logits[0, begin - length - 1 :]
    expected = rows.float().numpy()
    draft.rollback(0)
    found = [draft.forward(text[:begin]).copy()]
    found += [draft.forward([token]).copy() for token in text[begin:]]
    draft.rollback(window)  # the same tokens at once, each seeing a part of them
    found.append(draft.forward(text[window:]).copy())
    draft.rollback(0)
    return float(np.abs(found - np.vstack([expected, expected[-1:]])).max())


def _rollback_difference(draft: DraftModel, ids: Sequence[int]) -> float:
    """Feed, stray, roll back and go on: the largest difference from a run that never strayed."""
    half = len(ids) // 2
    if not half:
        return 0.0
    draft.rollback(0)
    draft.forward(ids[:half])
    straight = [draft.forward([token]).copy() for token in ids[half:]]
    draft.rollback(half)
    draft.forward(ids[: len(ids) - half][::-1])
    draft.rollback(half)
    again = [draft.forward([token]).copy() for token in ids[half:]]
    draft.rollback(0)
    return float(np.abs(np.subtract(straight, again)).max())

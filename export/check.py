"""Does the exported draft say what PyTorch says?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from device_runtime.model.bundle import Check
from device_runtime.model.draft_model import DraftModel
from draftlink.distribution.sampling import Sampling, distribution
from export.quantize import Precision

POSITIONS = 256
TEXT = """Once upon a time there was a little girl who lived with her mother near a big forest. \
One day she found a small box under a tree. "What is in the box?" she asked. Her mother smiled and \
said, "Let us open it together." They were very happy, and they thanked the old man.

User: I would like to find a restaurant in San Jose.
System: What kind of food would you like, and for how many people?
User: Some Italian food for two people, please. I want to eat at half past six in the evening.
System: I found a nice place. Do you want me to reserve a table for two at 6:30 pm?
User: Yes, please do that. Thank you for your help."""

# The graph itself must be right: float32 differs only by the order of additions. It is checked
# whatever the precision, since the quantized graphs are made from it. Their floors then catch a
# broken quantization (two unrelated rows overlap by a few percent), not a poor one: random weights
# lose far more to 4 bits than trained ones, and what a draft loses is printed and stored.
MAX_FP32_DIFFERENCE = 1e-3
MIN_OVERLAP: dict[Precision, float] = {"fp32": 0.999, "int8": 0.95, "int4": 0.50}


CHUNKS = (1, 2, 3, 5, 8, 13, 21, 34, 55, 89)


def compare(
    draft: DraftModel,
    model: Any,
    ids: Sequence[int],
    precision: Precision,
    text: str,
    progress: Callable[[int], None] = lambda position: None,
) -> Check:
    """Check ``draft`` against the float32 ``model`` of transformers, fed with ``ids``.

    Every row one token at a time, then the last rows of longer chunks, then a rollback.
    """
    with torch.inference_mode():
        reference = model(input_ids=torch.tensor([list(ids)])).logits[0].float().numpy()
    at_one = Sampling(temperature=1.0)
    difference, same, overlap = 0.0, 0, 0.0
    draft.rollback(0)
    for position, (token, expected) in enumerate(zip(ids, reference, strict=True)):
        progress(position)
        found = draft.forward([token])
        # Not max(): a NaN must stay.
        difference = float(np.maximum(difference, np.abs(found - expected).max()))
        same += int(found.argmax() == expected.argmax())
        p, q = distribution(expected, at_one, ()), distribution(found, at_one, ())
        overlap += float(np.minimum(p, q).sum())
    difference = float(np.maximum(difference, _chunked_difference(draft, ids, reference)))
    rollback = _rollback_difference(draft, ids)
    count = len(ids)
    passed = (
        bool(np.isfinite(difference))
        and overlap / count >= MIN_OVERLAP[precision]
        and rollback == 0.0
        and (precision != "fp32" or difference <= MAX_FP32_DIFFERENCE)
    )
    return Check(passed, count, difference, same / count, overlap / count, rollback, text)


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

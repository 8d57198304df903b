"""What a model tells its attention, layer by layer, against what the masks made for it say.

transformers says a window twice: in the mask that "sdpa" and "eager" are given, and in a keyword
for attention that makes no use of masks. Ours is of the second kind, and nothing but the first is
what the model was trained with. Which of the two a model's code passes on where, and whether they
agree, is not seen on a text shorter than the window, and a longer one may take minutes. So the
model is run once, on two tokens, with an attention that computes nothing and takes notes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

NAME = "draftlink_told"


@dataclass(frozen=True)
class Told:
    """The settings that differ from full attention over plain scores, of all layers together.

    ``capped``: whether scores are capped somewhere. ``fault``: why the windows that attention is
    told are not those of the masks; None where they are.
    """

    capped: bool
    fault: str | None


def listen(model: Any, context: int) -> Told | None:
    """Run the model once; None for one that cannot be run so. ``context``: a window is shorter."""
    default = model.config._attn_implementation
    made: list[tuple[Tensor, int | None]] = []
    heard: list[tuple[int | None, bool, Tensor | None]] = []

    def mask(mask_function: Callable[..., Tensor], **_: Any) -> Tensor:
        mark = torch.zeros(1, 1, 2, 2, dtype=torch.bool, device=model.device)
        made.append((mark, _window(mask_function, context)))
        return mark

    def attention(
        module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
        sliding_window: int | None = None, softcap: float | None = None, **_: Any,
    ) -> tuple[Tensor, None]:  # fmt: skip
        window = sliding_window if sliding_window and sliding_window < context else None
        heard.append((window, bool(softcap), attention_mask))
        shape = query.shape[0], query.shape[2], query.shape[1], value.shape[3]
        return query.new_zeros(shape), None

    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, mask)
    try:
        if not model.is_backend_compatible():
            return None
        model.set_attn_implementation(NAME)
        ids = torch.zeros(1, 2, dtype=torch.int64, device=model.device)
        with torch.inference_mode():
            # That both are there says that they are one text, which else would be a mask's matter.
            model(ids, attention_mask=torch.ones_like(ids), use_cache=False)
    except torch.OutOfMemoryError:
        raise
    except Exception:  # whatever the model's own code makes of such an attention
        return None
    finally:
        model.set_attn_implementation(default)
    return Told(any(capped for _, capped, _ in heard), _fault(heard, made))


def _window(sees: Callable[..., Tensor], context: int) -> int | None:
    """The window of a mask function: None for none, 0 for what is neither causal nor a window."""
    zero = torch.zeros((), dtype=torch.int64)
    lasts = context - 1, context // 2
    rows = [sees(zero, zero, torch.tensor(n), torch.arange(context)).expand(context) for n in lasts]
    window = max(int(row.sum()) for row in rows)
    for last, row in zip(lasts, rows, strict=True):
        count = min(window, last + 1)
        if int(row.sum()) != count or not row[last + 1 - count : last + 1].all():
            return 0
    return window if window < context else None


def _fault(
    heard: list[tuple[int | None, bool, Tensor | None]], made: list[tuple[Tensor, int | None]]
) -> str | None:
    for window, _, mask in heard:
        found = [of for mark, of in made if mark is mask]
        if found == [0]:
            return "its masks are neither causal nor windows"
        if found and found != [window]:
            return f"its masks have a window of {found[0]}, and its attention is told {window}"
        if not found and window is not None:
            return f"whether its masks have the window of {window} cannot be seen"
    return None

"""What a model says by its own plain attention ("eager"), by which any other is judged.

Other implementations leave out, without a word, what they have no place for: GPT-2's attention
without scores' scale, or with another in each layer, Gemma 2's soft cap. A target that leaves it
out is another model than the checkpoint, and than the draft that was made from it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bs_runtime.model.errors import TargetError

PLAIN = "eager"

log = logging.getLogger("draftlink.bs")


def same(found: Tensor, rows: Tensor, dtype: torch.dtype) -> bool:
    """Whether logits are those ``rows``, but for rounding. False for what is no number.

    The tolerance is wide, for half precision; a state that was not rolled back, or another
    session's, is as far off as another text. It goes by how far a row's logits lie apart: what all
    of them have in common (GPT-2's are about -100) says nothing.
    """
    middle = rows.median(-1, keepdim=True).values
    apart = (rows - middle).abs()
    allowed = (1e-3 if dtype == torch.float32 else 0.1) * float(apart[apart.isfinite()].max())
    return float(torch.where(found == rows, 0, found - rows).abs().max()) <= allowed


def plain_rows(model: Any, ids: Sequence[int], name: str) -> Tensor:
    """Float32 logits (n, V) of ``ids``, by the plain attention where the model can change its own.

    Raises TargetError for a model that cannot be run, and for logits that are no numbers.
    """
    before = model.config._attn_implementation
    changes = before != PLAIN and _can_change(model)
    if changes:
        model.set_attn_implementation(PLAIN)
    try:
        rows = _rows(model, ids)
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:  # whatever the model's own code makes of a text
        line = (str(error).strip() or repr(error)).splitlines()[0]
        raise TargetError(
            f"{name}: transformers' own code of {model.config.model_type} cannot run it"
            f" ({line.rstrip('.')}); use another model"
        ) from None
    finally:
        if changes:
            model.set_attn_implementation(before)
    if not _are_numbers(rows):
        raise TargetError(
            f"{name}: the logits of its first {len(rows)} tokens are no numbers (NaN): its weights"
            " are broken, or they overflow in this precision; try --dtype float32, or load the"
            " checkpoint anew"
        )
    return rows


def stay_plain(model: Any, ids: Sequence[int], rows: Tensor, name: str) -> None:
    """Keep the plain attention where the model's default gives other logits than ``rows``."""
    default = model.config._attn_implementation
    if default == PLAIN or not _can_change(model):
        return
    if not same(_rows(model, ids), rows, model.dtype):
        model.set_attn_implementation(PLAIN)
        log.warning(
            "%s: its attention by %s leaves out what %s has, so the slower %s is used",
            name, default, PLAIN, PLAIN,
        )  # fmt: skip


def _can_change(model: Any) -> bool:
    """Whether its attention is asked for by name, and not a class of its own for each."""
    return bool(model.is_backend_compatible())


def _are_numbers(rows: Tensor) -> bool:
    """No NaN, and something finite in each row: some models forbid ids by -inf."""
    return not bool(rows.isnan().any()) and bool(rows.max(-1).values.isfinite().all())


def _rows(model: Any, ids: Sequence[int]) -> Tensor:
    with torch.inference_mode():
        given = torch.tensor([list(ids)], device=model.device)
        rows: Tensor = model(given, use_cache=False).logits[0]
    return rows.float().cpu()

"""The ``static`` graphs for NPUs: every shape fixed, standard operators, one graph for each bucket.

A graph feeds n tokens: it takes the whole KV buffers and a mask that says what of them holds, and
returns the n tokens' own keys and values, which the device writes behind the others. So shapes
never change, nothing is concatenated that grows, and a rollback is a length.

As with ``shared``, transformers' own code is exported and only the attention function is ours.
"""

from __future__ import annotations

from typing import Any

import onnx
import torch
from torch import Tensor, nn

from bs_runtime.checkpoint.config import window_of
from export import ExportError
from export.graph import cache_shapes, replaced_attention

NAME = "draftlink_static"


class _Tape:
    """What the forward that is being traced hands to its attention."""

    past: tuple[Tensor, ...] = ()
    mask: Tensor
    new: list[Tensor]


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    **ignored: Any,
) -> tuple[Tensor, None]:
    """query (1, heads, n, d), key and value (1, kv_heads, n, d) to (1, n, heads, d)."""
    _, heads, length, size = query.shape
    kv_heads = key.shape[1]
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    _Tape.new += [key, value]
    keys = torch.cat((_Tape.past[2 * layer], key), dim=2)
    values = torch.cat((_Tape.past[2 * layer + 1], value), dim=2)
    # The heads that share keys lie side by side: no key is copied for them.
    grouped = query.reshape(1, kv_heads, heads // kv_heads * length, size)
    scores = grouped @ keys.transpose(2, 3) * (scaling if scaling is not None else size**-0.5)
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    scores = scores.reshape(1, heads, length, -1) + _Tape.mask
    weights = scores.softmax(-1).reshape(1, kv_heads, heads // kv_heads * length, -1)
    out = (weights @ values).reshape(1, heads, length, size)
    return out.transpose(1, 2), None


class _Traced(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: Tensor, position_ids: Tensor, last: Tensor, mask: Tensor,
        past: list[Tensor],
    ) -> tuple[Tensor, ...]:  # fmt: skip
        _Tape.past, _Tape.mask, _Tape.new = tuple(past), mask, []
        out = self.model(
            input_ids=input_ids,
            position_ids=position_ids,
            attention_mask=None,
            use_cache=False,
            logits_to_keep=last,
        )
        return (out.logits[:, 0].float(), *_Tape.new)


def export_static(model: Any, context: int, count: int) -> onnx.ModelProto:
    """The graph of a float32 model on the CPU that feeds ``count`` tokens.

    Inputs: input_ids and position_ids int64 (1, n), last int64 (1,): which of them the logits are
    of, mask float32 (1, 1, n, context + n): 0, or ``MASKED`` where a token does not look;
    past.0.key, ... float32 (1, kv_heads, context, head_dim). Outputs: logits float32 (1, V),
    new.0.key, ... (1, kv_heads, n, head_dim). Raises ExportError, and what torch raises.
    """
    if window := window_of(model.config.get_text_config(), context):
        raise ExportError(
            f"it has one mask for all layers, and some see {window} tokens back; --context {window}"
            " has no need of that"
        )
    shapes = cache_shapes(model)
    if len(set(shapes)) != 1:
        raise ExportError("its keys and values differ in shape")
    layers, (kv_heads, size) = len(shapes) // 2, shapes[0]
    names = [f"{i}.{part}" for i in range(layers) for part in ("key", "value")]
    buffers = [torch.zeros(1, kv_heads, context, size) for _ in names]
    with replaced_attention(model, NAME, _attention), torch.no_grad():
        program = torch.onnx.export(
            _Traced(model).eval(),
            (
                torch.zeros(1, count, dtype=torch.int64),
                torch.arange(count)[None],
                torch.tensor([count - 1]),
                torch.zeros(1, 1, count, context + count),
                buffers,
            ),
            dynamo=True,
            input_names=[
                "input_ids",
                "position_ids",
                "last",
                "mask",
                *(f"past.{n}" for n in names),
            ],
            output_names=["logits", *(f"new.{n}" for n in names)],
            opset_version=20,
            verbose=False,
            optimize=True,
        )
    assert program is not None
    proto: onnx.ModelProto = program.model_proto
    if len(_Tape.new) != len(names):
        raise ExportError(
            f"{len(_Tape.new) // 2} of its {layers} layers use transformers' attention interface"
        )
    return proto

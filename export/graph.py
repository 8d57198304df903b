"""The ``shared`` graph: one buffer is past and present, so that rollback is a length.

transformers' own code is exported, whatever the architecture: only the attention function is ours,
one ``GroupQueryAttention`` node, registered through transformers' attention interface.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import onnx
import torch
import transformers
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from export import ExportError
from export.fuse import fuse
from export.rotary import Tables, inside_attention

NAME = "draftlink_shared_buffer"
HEAD = 16  # GroupQueryAttention takes heads of whole multiples of this
# The first onnxruntime whose GroupQueryAttention counts the current token among those that a window
# sees, as transformers does; up to 1.23 it saw one more (tried, from 1.23.0 on).
WINDOWS = "1.24.1"
INPUTS = ("input_ids", "position_ids", "seqlens_k", "total_sequence_length")
BRANCHING = ("attention_bias", "rows")


class _Tape:
    """What the forward that is being traced hands to its attention."""

    rotary: Tables | None = None
    context: int
    past: tuple[Tensor, ...] = ()
    seqlens_k: Tensor
    total: Tensor
    sight: tuple[Tensor, Tensor] | None = None  # positions and bias, where tokens may branch
    rows: Tensor
    present: list[Tensor]


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    sliding_window: int | None = None,
    **ignored: Any,
) -> tuple[Tensor, None]:
    """query (1, heads, n, d), key and value (1, kv_heads, n, d) to (1, n, heads, d)."""
    _, heads, length, size = query.shape
    kv_heads = key.shape[1]
    slides = sliding_window is not None and sliding_window < _Tape.context
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    scale = float(scaling if scaling is not None else size**-0.5)
    room = padded(size) - size
    if room:  # zeros add nothing to a score, and to what is attended zeros
        query, key, value = (nn.functional.pad(x, (0, room)) for x in (query, key, value))
    past_key, past_value = _Tape.past[2 * layer : 2 * layer + 2]
    rotary, _Tape.rotary = _Tape.rotary, None
    packed = [x.transpose(1, 2).reshape(1, length, -1) for x in (query, key, value)]
    inputs: list[Tensor | None] = [*packed, past_key, past_value, _Tape.seqlens_k, _Tape.total]
    if _Tape.sight is None:
        inputs += rotary or ()
    else:
        positions, bias = _Tape.sight
        # Without a rotation of its own the operator has no use for positions, and takes none.
        inputs += [*(rotary or (None, None)), positions if rotary else None, bias]
    out, present_key, present_value = torch.onnx.ops.symbolic_multi_out(
        "com.microsoft::GroupQueryAttention",
        inputs,
        {
            "do_rotary": int(rotary is not None),
            "num_heads": heads,
            "kv_num_heads": kv_heads,
            "scale": scale,
            "softcap": float(softcap or 0.0),
            # Tokens that are seen back, the current one counted: so since ``WINDOWS``.
            "local_window_size": int(sliding_window) if slides and sliding_window else -1,
        },
        dtypes=[query.dtype, query.dtype, query.dtype],
        shapes=[(1, length, heads * padded(size)), past_key.shape, past_value.shape],
        version=1,
    )
    _Tape.present += [present_key, present_value]
    return out.reshape(1, length, heads, -1)[..., :size], None


def _no_mask(*_: Any, **__: Any) -> None:
    """What replaces attention is causal by itself."""


class _Traced(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        seqlens_k: Tensor,
        total_sequence_length: Tensor,
        past: list[Tensor],
    ) -> tuple[Tensor, ...]:
        _Tape.sight = None
        logits = self._logits(input_ids, position_ids, seqlens_k, total_sequence_length, past, 1)
        return (logits[:, -1].float(), *_Tape.present)

    def _logits(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        seqlens_k: Tensor,
        total: Tensor,
        past: list[Tensor],
        last: int,
    ) -> Tensor:
        """Logits (1, last, V) of so many last tokens; 0: of all that the head is given."""
        _Tape.past, _Tape.present, _Tape.context = tuple(past), [], past[0].shape[2]
        _Tape.seqlens_k, _Tape.total = seqlens_k, total
        out = self.model(
            input_ids=input_ids,
            position_ids=position_ids,
            attention_mask=None,
            use_cache=False,
            logits_to_keep=last,
        )
        logits: Tensor = out.logits
        return logits


class _Branching(_Traced):
    """Of tokens that each say what they see, and of which of them logits are wanted."""

    def forward(  # type: ignore[override]
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        seqlens_k: Tensor,
        total_sequence_length: Tensor,
        attention_bias: Tensor,
        rows: Tensor,
        past: list[Tensor],
    ) -> tuple[Tensor, ...]:
        _Tape.sight, _Tape.rows = (position_ids, attention_bias), rows
        logits = self._logits(input_ids, position_ids, seqlens_k, total_sequence_length, past, 0)
        return (logits[0].float(), *_Tape.present)


@contextmanager
def _named_rows(model: Any) -> Iterator[None]:
    """The model's head is given the tokens that are named alone.

    Not by ``logits_to_keep``: what an index becomes is fused with the head to a product that
    onnxruntime does not load.
    """
    head = model.get_output_embeddings()
    hook = head.register_forward_pre_hook(
        lambda _, given: (given[0].index_select(1, _Tape.rows), *given[1:])
    )
    try:
        yield
    finally:
        hook.remove()


def _note(tables: Tables) -> None:
    _Tape.rotary = tables


@contextmanager
def replaced_attention(model: Any, name: str, attention: Callable[..., Any]) -> Iterator[None]:
    """The model with another attention function and no mask."""
    AttentionInterface.register(name, attention)
    AttentionMaskInterface.register(name, _no_mask)
    before = model.config._attn_implementation
    model.set_attn_implementation(name)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def padded(size: int) -> int:
    """The head size in the graph of a model's: what GroupQueryAttention takes."""
    return -(-size // HEAD) * HEAD


def cache_shapes(model: Any) -> list[tuple[int, int]]:
    """Key-value heads and head size of every layer's keys and values, as the model caches them.

    Raises ExportError for a cache that is none of layers, and for a model of no numbers.
    """
    with torch.no_grad():
        said = model(input_ids=torch.zeros(1, 1, dtype=torch.int64))
    if not bool(said.logits.isfinite().any()):
        raise ExportError(
            "the model's own logits are no numbers (NaN): its weights are broken; load the"
            " checkpoint anew"
        )
    cache = said.past_key_values
    if not hasattr(cache, "layers"):
        raise ExportError(
            f"{type(model).__name__} caches in a form of its own in transformers"
            f" {transformers.__version__}; pip install -U transformers, or use another model"
        )
    tensors = [x for layer in cache.layers for x in (layer.keys, layer.values)]
    return [(x.shape[1], x.shape[-1]) for x in tensors]


def export_shared(model: Any, context: int, *, branches: bool = False) -> onnx.ModelProto:
    """The graph of a float32 model on the CPU.

    Inputs: input_ids and position_ids int64 (1, n), seqlens_k int32 (1,) and total_sequence_length
    int32 scalar (tokens in the cache after this call, less one, and in all), past.0.key, ...
    Outputs: logits float32 (1, V) of the last position, present.0.key, ...

    ``branches``: tokens need not follow one another. Two more inputs are attention_bias float32
    (1, 1, n, total), which is added to scores, and rows int64 (r,): of which tokens logits (r, V)
    are wanted. Raises ExportError for a model that does not ask transformers' interface for its
    attention, and what torch raises for one that cannot be traced.
    """
    shapes = cache_shapes(model)
    layers, (kv_heads, size) = len(shapes) // 2, shapes[0]
    if len(set(shapes)) != 1:
        raise ExportError("its keys and values differ in shape")
    # Of one number: a whole context's would take memory, and are not looked at.
    zero = torch.zeros(1, 1, 1, 1)
    wide = padded(size)
    buffers = [zero.expand(1, kv_heads, context, wide).detach() for _ in range(2 * layers)]
    names = [f"{i}.{part}" for i in range(layers) for part in ("key", "value")]
    length = 3  # any length above 1: the axis is dynamic
    n = torch.export.Dim("n", min=1, max=context)
    traced: nn.Module = _Traced(model)
    more, free = list[Tensor](), list[dict[int, Any]]()
    if branches:
        traced = _Branching(model)
        more = [torch.zeros(1, 1, length, length + 2), torch.arange(length - 1)]
        total = torch.export.Dim("total", min=1, max=context)
        free = [{2: n, 3: total}, {0: torch.export.Dim("rows", min=1, max=context)}]
    with (
        replaced_attention(model, NAME, _attention),
        inside_attention(model, context, size if size == wide else 0, _note),
        _named_rows(model) if branches else nullcontext(),
        torch.no_grad(),
    ):
        program = torch.onnx.export(
            traced.eval(),
            (
                torch.zeros(1, length, dtype=torch.int64),
                torch.arange(length)[None],
                torch.tensor([length - 1], dtype=torch.int32),
                torch.tensor(length, dtype=torch.int32),
                *more,
                buffers,
            ),
            dynamo=True,
            dynamic_shapes=({1: n}, {1: n}, None, None, *free, [None] * len(buffers)),
            input_names=[*INPUTS, *BRANCHING[: len(more)], *(f"past.{name}" for name in names)],
            output_names=["logits", *(f"present.{name}" for name in names)],
            opset_version=20,
            verbose=False,
            optimize=True,
        )
    assert program is not None
    _count_layers(program.model, layers)
    proto = fuse(program.model)
    if not any(i.domain == "com.microsoft" for i in proto.opset_import):
        proto.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    return proto


def _count_layers(model: Any, layers: int) -> None:
    """Raise ExportError unless each of a traced model's layers has become the operator.

    Before the fusions: of some models' own attention they make such nodes, over no buffers.
    """
    found = sum(node.op_type == "GroupQueryAttention" for node in model.graph)
    if found != layers:
        raise ExportError(f"{found} of its {layers} layers use transformers' attention interface")

"""What no draft and no target can be, told by name before anything is loaded."""

from __future__ import annotations

from typing import Any, Final

from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from bs_runtime.checkpoint.errors import CheckpointError

# What configurations call their layers' kinds, and the kinds whose cache is keys and values.
NAMES: Final = ("layer_types", "layers_block_type")
ATTEND: Final = {"attention", "full_attention", "sliding_attention"}
INSTEAD: Final = "use a model with full attention"


def refuse_state(config: Any, *, stateful: bool = False) -> None:
    """Raise CheckpointError for a text model whose cache cannot be cut back, or that has ALiBi.

    ``stateful``: what transformers says of a model's class, where it is not the configuration's.
    """
    kind = config.model_type
    made: Any = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    stateful = stateful or bool(getattr(made, "_is_stateful", False))
    layers = {layer for name in NAMES for layer in getattr(config, name, None) or ()}
    if stateful or "recurrent" in layers:
        raise CheckpointError(
            f"{kind} keeps a recurrent state that cannot be rolled back; {INSTEAD}"
        )
    if odd := layers - ATTEND:
        raise CheckpointError(
            f"layers of kind {', '.join(sorted(odd))} ({kind}) keep a state that cannot be rolled"
            f" back; {INSTEAD}"
        )
    if _has_alibi(config):
        raise CheckpointError(
            f"{kind} tells positions by biases on its attention's scores (ALiBi), for which neither"
            " a device's attention nor that over packed sessions has a place; use a model with"
            " rotary or learned positions"
        )


def _has_alibi(config: Any) -> bool:
    attention = getattr(config, "attn_config", None)  # MPT's: an object, or what a file says
    told = attention if isinstance(attention, dict) else getattr(attention, "__dict__", {})
    return (
        config.model_type == "bloom"
        or bool(getattr(config, "alibi", False) or told.get("alibi", False))
        or getattr(config, "position_embedding_type", None) == "alibi"
    )

"""The target model in PyTorch: any decoder-only model of transformers, one KV cache per slot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, DynamicCache

from draftlink.tokenizer import tokenizer_hash

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class TargetError(ValueError):
    """The model cannot be a target; the text says why, and what to do."""


class Target:
    """A loaded model.

    ``vocab_size`` is the number of logits, ``context`` the longest history in tokens.
    """

    def __init__(
        self, model: Any, tokenizer: str, name: str, eos_token_ids: tuple[int, ...]
    ) -> None:
        config = model.config.get_text_config()
        refuse_unrollable(config)
        self.model = model.eval()
        self.name = name
        self.tokenizer_hash = tokenizer_hash(tokenizer)
        self.vocab_size = int(config.vocab_size)
        self.context = int(config.max_position_embeddings)
        self.dtype = str(model.dtype).removeprefix("torch.")
        self.eos_token_ids = eos_token_ids

    @classmethod
    def load(cls, model: str | Path, *, device: str = "cpu", dtype: str = "float32") -> Target:
        """Load a local folder or hub id. Raises TargetError."""
        if dtype not in DTYPES:
            raise TargetError(f"no dtype {dtype!r}; there is {', '.join(DTYPES)}")
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise TargetError("CUDA is not available to PyTorch here; use --device cpu")
        try:
            config = AutoConfig.from_pretrained(model)
            if config.is_encoder_decoder:
                raise TargetError(f"{model} is an encoder-decoder model; a target is decoder-only")
            tokenizer = AutoTokenizer.from_pretrained(model)  # type: ignore[no-untyped-call]
            loaded: Any = AutoModelForCausalLM.from_pretrained(model, dtype=DTYPES[dtype])
        except (OSError, ValueError) as error:
            if isinstance(error, TargetError):
                raise
            line = str(error).strip().splitlines()[0]
            raise TargetError(
                f"cannot load {model}: {line} Give a transformers folder with its tokenizer, or a"
                " hub id that this machine can reach."
            ) from None
        if not getattr(tokenizer, "is_fast", False):
            raise TargetError(f"{model} has no fast tokenizer (tokenizer.json)")
        eos = loaded.generation_config.eos_token_id
        ids = tuple(eos) if isinstance(eos, list) else () if eos is None else (int(eos),)
        name = Path(model).name
        return cls(loaded.to(device), tokenizer.backend_tokenizer.to_str(), name, ids)

    def open(self) -> Slot:
        """A new, empty KV cache."""
        return Slot(self)


def refuse_unrollable(config: Any) -> None:
    """Raise TargetError for models whose cache cannot be cut back to any earlier length."""
    kinds = set(getattr(config, "layer_types", None) or ())
    if kinds - {"full_attention", "sliding_attention"}:
        raise TargetError(
            f"layers of kind {', '.join(sorted(kinds))} keep a state that cannot be rolled back"
        )
    window = getattr(config, "sliding_window", None)
    uses = (
        getattr(config, "use_sliding_window", True) if not kinds else "sliding_attention" in kinds
    )
    if window and uses and window < config.max_position_embeddings:
        raise TargetError(
            f"its sliding window of {window} tokens is shorter than its context: entries that left"
            " the window cannot be rolled back"
        )


class Slot:
    """One history's KV cache."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._cache: Any = DynamicCache()

    @property
    def length(self) -> int:
        """Tokens in the cache."""
        return int(self._cache.get_seq_length())

    def forward(self, ids: Sequence[int], *, last: bool = False) -> torch.Tensor:
        """Feed ``ids``; float32 logits on the CPU, (len(ids), V), or (1, V) with ``last``.

        Raises TargetError past the context.
        """
        if self.length + len(ids) > self.target.context:
            raise TargetError(
                f"{self.length + len(ids)} tokens, where the context is {self.target.context}"
            )
        model = self.target.model
        begin = self.length
        positions = torch.arange(begin, begin + len(ids), device=model.device)
        with torch.inference_mode():
            out = model(
                input_ids=torch.tensor([ids], device=model.device),
                position_ids=positions[None],
                past_key_values=self._cache,
                use_cache=True,
                logits_to_keep=1 if last else 0,
            )
            logits: torch.Tensor = out.logits[0].float().cpu()
        return logits

    def rollback(self, length: int) -> None:
        """Cut the cache back to ``length`` tokens. Raises ValueError for more than it holds."""
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot roll {self.length} tokens back to {length}")
        if length < self.length:
            self._cache.crop(length)

"""A model's configuration, whichever transformers wrote it, as the installed one understands it.

transformers 5 keeps what a rotary embedding needs in one dictionary, ``rope_parameters``, by the
kind of layer where kinds differ. 4.57 reads such a file without a word, and takes its own defaults.
"""

from __future__ import annotations

import inspect
from typing import Any, Final, NoReturn

import transformers
from transformers import CONFIG_MAPPING, AutoConfig

from bs_runtime.checkpoint.errors import CheckpointError

MAJOR: Final = int(transformers.__version__.partition(".")[0])
# What some kinds of model call the base of their rotation, and the part of a head that is rotated.
THETA: Final = ("rope_theta", "rotary_emb_base")
PARTIAL: Final = ("partial_rotary_factor", "rotary_pct")
# The two bases of models whose layers differ: of full attention, and of a sliding window.
FULL_AND_LOCAL: Final = (
    ("rope_theta", "rope_local_base_freq"),
    ("global_rope_theta", "local_rope_theta"),
)
KINDS: Final = ("full_attention", "sliding_attention")
ORIGINAL: Final = "original_max_position_embeddings"
YARN: Final = ("attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate")
# What 4.57 reads of each way to scale; it passes over anything else.
SCALED_BY: Final[dict[str, tuple[str, ...]]] = {
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor", ORIGINAL),
    "yarn": ("factor", ORIGINAL, *YARN),
    "longrope": ("short_factor", "long_factor", "factor", "attention_factor", ORIGINAL),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", ORIGINAL),
}


def read_config(source: str, **options: Any) -> Any:
    """The configuration of a folder or hub id; ``options`` are those of ``AutoConfig``.

    Raises CheckpointError for one that the installed transformers would misread, and what
    transformers raises for one that it cannot read.
    """
    config: Any = AutoConfig.from_pretrained(source, **options)
    if MAJOR >= 5:
        return _mended(config)
    said, _ = type(config).get_config_dict(source, **options)
    return _mended(type(config).from_dict(understood(said)) if _newer(said) else config)


def make_config(said: dict[str, Any]) -> Any:
    """A configuration of what a file says, in transformers 5's words. Raises CheckpointError."""
    known = said if MAJOR >= 5 else understood(said)
    return _mended(CONFIG_MAPPING[said["model_type"]].from_dict(known))


def _mended(config: Any) -> Any:
    """Without a padding id that is none of the vocabulary: no embedding can be made with it."""
    text = config.get_text_config()
    size = getattr(text, "vocab_size", None)
    for each in (config, text):
        pad = getattr(each, "pad_token_id", None)
        if isinstance(pad, int) and isinstance(size, int) and not -size <= pad < size:
            each.pad_token_id = None
    return config


def _newer(said: dict[str, Any]) -> bool:
    return "rope_parameters" in said or any(
        _newer(part) for part in said.values() if isinstance(part, dict)
    )


def understood(said: dict[str, Any]) -> dict[str, Any]:
    """What transformers 5 wrote, in the words of 4.57. Raises CheckpointError where it has none."""
    found = {
        name: understood(part) if isinstance(part, dict) and _newer(part) else part
        for name, part in said.items()
    }
    rope = found.pop("rope_parameters", None)
    if rope is None:
        return found
    kind = said.get("model_type", "")
    if kind not in CONFIG_MAPPING:
        _refuse(kind, rope)
    known = set(inspect.signature(CONFIG_MAPPING[kind].__init__).parameters)
    parts = _parts(rope)
    if not parts:
        _refuse(kind, rope)
    full, local = parts[0], {"rope_type": "default"} | parts[-1]
    if parts[0] == parts[-1]:
        return found | _flat(kind, full, known)
    for theta, local_theta in FULL_AND_LOCAL:
        if not {theta, local_theta} <= known or {*local} != {"rope_type", "rope_theta"}:
            continue
        flat = _flat(kind, full, known | {"rope_theta"})
        if local["rope_type"] == "default" and "rope_theta" in flat:
            flat[theta] = flat.pop("rope_theta")
            return found | flat | {local_theta: local["rope_theta"]}
    _refuse(kind, rope)


def _parts(rope: Any) -> list[dict[str, Any]]:
    """The one dictionary, or full attention's and that of windows; none of what is neither."""
    if not isinstance(rope, dict):
        return []
    parts: list[Any] = [rope]
    if {*rope} & {*KINDS}:
        parts = [rope[name] for name in KINDS if rope.get(name) is not None]
        if {*rope} - {*KINDS}:
            return []
    return parts if all(isinstance(part, dict) for part in parts) else []


def _flat(kind: str, rope: dict[str, Any], known: set[str]) -> dict[str, Any]:
    """Of one dictionary: the base, the part that is rotated, and how it is scaled."""
    left = dict(rope)
    named = left.pop("rope_type", left.pop("type", "default"))
    found: dict[str, Any] = {}
    for key, names in (("rope_theta", THETA), ("partial_rotary_factor", PARTIAL)):
        if key in left:
            value, name = left.pop(key), next((each for each in names if each in known), None)
            if name is not None:
                found[name] = value
            elif (key, value) != ("partial_rotary_factor", 1.0):  # all of a head: as without it
                _refuse(kind, rope)
    if {*left} - {*SCALED_BY.get(named, ())} or named not in SCALED_BY:
        _refuse(kind, rope)
    if named == "default":
        return found
    if "rope_scaling" not in known:
        _refuse(kind, rope)
    if named == "longrope" and ORIGINAL in left:
        found[ORIGINAL] = left[ORIGINAL]
    return found | {"rope_scaling": {"rope_type": named, **left}}


def _refuse(kind: str, rope: Any) -> NoReturn:
    raise CheckpointError(
        f"its rotary embedding ({kind}: {rope}) was written by a newer transformers than"
        f" {transformers.__version__}, which does not know it: pip install -U transformers"
    )


def window_of(config: Any, context: int) -> int | None:
    """How many tokens a model's layers with a sliding window see, the current one counted.

    None where no layer has one, and where it is no shorter than ``context``.
    """
    kinds = getattr(config, "layer_types", None) or ()
    slides = "sliding_attention" in kinds if kinds else getattr(config, "use_sliding_window", True)
    window = getattr(config, "sliding_window", None)
    return int(window) if slides and window and window < context else None

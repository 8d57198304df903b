"""What a target fails at by itself."""

from __future__ import annotations

from bs_runtime.operations.limits import Refusal


class ModelFault(Refusal, ValueError):
    """The target cannot go on with a text; its device is not to blame."""

    def __init__(self, reason: str) -> None:
        super().__init__("internal", reason)

    @classmethod
    def behind(cls, length: int) -> ModelFault:
        """Nothing can be drawn behind the first ``length`` tokens of a text."""
        return cls(
            f"the target's logits behind token {length} hold no largest number: the model is"
            " broken; have its weights checked, or try another text"
        )

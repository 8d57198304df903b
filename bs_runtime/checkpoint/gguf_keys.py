"""What a GGUF file says of its architecture: numbers under names that begin with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bs_runtime.checkpoint.gguf_file import GgufFile


@dataclass(frozen=True)
class Keys:
    """What a file says under the name of its architecture. All raise CheckpointError."""

    file: GgufFile
    name: str

    def check_keys(self, known: tuple[str, ...]) -> None:
        """Refuse a key that may mean what nobody here knows."""
        allowed = {f"{self.name}.{key}" for key in known}
        for key in self.file.fields:
            if key.startswith(f"{self.name}.") and key not in allowed:
                self.file.refuse(f"it says {key}, which is not known here")

    def size(self, key: str, default: int | None = None) -> int:
        """A number of something, above 0; one that is not said must have a default."""
        value = self.file.integer(f"{self.name}.{key}", most=1 << 24)
        found: int = self._stated(key, value or default)
        return found

    def number(self, key: str, default: float | None = None) -> float:
        """A finite number, likewise."""
        value = self.file.number(f"{self.name}.{key}")
        found: float = self._stated(key, default if value is None else value)
        return found

    def same(self, key: str, expected: int) -> None:
        """Refuse another number than the one that is expected, where one is said."""
        value = self.file.integer(f"{self.name}.{key}")
        if value not in (None, expected):
            self.file.refuse(f"its {self.name}.{key} is {value} and not {expected}: not read")

    def _stated(self, key: str, value: Any) -> Any:
        if value is None:
            self.file.refuse(f"it does not say its {self.name}.{key}")
        return value

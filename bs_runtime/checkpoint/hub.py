"""Whether the Hugging Face hub can be asked, found out in a time that a user waits for."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Final

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

# A command has said within 10 s that there is no hub, PyTorch's import included.
PATIENCE_S: Final = 3.0


class _Question:
    """A thread that asks; what does not answer is left to it, however slowly it says something."""

    def __init__(self, model: str) -> None:
        self._model, self._begun, self._answered = model, time.monotonic(), False
        self._thread = threading.Thread(target=self._ask, name="hub", daemon=True)
        self._thread.start()

    def _ask(self) -> None:
        try:
            HfApi().model_info(self._model, timeout=PATIENCE_S)
        except HfHubHTTPError:
            self._answered = True
        except Exception:  # no route, no name, offline mode: each HTTP client has its own
            return
        self._answered = True

    def answered(self) -> bool:
        """Whether it was answered within PATIENCE_S of its begin."""
        self._thread.join(max(0.0, self._begun + PATIENCE_S - time.monotonic()))
        return self._answered


_asked: dict[str, _Question] = {}


def ask(model: str) -> None:
    """Begin to ask for a model that is no path here, so that whoever needs to know waits less."""
    if not Path(model).exists() and model not in _asked:
        _asked[model] = _Question(model)


def hub_answers(model: str) -> bool:
    """Whether the hub can be reached to ask for a model, be it to say that it has none.

    It is given up after PATIENCE_S.
    """
    return (_asked.pop(model, None) or _Question(model)).answered()

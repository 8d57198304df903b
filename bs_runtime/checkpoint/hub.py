"""Whether the Hugging Face hub can be asked, found out in a time that a user waits for."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Final

from huggingface_hub import HfApi, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from bs_runtime.checkpoint.errors import CheckpointError

# A command has said within 10 s that there is no hub.
PATIENCE_S: Final = 3.0
ANY_MODELS: Final = "config.json"  # what is kept of every model that was loaded from the hub


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
    if not Path(model).exists() and model not in _asked and _is_id(model):
        _asked[model] = _Question(model)


def need(model: str) -> None:
    """The same; and wait for the answer if nothing of the model is kept here.

    Raises CheckpointError where there is none. So nobody waits for PyTorch's import, which takes
    longer than the hub is given on a slow machine, only to hear that there is no model.
    """
    ask(model)
    question = _asked.get(model)
    if question is None or isinstance(try_to_load_from_cache(model, ANY_MODELS), str):
        return
    if not question.answered():
        raise absent(model, "it does not answer")


def absent(model: str, why: str) -> CheckpointError:
    """What is said of a model that is neither here nor, for a reason, to be had from the hub."""
    return CheckpointError(
        f"{model} is no folder here, and the Hugging Face hub does not give it ({why}); check the"
        " name and the network, or download the model and give its folder"
    )


def _is_id(model: str) -> bool:
    try:
        validate_repo_id(model)
    except HFValidationError:
        return False
    return True


def hub_answers(model: str) -> bool:
    """Whether the hub can be reached to ask for a model, be it to say that it has none.

    It is given up after PATIENCE_S.
    """
    return (_asked.pop(model, None) or _Question(model)).answered()

"""Whether the Hugging Face hub can be asked, found out in a time that a user waits for."""

from __future__ import annotations

import threading
from typing import Final

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

# With what it takes to import PyTorch, a command has said within 10 s that there is no hub.
PATIENCE_S: Final = 3.0


def hub_answers(model: str) -> bool:
    """Whether the hub can be reached to ask for a model, be it to say that it has none.

    What does not answer is given up after PATIENCE_S, however slowly it says something.
    """
    answered: list[bool] = []

    def ask() -> None:
        try:
            HfApi().model_info(model, timeout=PATIENCE_S)
        except HfHubHTTPError:
            answered.append(True)
        except Exception:  # no route, no name, offline mode: each HTTP client has its own
            answered.append(False)
        else:
            answered.append(True)

    thread = threading.Thread(target=ask, name="hub", daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    return bool(answered and answered[0])

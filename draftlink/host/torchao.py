"""What PyTorch says while torchao is imported, which transformers does wherever it is installed.

Two lines on stderr about how torchao registers its enums; nobody who loads a model can act on them.
"""

from __future__ import annotations

import logging


def _of_others(record: logging.LogRecord) -> bool:
    """Whether a record is about anything but a class of torchao's."""
    about = record.args[0] if isinstance(record.args, tuple) and record.args else None
    return not (isinstance(about, type) and about.__module__.partition(".")[0] == "torchao")


def hush() -> None:
    """Leave those lines out from now on; all else that PyTorch says stays."""
    logging.getLogger("torch.utils._pytree").addFilter(_of_others)

"""From a checkpoint to a draft bundle: graph, quantization, check, manifest."""

from typing import Literal

from draftlink.host import torchao

torchao.hush()

Kind = Literal["shared", "portable", "static"]


class ExportError(Exception):
    """The model cannot be exported; the text says why, and what to do."""


def first_line(error: BaseException) -> str:
    """What the cause of another library's exception says, in one sentence."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return lines[0].split(". ")[0].rstrip(" .:") if lines else type(error).__name__

"""From a checkpoint to a draft bundle: graph, quantization, check, manifest."""


class ExportError(Exception):
    """The model cannot be exported; the text says why, and what to do."""

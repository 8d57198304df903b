"""What products cost on a device, by kernel and shape: a table that ``measure`` makes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta

from draftlink.host import files
from draftlink.host.plain import printable

FORMAT = 1
MAX_BYTES = 1 << 20

Seconds = Annotated[float, Meta(ge=0, le=1000)]
Count = Annotated[int, Meta(ge=1, le=1 << 24)]
Word = Annotated[str, Meta(max_length=100)]


class Kernel(msgspec.Struct, frozen=True, order=True):
    """A way to multiply: the bits of a weight, and how many share a step."""

    bits: Literal[4, 8]
    block: Annotated[int, Meta(ge=16, le=256)]
    zero_points: bool = False


class Cost(msgspec.Struct, frozen=True):
    """Of one product of a vector with a matrix (rows, width), its weights read from memory."""

    kernel: Kernel
    rows: Count
    width: Count
    seconds: Seconds


class Costs(msgspec.Struct, frozen=True):
    """The table of a device."""

    format: int
    machine: Word
    features: Annotated[list[Word], Meta(max_length=50)]
    onnxruntime: Word
    threads: Count
    node_s: Seconds  # of any other node
    products: Annotated[list[Cost], Meta(max_length=10_000)]

    def seconds(self, kernel: Kernel, rows: int, width: int) -> float:
        """What a product takes: as measured, or on the line through what was, by its weights.

        Raises ValueError for a kernel that was not measured.
        """
        same = [cost for cost in self.products if cost.kernel == kernel]
        for cost in same:
            if (cost.rows, cost.width) == (rows, width):
                return cost.seconds
        if not same:
            raise ValueError(f"the costs have no {kernel.bits} bits in blocks of {kernel.block}")
        weights = np.array([cost.rows * cost.width for cost in same], np.float64)
        took = np.array([cost.seconds for cost in same])
        if len(set(weights)) == 1:
            return float(took.mean() * rows * width / weights[0])
        # Relative errors count: small products are as many as large ones.
        slope, start = np.polyfit(weights, took, 1, w=1 / np.maximum(took, 1e-9))
        return float(max(start + slope * rows * width, took.min() * 0.1))

    def kernels(self) -> list[Kernel]:
        """Those measured."""
        return sorted({cost.kernel for cost in self.products})


def write(costs: Costs, path: Path) -> None:
    """Raises files.FileError."""
    files.write(path, msgspec.json.format(msgspec.json.encode(costs)) + b"\n")


def read(path: Path) -> Costs:
    """A table that ``write`` wrote. Raises ValueError, in one line, for anything else."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"over {MAX_BYTES} bytes")
        found = msgspec.json.decode(path.read_bytes(), type=Costs)
    except (OSError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        why = printable(str(error))
        raise ValueError(
            f"{printable(str(path))} is no table of costs ({why}); write one on the device with"
            " `draftlink device --measure-costs FILE`"
        ) from None
    if found.format != FORMAT:
        raise ValueError(f"{printable(str(path))} has format {found.format}, this is {FORMAT}")
    return found

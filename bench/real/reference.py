"""The reference of a pretrained model that exists here in few bits only: float32, off the grid.

    python -m bench.real.reference smollm2 [--out FOLDER]

Weights that were rounded once lie on a grid, and whoever rounds them to the same one loses nothing.
So each gets uniform noise of half a step of its block's own grid, either way, from a fixed seed: no
format is at home on it any more. The noise is of the size of the error that the rounding had made;
what comes out is a model of the same kind, not the one that was published. It is written twice,
with the same numbers: as a GGUF file in float32, from which llama.cpp makes its formats, and as a
Hugging Face folder, from which everybody else does.
"""

from __future__ import annotations

import argparse
import shutil
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from bench.real import fetch
from draftlink.host import files

SEED = 0
GGUF = "model-f32.gguf"
VERSION = 1  # of what is made here: another one is made anew
ALL_F32 = 0  # ``general.file_type``
DEAD = ("GGUF.", "general.architecture")  # which a writer writes by itself


def steps(data: NDArray[np.uint8], kind: Any) -> NDArray[np.float32]:
    """How far neighbouring values of the grid that a weight lies on are apart, as (rows, width).

    ``data`` is a quantized tensor's (rows, bytes), of the type ``kind`` of ``gguf``. A K-quant's
    block has parts with a small scale each: a step is that times the block's own. Raises ValueError
    for a type that is not known here.
    """
    import gguf

    types = gguf.GGMLQuantizationType
    width, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = data.reshape(-1, size)

    def half(at: int) -> NDArray[np.float32]:
        return blocks[:, at : at + 2].copy().view(np.float16).astype(np.float32)

    if kind in (types.Q4_0, types.Q4_1, types.Q5_0, types.Q5_1, types.Q8_0):
        step = half(0)
    elif kind in (types.Q4_K, types.Q5_K):
        scales, _ = gguf.quants.Q4_K.get_scale_min(blocks[:, 4:16])
        step = half(0) * scales
    elif kind == types.Q6_K:
        step = half(208) * blocks[:, 192:208].copy().view(np.int8)
    else:
        raise ValueError(f"{kind.name} is not a type whose steps are known here")
    each: NDArray[np.float32] = np.abs(step).repeat(width // step.shape[1], axis=1)
    return each.reshape(len(data), -1).astype(np.float32)


def off_the_grid(
    name: str, values: NDArray[np.float32], step: NDArray[np.float32]
) -> NDArray[np.float32]:
    """A tensor's values, with noise of up to half a ``step`` by its name and the seed."""
    rng = np.random.default_rng([SEED, zlib.crc32(name.encode())])
    noise = rng.random(values.shape, dtype=np.float32) - np.float32(0.5)
    return values + noise * step


def write_gguf(source: Path, out: Path) -> None:
    """``source`` in float32, off the grid: every field and tensor that it has."""
    import gguf

    reader = gguf.GGUFReader(source)
    architecture = reader.fields["general.architecture"].contents()
    writer = gguf.GGUFWriter(out, architecture)
    for field in reader.fields.values():
        if field.name.startswith(DEAD):
            continue
        kind = field.types[0]
        inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        value = ALL_F32 if field.name == "general.file_type" else field.contents()
        writer.add_key_value(field.name, value, kind, inner)
    for tensor in reader.tensors:
        values = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if tensor.tensor_type != gguf.GGMLQuantizationType.F32:
            step = steps(tensor.data, tensor.tensor_type)
            values = off_the_grid(tensor.name, values, step)
        writer.add_tensor(tensor.name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def folder(model: str) -> Path:
    """The reference of a model in ``fetch.SOURCES``, made on first use; or a reference's folder.

    Raises OutOfReach where the model cannot be had, ValueError for a folder that is no reference.
    """
    if model not in fetch.SOURCES:
        path = Path(model)
        if not (path / GGUF).is_file():
            raise ValueError(
                f"{model} is no reference ({GGUF} is not there), nor one of"
                f" {', '.join(fetch.SOURCES)}; make one with `python -m bench.real.reference`"
            )
        return path
    pinned = fetch.SOURCES[model].sha256[:12]
    kept = fetch.place(f"references/{model}-{pinned}-{VERSION}")
    kept.parent.mkdir(parents=True, exist_ok=True)
    with files.locked(kept.with_name(f"{kept.name}.lock")):
        if not kept.exists():
            make(fetch.gguf(model), kept)
    return kept


def make(source: Path, out: Path) -> None:
    """Make the reference of a GGUF file; ``out`` is there when all of it is."""
    from transformers import PreTrainedTokenizerFast

    from export.source import load

    part = out.with_name(f".partial-{out.name}")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        write_gguf(source, part / GGUF)
        model, words = load(part / GGUF)
        model.save_pretrained(part)
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=words.tokenizer, **words.tokens)
        tokenizer.chat_template = words.template
        tokenizer.save_pretrained(part)
        part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def main() -> None:
    """Make a reference, and say where it is."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", choices=sorted(fetch.SOURCES))
    parser.add_argument("--out", type=Path, help="a folder that is not there yet")
    options = parser.parse_args()
    console = Console()
    with console.status(f"making the reference of {options.model}"):
        if options.out is None:
            found = folder(options.model)
        else:
            found = options.out
            make(fetch.gguf(options.model), found)
    console.print(str(found), highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()

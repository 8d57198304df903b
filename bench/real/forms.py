"""What each runtime makes of one float32 reference, kept in the reference's folder."""

from __future__ import annotations

import ctypes
import hashlib
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import export
from bench import shape
from bench.real.reference import GGUF
from draftlink.host import children, files

if TYPE_CHECKING:
    from export.choose import Precision

FORMATS = ("Q4_0", "Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0")  # llama.cpp's
PRECISIONS: tuple[Precision, ...] = ("int4", "int8", "auto")  # ours
DRAFT: Precision = "int8"  # what is drafted with: no costs that differ from run to run choose it


def bundle(folder: Path, precision: Precision, context: int | None) -> Path:
    """Our own, exported where it is not there, or where what exports it is another by now."""
    from export.bundle import export_bundle

    digest = hashlib.sha256(str(context).encode())
    for source in sorted(Path(export.__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    out = folder / "bundles" / digest.hexdigest()[:12] / precision
    if not out.exists():
        out.parent.mkdir(parents=True, exist_ok=True)
        export_bundle(folder, out, precision, context=context)
    return out


def gguf(folder: Path, name: str) -> Path:
    """One of llama.cpp's formats, by its own quantizer. Raises RuntimeError where that fails."""
    out = folder / "peers" / f"{name}.gguf"
    if not out.exists():
        import llama_cpp

        quiet = llama_cpp.llama_log_callback(lambda *_: None)
        llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))
        params = llama_cpp.llama_model_quantize_default_params()
        params.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{name}")
        out.parent.mkdir(exist_ok=True)
        with files.whole(out) as part:
            paths = str(folder / GGUF).encode(), str(part).encode()
            if llama_cpp.llama_model_quantize(*paths, ctypes.byref(params)):
                raise RuntimeError(f"llama.cpp could not make {name} of {folder / GGUF}")
    return out


def genai(folder: Path) -> Path:
    """onnxruntime-genai's int4 graph, as its own builder makes it, from float32 as all others."""
    out = folder / "peers" / "genai-int4"
    if not (out / "genai_config.json").exists():
        builder = children.python("-m", "onnxruntime_genai.models.builder")
        options = ["-i", folder, "-o", out, "-p", "int4", "-e", "cpu",
                   "-c", folder / "peers" / "scratch",
                   "--extra_options", "int4_accuracy_level=4"]  # fmt: skip
        command = [*builder, *map(str, options)]
        done = subprocess.run(command, capture_output=True, text=True, env=children.environment())
        if done.returncode:
            said = done.stderr.strip().splitlines() or ["it said nothing"]
            raise RuntimeError(f"onnxruntime-genai's builder failed: {said[-1]}")
    return out


def has_genai() -> bool:
    """Whether onnxruntime-genai, and what its builder needs, is installed."""
    return shape.installed("onnxruntime_genai", "onnx_ir")


def has_llama_cpp() -> bool:
    """Whether llama.cpp is installed."""
    return shape.installed("llama_cpp")

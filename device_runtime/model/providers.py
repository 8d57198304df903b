"""A graph on an execution provider: ONNX Runtime's sessions, and what is asked of them."""

from __future__ import annotations

import re
from pathlib import Path

import onnxruntime as ort

from device_runtime.model.bundle import BundleError
from device_runtime.model.threads import Setting

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "xnnpack": "XnnpackExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "qnn": "QNNExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
}


def check_version(least: str | None) -> None:
    """Raises BundleError where this onnxruntime is older than what a bundle needs."""
    if least is not None and _release(ort.__version__) < _release(least):
        raise BundleError(
            f"this bundle needs onnxruntime {least} or newer, as older ones see one token too many"
            f" in a sliding window; this is {ort.__version__}: pip install -U onnxruntime"
        )


def _release(version: str) -> tuple[int, ...]:
    """The numbers of a version; what follows them, of a build of one's own, does not count."""
    found = re.match(r"[0-9]+(\.[0-9]+)*", version)
    return tuple(map(int, found[0].split("."))) if found else ()


def session(path: Path, provider: str, setting: Setting, kind: str) -> ort.InferenceSession:
    """The graph on an execution provider. Raises BundleError."""
    present = [name for name, ep in PROVIDERS.items() if ep in ort.get_available_providers()]
    if provider not in present:
        raise BundleError(
            f"this onnxruntime has no execution provider {provider!r}; it has {', '.join(present)}"
        )
    options = ort.SessionOptions()
    options.intra_op_num_threads = setting.threads
    # Threads spin between the nodes of a forward, which a sleep each time would slow by some 10%,
    # and stop at its end: they would burn a core while the device waits for a verdict.
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(setting.spins)))
    options.add_session_config_entry("session.force_spinning_stop", "1")
    # And rest between two looks, up to 16 times as long: 2% less time where cores share something.
    options.add_session_config_entry("session.intra_op.spin_backoff_max", "16")
    options.log_severity_level = 4  # what fails is raised, and need not be printed as well
    # All that is left to fold in a graph for CPUs is the table's second shape, which would be a
    # copy of it; in one of fixed shapes a transposed table is, and would be made in every forward.
    unwanted = [] if kind == "static" else ["ConstantFolding"]
    try:
        made = ort.InferenceSession(
            str(path), options, providers=[PROVIDERS[provider]], disabled_optimizers=unwanted
        )
    except Exception as error:  # onnxruntime's exceptions have no common base
        raise BundleError(f"onnxruntime cannot load {path}: {error}") from None
    if made.get_providers()[0] != PROVIDERS[provider]:
        # Its libraries or its hardware are missing: onnxruntime would go on with the CPU.
        raise BundleError(
            f"the execution provider {provider!r} does not start on this machine; install what it"
            " needs, or use 'cpu'"
        )
    return made

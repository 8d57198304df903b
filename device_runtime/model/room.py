"""Whether a bundle's KV cache fits here, and the memory for it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from device_runtime.model import pages
from device_runtime.model.bundle import Bundle, BundleError, Manifest


def check(bundle: Bundle) -> None:
    """Raises BundleError where a KV cache is more than this machine's memory."""
    manifest = bundle.manifest
    entries = _entries(manifest)
    entries += sum(count * (count + manifest.context) for count in manifest.buckets)  # the masks
    has = pages.memory()
    if manifest.graph != "portable" and has is not None and 4 * entries > has:
        raise BundleError(
            f"the KV cache of {bundle.path} takes {4 * entries / 1e9:.3g} GB, and this machine has"
            f" {has / 1e9:.3g}; export it with a smaller --context"
        )


def caches(manifest: Manifest) -> list[NDArray[np.float32]]:
    """Keys and values of each layer, (1, kv heads, context, head size); taken as they are filled.

    Raises BundleError where the system does not even promise as much: a process may have a limit
    of its own, or a system be set to promise no more than it has.
    """
    shape = (1, manifest.kv_heads, manifest.context, manifest.head_dim)
    try:
        return list(pages.zeros(2 * manifest.layers, *shape))
    except (OSError, MemoryError, ValueError, OverflowError):
        raise BundleError(
            f"this process is not given the {4 * _entries(manifest) / 1e9:.3g} GB for a KV cache of"
            f" {manifest.context} tokens; export the draft with a smaller --context, or raise the"
            " limit (ulimit -v)"
        ) from None


def _entries(manifest: Manifest) -> int:
    """Numbers in the KV cache of a whole context."""
    return 2 * manifest.layers * manifest.kv_heads * manifest.head_dim * manifest.context

"""How much memory there is, and of it for KV caches."""

from __future__ import annotations

import os
from pathlib import Path

import torch

SHARES = {"cuda": 0.75, "cpu": 0.5}  # of what is free once the model is loaded; the rest is for
# what a step computes, and on a CPU for everything else that runs there
_CGROUP = Path("/sys/fs/cgroup")


def for_caches(device: torch.device) -> int:
    """Bytes that KV caches may take by default: a share of what is free where the model is."""
    return max(1, int(SHARES.get(device.type, SHARES["cpu"]) * free(device)))


def free(device: torch.device) -> int:
    """Bytes that this process can still have there."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else _free_bytes()


def _free_bytes() -> int:
    """Bytes that this process can still have, by the machine and by its control group."""
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                free = min(free, int(line.split()[1]) * 1024)
        limit, used = ((_CGROUP / f"memory.{name}").read_text() for name in ("max", "current"))
        if limit.strip() != "max":
            free = min(free, int(limit) - int(used))
    except (OSError, ValueError, IndexError):  # not Linux, or no such group
        pass
    return free

"""Ports that cannot be listened on: why, and who has them."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

from draftlink.host.plain import printable

LISTENS = "0A"  # a state of /proc/net/tcp


class PortError(OSError):
    """A port that cannot be listened on; its words name the port, and who has it."""


def refused(host: str, port: int, error: OSError, option: str = "--port") -> PortError:
    """What to say where ``host:port`` could not be bound; ``option`` chooses another."""
    if error.errno == errno.EADDRINUSE:
        owner = holder(port)
        by = "" if owner is None else f" by {owner}"
        return PortError(f"port {port} of {host} is taken{by}; choose another {option}, or 0")
    if error.errno == errno.EACCES:
        return PortError(
            f"port {port} of {host} needs the administrator's rights, as those below 1024 do;"
            f" choose another {option}"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return PortError(f"{host} is no address of this machine; choose another --host")
    why = error.strerror or error
    return PortError(f"{host}:{port} cannot be listened on ({why}); choose another {option}")


def holder(port: int) -> str | None:
    """Who listens on a port of this machine, as ``python (process 12)``; None where none is seen.

    By Linux's /proc; of other users' processes only the administrator sees which they are.
    """
    inodes = set[str]()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(OSError, ValueError, IndexError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == LISTENS and int(fields[1].rpartition(":")[2], 16) == port:
                    inodes.add(f"socket:[{fields[9]}]")
    if not inodes:
        return None
    with suppress(OSError):
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if any(os.readlink(handle) in inodes for handle in (process / "fd").iterdir()):
                    name = (process / "comm").read_text().strip()
                    return f"{printable(name, 40)} (process {process.name})"
    return "another user's process"

"""Run the code blocks of a page as a reader would, in a network and a folder of their own.

    python tests/run_snippets.py PAGE...

Servers (``bs``, ``serve``, ``link``) run beside what follows them on the page, as in a terminal of
their own. Raises where a command fails. Ports are those of the text: on Linux each run has its own
network, so that nobody has them.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.snippets import Block, blocks

SERVERS = {"bs": "listening on ", "serve": "serving ", "link": "listening on "}
LIMIT_S = 400


def own_network() -> list[str]:
    """The beginning of a command that has a network of its own; nothing where there is none."""
    prefix = ["unshare", "-n", "sh", "-c", 'ip link set lo up && exec "$0" "$@"']
    if not shutil.which("unshare") or not shutil.which("ip"):
        return []
    tried = subprocess.run([*prefix, "true"], capture_output=True, check=False)
    return prefix if tried.returncode == 0 else []


@contextmanager
def terminals() -> Iterator[Callable[[str], None]]:
    """A function that runs a line of shell; servers run on until the block ends."""
    servers: dict[str, subprocess.Popen[str]] = {}

    def run(line: str) -> None:
        begun = time.monotonic()
        words = line.split()
        name = words[1] if words[0] == "draftlink" and len(words) > 1 else ""
        if name in SERVERS:
            if name in servers:  # the page begins anew
                end(servers.pop(name))
            server = subprocess.Popen(f"exec {line}", shell=True, stdout=subprocess.PIPE, text=True)
            servers[name] = server
            assert server.stdout is not None
            said = server.stdout.readline()
            if not said.startswith(SERVERS[name]):
                raise RuntimeError(f"{line}: it said {said!r}")
        else:
            subprocess.run(line, shell=True, check=True, timeout=LIMIT_S)
        print(f"{time.monotonic() - begun:6.1f} s  {line}", file=sys.stderr, flush=True)

    try:
        yield run
    finally:
        for server in servers.values():
            end(server)


def end(server: subprocess.Popen[str]) -> None:
    """End a server, and take what it still says."""
    server.terminate()
    server.communicate(timeout=40)


def run_page(found: list[Block], kinds: tuple[str, ...]) -> int:
    """Run a page's blocks; how many there were."""
    count = 0
    with terminals() as run:
        for block in found:
            if block.mark != "run" or block.reason not in kinds:
                continue
            count += 1
            if block.language == "python":
                Path("snippet.py").write_text(as_program(block.text))
                run(f"{sys.executable} snippet.py")
            else:
                for line in block.commands:
                    run(line)
    return count


def as_program(text: str) -> str:
    """Python as it stands on the page; what awaits is put into a coroutine."""
    if "async with" not in text:
        return text
    inside = "".join(f"    {line}\n" for line in text.splitlines())
    return f"import asyncio\n\nasync def main():\n{inside}\nasyncio.run(main())\n"


if __name__ == "__main__":
    for page in sys.argv[1:]:
        of_page = [block for block in blocks() if block.page == page]
        # On a line of its own: what was run may have ended within one.
        print(f"\n{run_page(of_page, ('pair', 'plain'))}")

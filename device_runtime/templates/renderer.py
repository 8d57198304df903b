"""The process that runs a chat template: ``python -m device_runtime.templates.renderer``.

A template is a program of whoever made the model. Jinja's sandbox keeps it from files, modules and
what objects hide, but not from taking all memory and time (``range(10**9)``, ``"a" * 10**10``,
``10 ** 10 ** 9``), which C code does where no instrument looks. So it runs here: the operating
system limits the memory, and the parent the time, by ending the process.

On stdin and stdout messages go as 8 bytes of length and JSON. One says that the process is there;
then the template is asked, and one chat after another, with an answer to each. What a template sees
is what transformers gives it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import IO, Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

LENGTH = 8  # bytes
MEMORY = 1 << 29  # bytes of addresses; Python and Jinja take some 50 MB of them
LONGEST = 1 << 22  # characters of a rendered chat, several times what any context holds


class _Generation(Extension):
    """``{% generation %}`` marks what the assistant says, for training; here it is only that."""

    tags = {"generation"}  # noqa: RUF012, as Jinja wants it

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        """The body as it is."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON that is text, where Jinja's own filter makes HTML of it."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def compiled(source: str) -> jinja2.Template:
    """A template in the environment that transformers makes. Raises TemplateError."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment.from_string(source)


def rendered(template: jinja2.Template, values: dict[str, Any], longest: int = LONGEST) -> str:
    """The text that a template makes of ``values``. Raises ValueError where it is too long."""
    parts: list[str] = []
    size = 0
    for part in template.generate(values):
        size += len(part)
        if size > longest:
            raise ValueError(f"it writes more than {longest} characters")
        parts.append(part)
    return "".join(parts)


def read(stream: IO[bytes]) -> Any:
    """The next message. Raises EOFError where there is none."""
    head = stream.read(LENGTH)
    size = int.from_bytes(head, "little")
    data = stream.read(size) if len(head) == LENGTH else b""
    if len(head) < LENGTH or len(data) < size:
        raise EOFError
    return json.loads(data)


def write(stream: IO[bytes], message: Any) -> None:
    """Send a message."""
    data = json.dumps(message).encode()
    stream.write(len(data).to_bytes(LENGTH, "little") + data)
    stream.flush()


def _limit_memory() -> None:
    """Have no more than MEMORY, where the system knows such limits; Windows does not."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def _answer(work: Callable[[], Any]) -> Any:
    """What comes of ``work``, as a message: whatever a template does, the next has an answer."""
    try:
        return {"text": work()}
    except MemoryError:
        return {"error": "it takes too much memory"}
    except Exception as error:
        return {"error": str(error) or type(error).__name__}


def main() -> None:
    """Answer until nobody asks."""
    _limit_memory()
    asked, said = sys.stdin.buffer, sys.stdout.buffer
    write(said, {"text": ""})
    source = read(asked)
    made: list[jinja2.Template] = []

    def make() -> str:
        made.append(compiled(source))
        return ""

    write(said, _answer(make))
    with suppress(EOFError):
        while made:
            values = read(asked)
            write(said, _answer(partial(rendered, made[0], values)))


if __name__ == "__main__":
    main()

"""What a device says first, and hears first."""

from __future__ import annotations

from typing import TypeVar

from msgspec.structs import replace

from device_runtime.transport.connecting import LinkError
from draftlink import __version__, schemes
from draftlink.host.plain import printable
from draftlink.protocol import frames

NAME = 200  # characters of a name that are kept
T = TypeVar("T", bound=frames.Frame)


def hello(tokenizer_hash: str, vocab_size: int, ticket: bytes) -> frames.Hello:
    """The first frame of a connection: all schemes, versions and features of this device."""
    return frames.Hello(
        frames.VERSION,
        tokenizer_hash,
        vocab_size,
        list(schemes.BY_NAME),
        f"draftlink/{__version__}",
        ticket,
        frames.LOWEST,
        list(frames.FEATURES),
    )


def readable(welcome: frames.Welcome) -> frames.Welcome:
    """The same, with names that can be shown: they are the base station's, and may be anything."""
    model, dtype = printable(welcome.model, NAME), printable(welcome.dtype, NAME)
    return replace(welcome, model=model, dtype=dtype)


def differs(before: frames.Welcome, now: frames.Welcome) -> bool:
    """Whether it is another target: a ticket is new each time, and times are the last steps'."""
    same = replace(before, ticket=now.ticket, step_us=now.step_us, row_us=now.row_us)
    return same != now


def checked(frame: frames.Frame, kind: type[T]) -> T:
    """A frame that the protocol says is a ``kind``. Raises LinkError."""
    if not isinstance(frame, kind):
        raise LinkError(f"the base station sent {type(frame).__name__}, not {kind.__name__}")
    return frame

"""A model's chat template: from the turns of a chat to the text that the model goes on from."""

from __future__ import annotations

import asyncio
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from device_runtime.templates import renderer
from draftlink.host import children
from draftlink.host.plain import printable

WITHIN_S = 2.0  # of rendering: the longest chats take some milliseconds
STARTED_S = 30.0  # of starting a Python, on the slowest of machines
MOST_SAID = 300  # characters of what a template says of an error

Turn = Mapping[str, Any]  # ``role``, ``content`` and what else the template knows


class TemplateError(ValueError):
    """A template makes nothing of these turns; the text says why, in one line."""


class Template:
    """A chat template, in a process of its own that is started when it is first needed.

    ``source`` is Jinja; ``tokens`` are those that it may name, such as ``bos_token``. Used from any
    thread; ``close`` ends the process.
    """

    def __init__(
        self, source: str, tokens: Mapping[str, str], *, within_s: float = WITHIN_S
    ) -> None:
        self._source, self._tokens, self._within_s = source, dict(tokens), within_s
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def render(
        self, turns: Sequence[Turn], *, answers: bool = True, more: Mapping[str, Any] | None = None
    ) -> str:
        """The text of ``turns``; with ``answers`` up to where the assistant's next turn begins.

        ``more``: other variables for the template, such as ``enable_thinking``. Raises
        TemplateError.
        """
        values = {
            "tools": None,
            "documents": None,
            **self._tokens,
            **(more or {}),
            "messages": list(turns),
            "add_generation_prompt": answers,
        }
        with self._lock:
            self._start()
            return self._ask(values, self._within_s)

    async def rendering(
        self, turns: Sequence[Turn], *, answers: bool = True, more: Mapping[str, Any] | None = None
    ) -> str:
        """``render``, while the event loop goes on."""
        return await asyncio.to_thread(self.render, turns, answers=answers, more=more)

    def start(self) -> None:
        """Start the process now, so that the first chat need not wait. Raises TemplateError."""
        with self._lock:
            self._start()

    def close(self) -> None:
        """End the process; the next chat would start another."""
        with self._lock:
            self._end()

    def _start(self) -> None:
        if self._process is not None:
            return
        self._process = subprocess.Popen(
            children.python("-m", renderer.__name__),
            env=children.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for who asks
        )
        self._ask(None, STARTED_S)
        try:  # it reckons while it is compiled, too
            self._ask(self._source, self._within_s)
        except TemplateError:
            self._end()
            raise

    def _ask(self, message: Any, within_s: float) -> str:
        """The next answer of the process, to a ``message``; it ends where it has none in time."""
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        late = threading.Event()

        def end() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(within_s, end)
        timer.start()
        try:
            if message is not None:
                renderer.write(process.stdin, message)
            answer = renderer.read(process.stdout)
            text = answer.get("text")
        except (EOFError, OSError, ValueError, AttributeError):
            self._end()
            why = f"it took over {within_s:g} s" if late.is_set() else "its process has ended"
            raise _error(why) from None
        finally:
            timer.cancel()
        if not isinstance(text, str):
            raise _error(str(answer.get("error")))
        return text

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(OSError):  # what was not yet written to it
                    pipe.close()


def _error(why: str) -> TemplateError:
    return TemplateError(
        f"the model's chat template makes nothing of these messages: {printable(why, MOST_SAID)}"
    )

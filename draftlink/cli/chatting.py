"""A conversation in the terminal: what is typed, what is answered, and how the link is."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec
from prompt_toolkit import PromptSession
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

from device_runtime.conversation import Conversation
from device_runtime.generation import Generation
from device_runtime.request import Options
from device_runtime.result import Result
from device_runtime.talk import Talk
from draftlink.cli import common, output
from draftlink.host import files
from draftlink.host.folders import user_path
from draftlink.host.plain import printable

HELP = """\
/bye            end (as does Ctrl-D)
/reset          forget what was said
/system TEXT    what stands before it, from the next answer on; nothing clears it
/save FILE      the conversation as JSON
/stats          what the last answer took
Alt-Enter       a new line; so does a backslash at a line's end
Ctrl-C          end an answer where it is"""
OFTEN = 2  # times that Ctrl-C is pressed until an answer that cannot end is given up


class Chatting:
    """One conversation, until it is ended."""

    def __init__(self, talk: Talk, conversation: Conversation, options: Options) -> None:
        self._talk, self._conversation, self._options = talk, conversation, options
        self._result: Result | None = None
        self._kinds: Counter[str] = Counter()

    async def run(self, model: str) -> None:
        """Ask and answer. Raises LinkError where the base station is lost for good."""
        on_terminal = sys.stdin.isatty() and sys.stdout.isatty()
        lines = _typed() if on_terminal else _piped()
        if on_terminal:
            _say(f"talking with {printable(model)}; /help says what may be typed")
        async for line in lines:
            text = line.strip()
            if not text:
                continue
            if text == "/bye":
                break
            if text.startswith("/"):
                self._command(*text[1:].partition(" ")[::2])
            else:
                await self._answer(text)

    def _command(self, name: str, rest: str) -> None:
        rest = rest.strip()
        if name == "help":
            common.err.print(HELP, style="dim", markup=False, highlight=False)
        elif name == "reset":
            self._talk.reset()
            _say("what was said is forgotten")
        elif name == "system":
            self._talk.system = rest
            _say("that stands first from now on" if rest else "nothing stands first any more")
        elif name == "save" and rest:
            self._save(Path(rest).expanduser())
        elif name == "stats":
            self._stats()
        else:
            _say(f"there is no /{printable(name, 40)} like that; /help says what there is")

    def _save(self, path: Path) -> None:
        turns = [{"role": "system", "content": self._talk.system}] * bool(self._talk.system)
        try:
            data = msgspec.json.encode([*turns, *self._talk.turns])
            files.write(path, msgspec.json.format(data) + b"\n")
            _say(f"saved to {printable(str(path))}")
        except (OSError, ValueError) as error:  # FileError is one
            _say(f"not saved: {printable(str(error))}")

    def _stats(self) -> None:
        if self._result is None:
            _say("nothing has been answered yet")
            return
        for name in ("mode", "scheme", "seed", "prompt_tokens", "target_cached_tokens", "rounds",
                     "drafted", "accepted", "alpha", "ttft_s", "tpot_s", "tokens_per_s",
                     "uplink_bytes", "downlink_bytes", "reconnects"):  # fmt: skip
            value = getattr(self._result, name)
            _say(f"{name:22}{value:.3g}" if isinstance(value, float) else f"{name:22}{value}")

    async def _answer(self, text: str) -> None:
        try:
            generation = await self._talk.say(text, **self._options)
        except ValueError as error:  # TemplateError is one
            _say(printable(str(error)))
            return
        self._kinds.clear()
        try:
            async with self._interrupted(generation), self._watched():
                await self._show(generation)
        finally:
            self._talk.heard(generation)
        if generation.over and generation.text:
            with suppress(RuntimeError):  # it was given up
                self._result = generation.result
                _say(self._status(generation, self._result))

    async def _show(self, generation: Generation) -> None:
        shown = 0
        try:
            async for token in generation:
                self._kinds[token.kind] += 1
                output.write(common.out, token.text, output.COLOURS[token.kind])
                shown += len(token.text)
        finally:
            output.write(common.out, generation.text[shown:], "default")
            output.write(common.out, "\n", "default")

    def _status(self, generation: Generation, result: Result) -> str:
        kinds = self._kinds
        written = kinds["bonus"] + kinds["stream"]
        parts = [
            f"drafted {kinds['draft']}, corrected {kinds['correction']}, written {written}",
            f"accepted {result.alpha:.0%}",
            f"{result.tokens_per_s:.0f} tokens/s",
            f"RTT {1e3 * generation.estimates.rtt.typical:.0f} ms",
        ]
        return "; ".join(parts)

    @asynccontextmanager
    async def _interrupted(self, generation: Generation) -> AsyncIterator[None]:
        """During the block Ctrl-C ends the answer where it is."""
        task, presses = asyncio.current_task(), 0
        assert task is not None
        given_up = False

        def press() -> None:
            nonlocal presses, given_up
            presses += 1
            generation.cancel()
            if presses >= OFTEN:
                given_up = True
                task.cancel()

        loop = asyncio.get_running_loop()
        with suppress(NotImplementedError):  # on Windows it ends the command
            loop.add_signal_handler(signal.SIGINT, press)
        try:
            yield
        except asyncio.CancelledError:
            if not given_up:
                raise
            task.uncancel()
        finally:
            with suppress(NotImplementedError):
                loop.remove_signal_handler(signal.SIGINT)

    @asynccontextmanager
    async def _watched(self) -> AsyncIterator[None]:
        """During the block a lost link is told at once, and so is its return."""
        watch = asyncio.create_task(output.watched(self._conversation))
        try:
            yield
        finally:
            watch.cancel()
            with suppress(asyncio.CancelledError):
                await watch


async def _typed() -> AsyncIterator[str]:
    """What is typed, until Ctrl-D."""
    session: PromptSession[str] = PromptSession(
        history=_history(), key_bindings=_keys(), multiline=True
    )
    while True:
        try:
            yield await session.prompt_async("> ")
        except KeyboardInterrupt:
            _say("/bye or Ctrl-D ends the conversation")
        except EOFError:
            return


def _keys() -> KeyBindings:
    """Enter sends what is typed, but behind a backslash; Alt-Enter begins a line."""
    keys = KeyBindings()

    @keys.add("enter")
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.document.text_before_cursor.endswith("\\"):
            buffer.delete_before_cursor()
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return keys


def _history() -> History:
    """What was typed before, in the user's state; in memory where there is no place for it."""
    path = user_path("XDG_STATE_HOME", ".local/state", "chat-history")
    if path is not None:
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
            return FileHistory(str(path))
    return InMemoryHistory()


async def _piped() -> AsyncIterator[str]:
    """Lines of a pipe or a file."""
    while line := await asyncio.to_thread(sys.stdin.buffer.readline):
        yield line.decode("utf-8", "replace")


def _say(line: str) -> None:
    common.err.say(line, "dim")

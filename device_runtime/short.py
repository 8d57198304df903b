"""The short forms: a text or a chat in one line, from a script or a notebook, without asyncio.

The device's event loop runs in a thread of its own, so that they work where one is running already.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Unpack, overload

from device_runtime.device import Device
from device_runtime.generation import Generation
from device_runtime.model.bundle import Bundle, load_bundle
from device_runtime.request import Options
from device_runtime.result import Result
from device_runtime.streams import Loop, Stream
from device_runtime.talk import NO_TEMPLATE, Talk
from device_runtime.templates.template import Template


@overload
def generate(
    bundle: str | Path | Bundle,
    url: str,
    prompt: str | Sequence[int],
    *,
    stream: Literal[False] = False,
    token: str | None = None,
    ca: str | Path | None = None,
    insecure: bool = False,
    **options: Unpack[Options],
) -> Result: ...


@overload
def generate(
    bundle: str | Path | Bundle,
    url: str,
    prompt: str | Sequence[int],
    *,
    stream: Literal[True],
    token: str | None = None,
    ca: str | Path | None = None,
    insecure: bool = False,
    **options: Unpack[Options],
) -> Stream: ...


def generate(
    bundle: str | Path | Bundle,
    url: str,
    prompt: str | Sequence[int],
    *,
    stream: bool = False,
    token: str | None = None,
    ca: str | Path | None = None,
    insecure: bool = False,
    **options: Unpack[Options],
) -> Result | Stream:
    """One text: the short form of ``Device.generate``, whose ``options`` it takes.

    With ``stream`` it is returned at once, to be iterated over while it is written. The others are
    those of ``Device``. Raises BundleError, LinkError, ValueError, TypeError.
    """
    device = Device(bundle, url, token=token, ca=ca, insecure=insecure)
    loop = Loop()

    async def begin() -> Generation:
        await device.open()
        try:
            return device.generate(prompt, **options)
        except BaseException:
            await device.close()
            raise

    async def ended(_: Generation) -> None:
        await device.close()
        loop.call(asyncio.get_running_loop().stop)

    try:
        written = Stream(loop, loop.run(begin()), ended, loop.close)
    except BaseException:
        loop.close()
        raise
    if stream:
        return written
    try:
        for _ in written:
            pass
    except KeyboardInterrupt:
        written.close()
        raise
    return written.result


class Chat:
    """Made by ``chat``: say something, get the answer. It ends with ``close`` or a ``with`` block.

    ``turns`` are OpenAI's messages so far.
    """

    def __init__(
        self, device: Device, template: Template, system: str, options: Options, loop: Loop
    ) -> None:
        self._device, self._template, self._options, self._loop = device, template, options, loop
        self._talk: Talk
        self._system = system

    async def _open(self) -> None:
        await self._device.open()
        own = self._device.own
        self._talk = Talk(own, self._device.tokenizer, self._template, self._system)

    @overload
    def say(
        self, text: str, *, stream: Literal[False] = False, **options: Unpack[Options]
    ) -> str: ...

    @overload
    def say(self, text: str, *, stream: Literal[True], **options: Unpack[Options]) -> Stream: ...

    def say(self, text: str, *, stream: bool = False, **options: Unpack[Options]) -> str | Stream:
        """The answer to ``text``; with ``stream`` to be iterated over while it is written.

        ``options`` go before those that the chat was made with. Raises TemplateError, LinkError,
        ValueError.
        """
        if not isinstance(text, str):
            raise TypeError(f"text must be a str, not {type(text).__name__}")
        said: Options = {**self._options, **options}
        generation = self._loop.run(self._talk.say(text, **said))

        async def ended(heard: Generation) -> None:
            self._talk.heard(heard)

        written = Stream(self._loop, generation, ended)
        if stream:
            return written
        for _ in written:
            pass
        return written.text

    @property
    def turns(self) -> list[dict[str, Any]]:
        """What was said."""
        return self._talk.turns

    def reset(self) -> None:
        """Forget what was said."""
        self._talk.reset()

    def close(self) -> None:
        """Leave the base station."""
        self._loop.run(self._device.close())
        self._template.close()
        self._loop.close()

    def __enter__(self) -> Chat:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def chat(
    bundle: str | Path | Bundle,
    url: str,
    *,
    system: str = "",
    template: str | Template | None = None,
    token: str | None = None,
    ca: str | Path | None = None,
    insecure: bool = False,
    **options: Unpack[Options],
) -> Chat:
    """A chat with the target: ``draftlink.chat("draft", "ws://...").say("Hello")``.

    ``template``: Jinja, instead of the bundle's own. ``options`` are those of ``Device.generate``,
    for every answer. Raises BundleError, LinkError, ValueError, TypeError.
    """
    loaded = load_bundle(Path(bundle)) if isinstance(bundle, str | Path) else bundle
    device = Device(loaded, url, token=token, ca=ca, insecure=insecure)
    if isinstance(template, str):
        template = Template(template, loaded.tokens())
    template = template or loaded.template()
    if template is None:
        raise ValueError(NO_TEMPLATE)
    made = Chat(device, template, system, options, Loop())
    try:
        made._loop.run(made._open())
    except BaseException:
        made._loop.close()
        raise
    return made

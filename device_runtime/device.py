"""The device's public face: open a bundle, generate with a base station's help.

async with Device(bundle, "ws://127.0.0.1:8765") as device:
    generation = device.generate("Once upon a time")
    async for token in generation:
        print(token.text, end="")
    print(generation.result)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from tokenizers import Tokenizer

from device_runtime.drafting.drafter import Model
from device_runtime.drafting.estimators import Acceptance, Estimates
from device_runtime.drafting.temperature import DraftTemperature
from device_runtime.generation import Generation
from device_runtime.model.bundle import Bundle, load_bundle
from device_runtime.model.draft_model import DraftModel
from device_runtime.request import Models, Request, check
from device_runtime.result import Mode, Result
from device_runtime.text import Detokenizer
from device_runtime.transport.client import Client
from device_runtime.transport.connecting import Connect, LinkError, connect_websocket, connector
from device_runtime.transport.patience import PATIENCE_S
from device_runtime.transport.silence import Deadlines
from device_runtime.writers.writing import Writer
from draftlink.distribution.sampling import Sampling
from draftlink.schemes import AnyScheme
from draftlink.schemes.coupled import Coupled
from draftlink.schemes.dense import Dense
from draftlink.schemes.split import Split
from draftlink.schemes.topk import TopK

__all__ = ["Coupled", "Dense", "Device", "LinkError", "Result", "Sampling", "Split", "TopK"]


class Device:
    """A draft model and a connection. One generation at a time; the history outlives it."""

    def __init__(
        self,
        bundle: str | Path | Bundle,
        url: str,
        *,
        provider: str = "cpu",
        threads: int | None = None,
        token: str | None = None,
        ca: Path | None = None,
        insecure: bool = False,
    ) -> None:
        """Load the bundle; the connection is made by ``open``.

        ``threads``: measured if not given. ``token``: the base station's, if it wants one; ``ca``:
        certificates that ``wss`` trusts; ``insecure``: the token may cross a network in clear.
        Raises BundleError, ValueError.
        """
        loaded = bundle if isinstance(bundle, Bundle) else load_bundle(Path(bundle))
        model = DraftModel(loaded, provider=provider, threads=threads)
        self._setup(
            model,
            loaded.tokenizer(),
            url,
            loaded.manifest.tokenizer_hash,
            loaded.manifest.vocab_size,
            loaded.manifest.context,
            tuple(loaded.manifest.eos_token_ids),
        )
        self._connect: Connect = connector(token, ca, insecure=insecure)
        self._rest: Callable[[], None] | None = model.rest

    @classmethod
    def from_parts(
        cls,
        model: Model,
        tokenizer: Tokenizer,
        url: str,
        *,
        tokenizer_hash: str,
        vocab_size: int,
        context: int,
        eos_ids: tuple[int, ...],
        connect: Connect = connect_websocket,
    ) -> Device:
        """A device over any model with ``length``, ``forward`` and ``rollback``.

        ``eos_ids`` end a text where the target's files name none. ``connect`` makes the connection
        to ``url``.
        """
        device = cls.__new__(cls)
        device._setup(model, tokenizer, url, tokenizer_hash, vocab_size, context, eos_ids)
        device._connect = connect
        device._rest = None
        return device

    def _setup(
        self,
        model: Model,
        tokenizer: Tokenizer,
        url: str,
        tokenizer_hash: str,
        vocab_size: int,
        context: int,
        eos_ids: tuple[int, ...],
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.detokenizer = Detokenizer(tokenizer)
        self.history: list[int] = []
        self._eos_ids = eos_ids
        self.draft_context = context
        self.executor: Executor = ThreadPoolExecutor(1, thread_name_prefix="draft")
        self._url = url
        self.patience_s = PATIENCE_S  # how long a lost base station is looked for
        self.deadlines = Deadlines()
        self._resting: asyncio.Future[None] | None = None
        self._tokenizer_hash = tokenizer_hash
        self._vocab_size = vocab_size
        self._client: Client | None = None
        self.held: list[int] = []
        self._learned: dict[float, DraftTemperature] = {}  # by the request's temperature
        self._estimates = Estimates()
        self._acceptance: dict[tuple[AnyScheme, Sampling], Acceptance] = {}
        self.generation: Writer | None = None  # the last that has begun
        self.beginning = asyncio.Lock()

    async def open(self) -> Device:
        """Connect and greet. Raises LinkError."""
        client = Client(
            self._url,
            self._tokenizer_hash,
            self._vocab_size,
            self._connect,
            self.patience_s,
            self.deadlines,
        )
        client.history = self.history
        await client.open()
        self._estimates.rtt.add(client.rtt_s)
        self._client = client
        return self

    async def close(self) -> None:
        """Close the connection."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()
        self.executor.shutdown(wait=False)

    async def __aenter__(self) -> Device:
        return await self.open()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def client(self) -> Client:
        """The open connection. Raises LinkError before ``open``."""
        if self._client is None:
            raise LinkError("the device is not connected; use `async with Device(...)`")
        return self._client

    def generate(
        self,
        prompt: str | Sequence[int],
        *,
        max_tokens: int = 128,
        sampling: Sampling | Literal["target"] | None = None,
        scheme: AnyScheme | None = None,
        mode: Mode = "auto",
        gamma: int | None = None,
        seed: int | None = None,
        stop: str | Sequence[str] = (),
        eos_ids: Sequence[int] | None = None,
        suppressed_ids: Sequence[int] | None = None,
        append: bool = False,
        learn_temperature: bool = False,
        offline_after_s: float | None = None,
    ) -> Generation:
        """Generate after ``prompt``; with ``append``, after the history and ``prompt``.

        What ``prompt`` has in common with the history is in both caches, and is not fed again: a
        conversation can be given whole at each turn. As text it keeps the ids of what was written,
        also where the tokenizer would encode that otherwise. The first turn begins as the target's tokenizer begins a text, unless ``prompt`` begins so
        or is ids, which are taken as they are. ``sampling``: ``"target"`` is what the target's
        files suggest. ``eos_ids`` end the text, and ``suppressed_ids`` are never written; None
        stands for those that the target's files name, and () for none.
        ``mode``: ``auto`` measures, and drafts in turns (``stop-and-wait``), drafts on while
        verdicts are under way (``run-ahead``) or lets the target write (``stream``). ``gamma``:
        tokens drafted a round of stop-and-wait; None follows the measured acceptance and costs.
        ``seed``: greedy and ``coupled`` texts depend on nothing else; others are the same again
        where each token is drawn at the same end, so with a fixed mode and ``gamma``.
        ``stop``: the text ends before this string, or the first of these; nothing of it is shown.
        ``learn_temperature``: the draft's temperature follows the verdicts (one byte down per
        token). ``offline_after_s``: after so many seconds without a word from the base station the
        draft goes on alone, with provisional tokens (see ``Token``). Raises ValueError for
        parameters or prompts that cannot work.
        """
        return self._generation(
            check(
                self._models(),
                self._standing(),
                prompt,
                max_tokens=max_tokens,
                sampling=sampling,
                scheme=scheme,
                mode=mode,
                gamma=gamma,
                seed=seed,
                stop=stop,
                eos_ids=eos_ids,
                suppressed_ids=suppressed_ids,
                append=append,
                learn_temperature=learn_temperature,
                offline_after_s=offline_after_s,
            )
        )

    def _models(self) -> Models:
        welcome = self.client.welcome
        return Models(self.tokenizer, self.detokenizer, self._vocab_size, self._eos_ids, welcome)

    def _standing(self) -> list[int]:
        """The history; behind a generation that was left midway, what that has returned."""
        last = self.generation
        return self.history if last is None or last.over else self.history[: last.stands]

    def _generation(self, request: Request) -> Generation:
        """A generation that has not begun."""
        learned = None
        if request.learn_temperature and not request.sampling.greedy:
            learned = self._learned.setdefault(
                request.sampling.temperature, DraftTemperature(request.sampling.temperature)
            )
        estimates = replace(
            self._estimates,
            acceptance=self._acceptance.setdefault(
                (request.scheme, request.sampling), Acceptance()
            ),
        )
        return Generation(self, request, estimates, learned)

    async def take_over(self, generation: Writer) -> None:
        """A generation begins; nothing is left under way of one whose iterator was abandoned."""
        if self.generation is not None:
            await self.generation.leave()
        if self._resting is not None:
            await asyncio.wait([self._resting])
        self.generation = generation

    def rest(self) -> None:
        """A generation has ended; the draft model may change how it runs before the next begins."""
        if self._rest is not None:
            loop = asyncio.get_running_loop()
            self._resting = loop.run_in_executor(self.executor, self._rest)


def generate(
    bundle: str | Path | Bundle,
    url: str,
    prompt: str,
    *,
    token: str | None = None,
    ca: Path | None = None,
    insecure: bool = False,
    **options: Any,
) -> Result:
    """One text, blocking: the short form of ``Device.generate``, whose ``options`` it takes.

    The others are those of ``Device``. Raises BundleError, LinkError, ValueError.
    """

    async def once() -> Result:
        async with Device(bundle, url, token=token, ca=ca, insecure=insecure) as device:
            generation = device.generate(prompt, **options)
            async for _ in generation:
                pass
            return generation.result

    return asyncio.run(once())

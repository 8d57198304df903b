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
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Unpack
from weakref import WeakSet

from tokenizers import Tokenizer

from device_runtime.conversation import Conversation
from device_runtime.drafting.drafter import Model
from device_runtime.drafting.estimators import Acceptance, Estimates
from device_runtime.drafting.temperature import DraftTemperature
from device_runtime.generation import Generation
from device_runtime.model.bundle import Bundle, load_bundle
from device_runtime.model.draft_model import DraftModel
from device_runtime.request import Models, Options, Request
from device_runtime.result import Result
from device_runtime.text import Detokenizer
from device_runtime.transport.client import Client
from device_runtime.transport.connecting import Connect, LinkError, connect_websocket, connector
from device_runtime.transport.patience import PATIENCE_S
from device_runtime.transport.pool import Pool
from device_runtime.transport.silence import Deadlines
from device_runtime.worker import Job, Worker
from draftlink.distribution.sampling import Sampling
from draftlink.protocol.frames import Welcome
from draftlink.schemes import AnyScheme
from draftlink.schemes.coupled import Coupled
from draftlink.schemes.dense import Dense
from draftlink.schemes.split import Split
from draftlink.schemes.topk import TopK

__all__ = ["Coupled", "Dense", "Device", "LinkError", "Result", "Sampling", "Split", "TopK"]


class Device:
    """A draft model and a base station's address, and a conversation of its own.

    ``generate``, ``history`` and ``client`` are that conversation's, which is open while the device
    is; ``conversation`` makes others beside it.
    """

    def __init__(
        self,
        bundle: str | Path | Bundle,
        url: str,
        *,
        provider: str = "cpu",
        threads: int | None = None,
        token: str | None = None,
        ca: str | Path | None = None,
        insecure: bool = False,
        pin: str | None = None,
    ) -> None:
        """Load the bundle; the connection is made by ``open``.

        ``threads``: measured if not given. ``token``: the base station's, if it wants one; ``ca``:
        certificates that ``wss`` trusts; ``insecure``: the token may cross a network in clear;
        ``pin``: the base station's key, trusted instead of certificates (``host.joining``).
        Raises BundleError, ValueError, TypeError.
        """
        if not isinstance(bundle, str | Path | Bundle):
            raise TypeError(f"bundle must be the path of a folder, not {bundle!r}")
        if not isinstance(url, str):
            raise TypeError(f"url must be an address such as ws://127.0.0.1:8765, not {url!r}")
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
            connector(token, None if ca is None else Path(ca), insecure=insecure, pin=pin),
            model.another,
            model.rest,
        )

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
        another: Callable[[], Model] | None = None,
    ) -> Device:
        """A device over any model with ``length``, ``forward`` and ``rollback``.

        ``eos_ids`` end a text where the target's files name none. ``connect`` makes the connection
        to ``url``. ``another`` makes the model once more, with a KV cache of its own, for each
        further conversation.
        """
        device = cls.__new__(cls)
        device._setup(
            model, tokenizer, url, tokenizer_hash, vocab_size, context, eos_ids, connect, another
        )
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
        connect: Connect,
        another: Callable[[], Model] | None,
        rest: Callable[[], None] | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.detokenizer = Detokenizer(tokenizer)
        self.draft_context = context
        self.patience_s = PATIENCE_S  # how long a lost base station is looked for
        self.deadlines = Deadlines()
        self.worker = Worker(ThreadPoolExecutor(1, thread_name_prefix="draft"))
        self._url, self._connect = url, connect
        self._tokenizer_hash, self._vocab_size, self._eos_ids = tokenizer_hash, vocab_size, eos_ids
        self._another, self._rest = another, rest
        self._resting: Job | None = None
        self._learned: dict[float, DraftTemperature] = {}  # by the request's temperature
        self._estimates = Estimates()
        self._acceptance: dict[tuple[AnyScheme, Sampling], Acceptance] = {}
        self.pool = Pool(self._connection)
        self._own = Conversation(self, model)
        self._conversations = WeakSet([self._own])

    def conversation(self) -> Conversation:
        """Another conversation, beside the device's own and at the same time; to be opened.

        It has a history, a draft KV cache (``kv_bytes``) and a connection of its own. All of a
        device's conversations draft in turns, with the same weights. Raises ValueError where the
        device was made of a single model.
        """
        if self._another is None:
            raise ValueError(
                "this device was made of one model, with one KV cache; tell Device.from_parts how"
                " to make another"
            )
        made = Conversation(self, self._another())
        self._conversations.add(made)
        return made

    async def open(self) -> Device:
        """Connect and greet. Raises LinkError."""
        await self._own.open()
        return self

    async def close(self) -> None:
        """Close all connections."""
        for conversation in [*self._conversations]:
            await conversation.close()
        await self.pool.close()
        self.worker.executor.shutdown(wait=False)

    async def __aenter__(self) -> Device:
        return await self.open()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def generate(self, prompt: str | Sequence[int], **options: Unpack[Options]) -> Generation:
        """Generate after ``prompt``; with ``append``, after the history and ``prompt``.

        What ``prompt`` has in common with the history is in both caches, and is not fed again: a
        conversation can be given whole at each turn. As text it keeps the ids of what was written,
        also where the tokenizer would encode that otherwise. The first turn begins as the target's
        tokenizer begins a text, unless ``prompt`` begins so or is ids, which are taken as they are.

        Options: ``max_tokens`` (128). ``sampling``: ``"target"`` is what the target's files
        suggest. ``scheme``: ``topk.usual()`` if not given. ``eos_ids`` end the text, and
        ``suppressed_ids`` are never written; None: those that the target's files name, (): none.
        ``mode``: ``both`` ends write (``auto`` with greedy or ``coupled``); else ``auto`` measures,
        and drafts in turns (``stop-and-wait``), or on (``run-ahead``), or the target writes
        (``stream``). ``gamma``: tokens of a round of stop-and-wait. ``draft_price``: where both
        write, what a drafted token must save, in tokens (.02); more spares the battery.
        ``branches``: and behind how many tokens a forward drafts (2, of a bundle that has them).
        ``seed``: greedy and ``coupled`` texts depend on nothing else; others are the same again
        where each token is drawn at the same end, so with a fixed mode and ``gamma``. ``stop``: the
        text ends before this string, or the first of these. ``learn_temperature``: the draft's
        follows the verdicts (one byte down per token). ``offline_after_s``: after so long without a
        word from the base station the draft goes on alone, with provisional tokens (see ``Token``).
        ``logprobs``: each token that stands comes with the target's log-probability, and those of
        so many of the likeliest ids (0 to 20). Raises ValueError for what cannot work; history and
        a generation under way are as they were.
        """
        return self._own.generate(prompt, **options)

    # Its own conversation.

    @property
    def own(self) -> Conversation:
        """The conversation itself."""
        return self._own

    @property
    def client(self) -> Client:
        """The open connection. Raises LinkError before ``open``."""
        return self._own.client

    @property
    def history(self) -> list[int]:
        """The ids of all turns so far."""
        return self._own.history

    @history.setter
    def history(self, ids: list[int]) -> None:
        self._own.history = ids

    @property
    def model(self) -> Model:
        """The draft model, with its KV cache."""
        return self._own.model

    @model.setter
    def model(self, model: Model) -> None:
        self._own.model = model

    # What all conversations have in common.

    def _connection(self) -> Client:
        """A connection to the base station that is not open yet."""
        return Client(
            self._url,
            self._tokenizer_hash,
            self._vocab_size,
            self._connect,
            self.patience_s,
            self.deadlines,
        )

    def models(self, welcome: Welcome) -> Models:
        """What both models allow a request."""
        branches = getattr(self.model, "branches", False)  # not every model of a test says so
        return Models(
            self.tokenizer, self.detokenizer, self._vocab_size, self._eos_ids, welcome, branches
        )

    def estimates(self, request: Request) -> Estimates:
        """What is known so far that matters to a request; it goes on with the same ones."""
        key = request.scheme, request.sampling
        return replace(self._estimates, acceptance=self._acceptance.setdefault(key, Acceptance()))

    def learned(self, request: Request) -> DraftTemperature | None:
        """The draft's temperature, where the request learns it."""
        asked = request.sampling.temperature
        if not request.learn_temperature or request.sampling.greedy:
            return None
        return self._learned.setdefault(asked, DraftTemperature(asked))

    def greeted(self, rtt_s: float, step_s: float) -> None:
        """A greeting took one round trip, and told what a step takes, or 0."""
        self._estimates.rtt.add(rtt_s)
        self._estimates.told_step_s = step_s

    async def begins(self) -> None:
        """A generation is to begin: wait while the draft model changes how it runs."""
        while self._resting is not None and not self._resting.done():
            await asyncio.wait([self._resting])

    def ends(self) -> None:
        """A generation has ended: where none is under way, the draft model may change how it runs
        before the next begins."""
        if self._rest is not None and not any(one.writes for one in self._conversations):
            self._resting = self.worker.run(self._rest)

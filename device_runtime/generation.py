"""One generation on the device: rounds of drafting, or reading a stream, and every way to stop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import msgspec
from tokenizers.decoders import DecodeStream

from device_runtime.client import LinkError
from device_runtime.drafter import Block, Drafter
from device_runtime.result import Kind, Mode, Result, Tally, Token
from device_runtime.temperature import DraftTemperature
from draftlink import frames, noise, theory
from draftlink.link import Ledger
from draftlink.states import State

if TYPE_CHECKING:
    from device_runtime.device import Device

MAX_GAMMA = 16


class Generation:
    """An async iterator of tokens; ``result`` is there when it has ended.

    ``text`` and ``tokens`` hold what has come so far, also after an error.
    """

    def __init__(
        self,
        device: Device,
        start: frames.Start,
        mode: Mode,
        prompt_tokens: int,
        gamma: int | None,
        stop: tuple[str, ...],
        learned: DraftTemperature | None,
    ) -> None:
        self.text = ""
        self.tokens: list[int] = []
        self.result: Result
        self._device = device
        self._start = start
        self._prompt_tokens = prompt_tokens
        self._learned = learned
        self._owed: int | None = None  # the token that the next draft sends first (``split``)
        self._gamma = gamma
        self._stop = stop
        self._mode: str = mode
        self._decoder = DecodeStream(skip_special_tokens=True)
        self._reason: str | None = None
        self._cancelled = False
        self._tally = Tally(0.0)
        if start.seed is None:
            key = noise.fresh_key()
        else:
            role = "coupled" if start.scheme.shares_seed else "device"
            key = noise.key_from_seed(start.seed, role)
        self._drafter = Drafter(device.model, start, device.client.welcome.vocab_size, key, learned)
        self._iterator = self._run()

    def __aiter__(self) -> AsyncIterator[Token]:
        return self._iterator

    def cancel(self) -> None:
        """End after the tokens that have been returned; the iterator then stops."""
        self._cancelled = True

    async def _run(self) -> AsyncIterator[Token]:
        device, start = self._device, self._start
        client, tally = device.client, self._tally
        client.ledger = Ledger()
        tally.started_s = asyncio.get_running_loop().time()
        self._drafter.settle(start.base)
        if client.session.state is not State.READY:  # a generation whose iterator was abandoned
            await client.finish(start.base)
        # A base station that was lost between generations has no part of the history.
        base = min(start.base, client.session.length)
        sent = msgspec.structs.replace(
            start, base=base, ids=device.history[base : start.base] + start.ids
        )
        del device.history[start.base :]
        device.history += start.ids
        reconnects = client.reconnects
        await client.send(sent)
        try:
            while self._reason is None:
                streaming = client.session.state is State.STREAMING
                batch = await (self._read() if streaming else self._round())
                for token, kind in batch:
                    if self._cancelled:
                        self._reason = "cancel"
                        break
                    yield self._take(token, kind)
                    if self._reason is not None:
                        break
                else:
                    if client.session.state is State.READY:
                        self._reason = "length"
        finally:
            keep = start.base + len(start.ids) + len(self.tokens)
            del device.history[keep:]
            self._drafter.settle(keep)
        if client.session.state is not State.READY or client.session.length > keep:
            await client.finish(keep)
        self.result = tally.result(
            text=self.text,
            tokens=self.tokens,
            prompt_tokens=self._prompt_tokens,
            seed=start.seed,
            scheme=self._drafter.scheme.name,
            mode=self._mode,
            stop_reason=self._reason or "length",
            draft_temperature=1.0 if self._learned is None else self._learned.value,
            ledger=client.ledger.entries(),
            reconnects=client.reconnects - reconnects,
        )

    def _take(self, token: int, kind: Kind) -> Token:
        """A token has come: count it, decode it, see whether the text ends here."""
        self.tokens.append(token)
        self._tally.token(asyncio.get_running_loop().time())
        if len(self.tokens) == self._start.max_tokens:
            self._reason = "length"
        if token in self._start.eos_ids:
            self._reason = "eos"
            return Token(token, "", kind)
        piece = self._decoder.step(self._device.tokenizer, token) or ""
        before, self.text = len(self.text), self.text + piece
        ends = [at for at in (self.text.find(s) for s in self._stop if s) if at >= 0]
        if ends:
            self.text, self._reason = self.text[: min(ends)], "stop"
            piece = self.text[before:]
        return Token(token, piece, kind)

    async def _round(self) -> list[tuple[int, Kind]]:
        """Draft, send, wait, settle."""
        device, client, tally = self._device, self._device.client, self._tally
        history, left = device.history, self._start.max_tokens - len(self.tokens)
        # The history, this block, and the token that the verdict adds must fit the draft.
        room = device.draft_context - len(history)
        if room < 1 and left > 1 and self._owed is None:
            self._mode = "stop-and-wait, then stream"
            await client.send(frames.Switch(self._start.generation, "stream"))
            return []
        scheme, welcome = self._drafter.scheme, client.welcome
        fits = scheme.longest(welcome.vocab_size, frames.MAX_MESSAGE_BYTES)
        count = max(0, min(self._gamma or self._best_gamma(), left - 1, room, fits))
        loop = asyncio.get_running_loop()
        begun = asyncio.get_running_loop().time()
        block = await loop.run_in_executor(device.executor, self._drafter.draft, history, count)
        drafted = asyncio.get_running_loop().time()
        session = client.session
        frame = frames.Draft(session.epoch, session.length, count, block.payload, self._owed)
        await client.send(frame, block.bits)
        self._owed = None
        verdict = await client.expect(frames.Verdict)
        tally.draft_s += drafted - begun
        tally.wait_s += asyncio.get_running_loop().time() - drafted
        tally.verify_s += verdict.verify_us * 1e-6
        tally.verdict(count, verdict.accepted)
        return await self._settle(block, verdict)

    async def _settle(self, block: Block, verdict: frames.Verdict) -> list[tuple[int, Kind]]:
        """Apply a verdict to history and cache; the tokens that it adds."""
        history, tokens = self._device.history, block.tokens
        accepted = tokens[: verdict.accepted]
        self._drafter.settle(len(history) + len(accepted))
        history += accepted
        batch: list[tuple[int, Kind]] = [(token, "draft") for token in accepted]
        following = verdict.next
        if verdict.row:
            rejected = block.drafted[verdict.accepted]
            try:
                following = self._owed = await asyncio.get_running_loop().run_in_executor(
                    self._device.executor, self._drafter.correct, history, rejected, verdict.row
                )
                if following >= self._device.client.session.vocab_size:
                    raise ValueError(f"its row has the token {following}, which the draft lacks")
            except ValueError as error:
                raise LinkError(f"the base station broke the protocol: {error}") from None
        if following is not None:
            history.append(following)
            whole = verdict.accepted == len(tokens)
            batch.append((following, "bonus" if whole else "correction"))
        if self._learned is not None and verdict.surprisals:
            self._learned.observe(batch[0][0], verdict.surprisals[0])
        return batch

    async def _read(self) -> list[tuple[int, Kind]]:
        """The next tokens of a streaming base station."""
        begun = asyncio.get_running_loop().time()
        frame = await self._device.client.expect(frames.Tokens)
        self._tally.wait_s += asyncio.get_running_loop().time() - begun
        self._device.history += frame.ids
        return [(token, "stream") for token in frame.ids]

    def _best_gamma(self) -> int:
        """The draft length that the costs and the acceptance so far ask for."""
        tally = self._tally
        if tally.rounds < 2 or not tally.drafted:
            return 5  # the first round's cost holds the prompt: too early to tell
        # One rejection and one acceptance are assumed beforehand, so that alpha is never 0 or 1.
        alpha = (tally.accepted + 3) / (tally.accepted + tally.rejected + 4)
        return theory.best_draft_length(
            alpha,
            fixed_s=tally.wait_s / tally.rounds,
            draft_s=tally.draft_s / tally.drafted,
            longest=MAX_GAMMA,
        )

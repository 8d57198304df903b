"""One generation at the base station, and its rounds: what to feed, verify, and write.

Nothing here calls the model: a ``Round`` says what it needs fed, and done to its slot before, in as
many steps as the scheduler likes, and is committed once it is verified.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from bs_runtime.engine import corrections
from bs_runtime.engine.corrections import Corrections
from bs_runtime.engine.decoding import Decoder
from bs_runtime.engine.faults import ModelFault
from bs_runtime.engine.prefixes import Chain, Prefix
from bs_runtime.model.commands import Command
from bs_runtime.model.kv import Feed, Slot
from bs_runtime.verify.job import Job, Outcome
from draftlink import schemes
from draftlink.coding.slices import Slices, whole
from draftlink.distribution import noise
from draftlink.distribution.noise import Purpose
from draftlink.distribution.sparse import Drafted
from draftlink.protocol import frames
from draftlink.schemes.base import MAX_DRAFT
from draftlink.schemes.split import pack_row


class Generation:
    """A generation on a slot. ``history`` is the prompt and everything written so far.

    Between rounds the slot is in one of two states: all of the history cached and the row behind it
    kept, or something of the history not yet fed. One round at a time is under way. Every draw is a
    function of (key, position, purpose), so that a draft is always judged the same way; ``key`` is
    the session's secret. ``tenant``: whose it is. ``before`` was the conversation's generation,
    whose history begins with the ``same`` first tokens: its decoder of drafts goes on.
    """

    def __init__(
        self,
        slot: Slot,
        start: frames.Start,
        history: list[int],
        vocab_size: int,
        context: int,
        key: bytes,
        tenant: str = "",
        before: Generation | None = None,
        same: int = 0,
    ) -> None:
        self.slot = slot
        self.tenant = tenant
        self.start = start
        self.history = history
        written = len(history) - start.begins  # before a connection was lost
        self.left = min(start.max_tokens - written, context - len(history))
        self.ended = False
        self._scheme = schemes.in_effect(start.scheme, greedy=start.sampling.greedy)
        self._decoder: Decoder = Decoder(vocab_size) if before is None else before._decoder
        self._decoder.rollback(same)
        if start.seed is None:
            self._key = noise.key_of_generation(key, start.generation)
        else:
            role = "coupled" if self._scheme.shares_seed else "bs"
            self._key = noise.key_from_seed(start.seed, role)
        suppressed = start.suppressed
        self._suppressed = torch.from_numpy(suppressed) if len(suppressed) else None
        self._row: Tensor | None = None  # (1, V): the row after the whole history, once known
        self.corrections = Corrections(vocab_size)

    def decode(self, drafts: Sequence[frames.Draft]) -> list[Drafted]:
        """The tokens of drafts that follow one another.

        Raises ValueError for bytes that are no drafts of this scheme.
        """
        return whole(self.decoding(drafts))

    def decoding(self, drafts: Sequence[frames.Draft]) -> Slices[list[Drafted]]:
        """``decode`` in slices: see ``Decoder``."""
        if drafts[0].first is not None and self.left < 2:
            raise ValueError("the token that was owed fills the context, and a draft follows it")
        return self._decoder.decoding(self._scheme, drafts, self.history)

    @property
    def longest(self) -> int:
        """Tokens that its slot may come to hold."""
        return len(self.history) + max(0, self.left)

    def prompt(self) -> Round:
        """Feed the prompt, and keep the row behind it; nothing is verified."""
        return Round(self, (), None)

    def draft(
        self, drafted: Sequence[Drafted], first: int | None = None, *,
        waits: bool = True, had: int = 0,
    ) -> Round:  # fmt: skip
        """Verify each drafted token, then write one token of the target's own.

        ``first`` is the token that the device owed. Nothing is drawn behind an accepted EOS or the
        token limit, nor behind a draft that is accepted whole and does not wait. Where the device
        ``had`` pairs to correct by, and asks for more, nothing is drafted, nor written.
        """
        if first is not None:
            self._write(first)
        return Round(self, self._block(drafted), Purpose.BONUS, waits=waits, had=had)

    def next(self, proposed: Sequence[int] = ()) -> Round:
        """One token of the target's own, while streaming, and those of ``proposed`` before it.

        These are written where the target writes them in any case: whatever is proposed, and by
        whom, the text is the same; only more of it comes of one round.
        """
        return Round(self, self.proposed(proposed), Purpose.STREAM)

    def proposed(self, ids: Sequence[int]) -> Sequence[Drafted]:
        """A block of proposed tokens."""
        return self._block([Drafted(token, 1, 1) for token in ids[:MAX_DRAFT]])

    def _block(self, drafted: Sequence[Drafted]) -> Sequence[Drafted]:
        """What of a block can be written: nothing behind an EOS, or the token limit."""
        ends = [i + 1 for i, d in enumerate(drafted) if d.token in self.start.eos_ids]
        return drafted[: min([self.left, *ends])]

    def rollback(self, keep: int) -> None:
        """Forget everything behind the first ``keep`` tokens of the history."""
        del self.history[keep:]
        self.slot.rollback(min(self.slot.length, keep))
        self._row = None
        self._decoder.rollback(keep)

    def job(self, drafted: Sequence[Drafted], purpose: Purpose) -> Job:
        """What ``verify.judge`` is to know of a block behind the history."""
        start = self.start
        streams = purpose is Purpose.STREAM and start.mode != "both"
        return Job(
            drafted, self.history, start.sampling, self._scheme, self._key, purpose,
            start.streams_surprisals if streams else start.surprisals, self._suppressed,
            start.begins, start.tells, self.corrections.at_first,
        )  # fmt: skip

    def kept_row(self) -> Tensor | None:
        """The row (1, V) behind the history, if the slot holds all of it and the row was kept."""
        return self._row if self.slot.length == len(self.history) else None

    def commit(
        self, drafted: Sequence[Drafted], rows: Tensor, outcome: Outcome | None, *, waits: bool
    ) -> Outcome:
        """Write what is accepted of a block, roll back the rest, and keep the row behind it.

        ``rows`` (len(drafted) + 1, V); ``outcome`` None for a prompt. What the round came to, in
        the end: the text may end before all that was accepted, or nothing be drawn. Raises
        ModelFault where the text is to go on behind a row from which nothing can be drawn.
        """
        accepted = outcome.accepted if outcome else 0
        self.slot.rollback(len(self.history) + accepted)
        for d in drafted[:accepted]:
            self._write(d.token)
        following, row = outcome.next if outcome else None, b""
        if self.ended or (accepted == len(drafted) and not waits):
            following = None
        elif outcome is not None and outcome.broken:
            raise ModelFault.behind(len(self.history))
        if following is not None:
            self._row = None
            self._write(following)
        else:
            self._row = rows[accepted : accepted + 1].clone()  # a view would keep the whole step's
            if outcome and accepted < len(drafted) and not self.ended:  # the device corrects
                row = outcome.row or pack_row(self._row[0].numpy(force=True))
        if outcome is None:
            return Outcome(0, None, self.ended)
        return outcome.written(accepted, following, row, ended=self.ended)

    def _write(self, token: int) -> None:
        self.history.append(token)
        self.left -= 1
        self.ended = self.left <= 0 or token in self.start.eos_ids


class Round:
    """A prompt, or a block of tokens that somebody proposes, on its way through the model.

    Steps feed it in parts (``feed``, then ``take``) until nothing is ``left``; its rows are then
    those behind the history and behind each proposed token. ``purpose``: what the target's own
    token is drawn for, and with it the rule by which the block is verified (``Job.rule``); None if
    nothing is verified. ``waits``: it is drawn behind a whole block, too. ``had``: see
    ``Generation.draft``. The slot may be emptied before a step; what it held is then fed again, or
    copied from another slot.
    """

    def __init__(
        self, generation: Generation, drafted: Sequence[Drafted], purpose: Purpose | None, *,
        waits: bool = True, had: int = 0,
    ) -> None:  # fmt: skip
        self.drafted = list(drafted)
        self.purpose = purpose
        self._waits, self._had = waits, had
        self.generation = generation
        self.slot = generation.slot
        self.tenant = generation.tenant
        self.copy: Prefix | None = None
        self.asked = 0  # rows, of the feed that is under way
        self.spare = True  # whether there is memory for more than the round needs
        self.base = len(generation.history)  # tokens before the drafted ones
        kept = generation.kept_row()
        self._rows = [] if kept is None else [kept]
        self._behind = self.base - (kept is None)  # the next token whose row is wanted
        if kept is None:  # the last row has to be made, again if the slot was rolled back
            self.slot.rollback(min(self.slot.length, self.base - 1))

    def bind(self) -> int:
        """What is ``left`` when a step is made: see ``late``."""
        return self.left

    @property
    def left(self) -> int:
        """Tokens that are still to be fed."""
        return self.length - self.slot.length

    @property
    def new(self) -> int:
        """Tokens that are still to be fed, where there is nothing to copy them from."""
        return self.length - (self.slot.length if self.copy is None else self.copy.length)

    def feed(self, limit: int) -> Feed:
        """The next tokens, at most ``limit``; a prompt's are fed for its last row alone.

        The drafted ones are under verification, so that no other slot copies them.
        """
        begin = self.slot.length
        ids = self.generation.history[begin : begin + limit]
        drafted = begin + len(ids) - self.base
        block, parents = self.block(drafted, max(drafted, drafted + limit - len(ids)))
        ids += block
        self.asked = max(0, begin + len(ids) - max(begin, self._behind))
        return Feed(self.slot, ids, self.asked, parents)

    def block(self, begin: int, end: int) -> tuple[Sequence[int], Sequence[int]]:
        """Tokens of the block from ``begin`` to ``end``, and their parents: see ``Feed``."""
        tokens = [d.token for d in self.drafted[begin:end]]
        return tokens, range(begin - 1, begin - 1 + len(tokens))

    def take(self, rows: Tensor) -> None:
        """The rows that a feed asked for, (rows, V)."""
        self._rows.append(rows)
        self._behind += len(rows)

    @cached_property
    def prefix(self) -> Chain:
        """The tokens whose rows are of no account, so that another slot's cache will do."""
        return Chain(self.generation.history[: self.base - 1])

    @property
    def length(self) -> int:
        """Tokens that the slot holds at the end."""
        return self.base + self.size

    @property
    def size(self) -> int:
        """Tokens of the block."""
        return len(self.drafted)

    @property
    def longest(self) -> int:
        """Tokens that it may come to hold until the generation ends."""
        return self.generation.longest

    def prepare(self) -> list[Command]:
        """What is done before a feed: copy what is to be copied, into memory that was granted."""
        self.slot.reserve(self.length, spare=self.spare)
        first: Sequence[Command] = ()
        if (copy := self.copy) is not None:
            self.slot.adopt(copy.source, self.prefix.ids[: copy.length])
            self.copy, first = None, copy.source.take_commands()
        return [*first, *self.slot.take_commands()]

    def rows(self) -> Tensor:
        """All rows, (size + 1, V), once nothing is left."""
        return self._rows[0] if len(self._rows) == 1 else torch.cat(self._rows)

    def job(self) -> Job | None:
        """What is to be verified, if anything is."""
        if self.purpose is None or self._had:
            return None
        return self.generation.job(self.drafted, self.purpose)

    def commit(self, outcome: Outcome | None) -> Outcome:
        """Carry out what was verified: see ``Generation.commit``."""
        generation, rows = self.generation, self.rows()
        found = generation.commit(self.drafted, rows, outcome, waits=self._waits)
        if self.purpose is Purpose.BONUS:
            generation.corrections.judged(len(self.drafted), found.accepted)
        if not self._had:
            return found
        return corrections.more(found, rows[-1], generation.job((), Purpose.BONUS), self._had)

"""Drafting: forward, truncate, round, draw; then the next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from device_runtime.drafting.temperature import DraftTemperature
from draftlink import schemes
from draftlink.coding.ids import IdModel
from draftlink.coding.slices import Slices, whole
from draftlink.distribution import noise, sampling
from draftlink.distribution.sparse import Drafted
from draftlink.protocol import frames
from draftlink.schemes import split
from draftlink.schemes.base import IdScheme

CHUNK = 128  # tokens of a prompt that are fed before somebody else's work has its turn


class Model(Protocol):
    """What drafting needs of a draft model."""

    @property
    def length(self) -> int:
        """Tokens in the KV cache."""

    @property
    def bytes(self) -> int:
        """Memory of the KV cache."""

    def forward(self, ids: Sequence[int]) -> NDArray[np.floating[Any]]:
        """Feed ids; the logits of the last."""

    def rollback(self, length: int) -> None:
        """Cut the cache back."""


class Branching(Model, Protocol):
    """And of one whose tokens need not follow one another."""

    def branch(self, ids: Sequence[int], parents: Sequence[int]) -> NDArray[np.floating[Any]]:
        """Feed ids to the block behind the cache's tokens; the logits of each."""

    def keep(self, chain: Sequence[int], rest: Sequence[int]) -> None:
        """Of the block a path joins the cache's tokens, and ``rest`` stays the block."""


class Pass(NamedTuple):
    """A forward behind several tokens: first of the block ``chain`` and ``rest`` stay (``keep``).

    Then a token is fed behind each of ``parents`` (``branch``): the last of each of ``paths``,
    which lead there from the text. No parents: what the cache lacks of the text is fed.
    ``nodes``: whose rows these are.
    """

    chain: tuple[int, ...]
    rest: tuple[int, ...]
    parents: tuple[int, ...]
    paths: tuple[tuple[int, ...], ...]
    nodes: tuple[object, ...]


class Proposal(NamedTuple):
    """A drafted token, and the draft's own probability for it.

    ``later``: of each candidate beside it, how much later than the token itself it arrives.
    """

    drafted: Drafted
    chance: float
    later: tuple[float, ...] = ()


class Missed(NamedTuple):
    """No pair was the correction, of all ``had`` so far."""

    had: int


class Drafter:
    """Drafts for one generation. ``vocab_size``: ids from there on are never drafted.

    ``learned``: the draft's temperature follows what the verdicts tell, not the request's alone.
    """

    def __init__(
        self,
        model: Model,
        start: frames.Start,
        vocab_size: int,
        key: bytes,
        learned: DraftTemperature | None = None,
    ) -> None:
        self.scheme = schemes.in_effect(start.scheme, greedy=start.sampling.greedy)
        self._model = model
        self._sampling, self._begins = start.sampling, start.begins
        self._suppressed = start.suppressed
        self._ids = IdModel(vocab_size)
        self._key = key
        self.beside = 0  # candidates that are looked for beside each token, of a scheme of ids
        # Written anew for each token; ids that the draft lacks have probability 0, and are seen to
        # have it. A draft's distribution may be rounded as it likes: the base station judges what
        # is sent.
        self._q = np.zeros(vocab_size, dtype=np.float32)
        self._weight = 1.0  # what it sums to
        self._learned = None if start.sampling.greedy else learned

    @property
    def foretells(self) -> bool:
        """Whether a proposal is accepted exactly if the target's own token is the same."""
        return self.scheme.rule in ("greedy", "coupled")

    def propose(
        self, past: list[int], count: int, begins: int, fresh: bool = True
    ) -> list[Proposal]:
        """``proposing``, all at once."""
        return whole(self.proposing(past, count, begins, fresh))

    def proposing(
        self, past: list[int], count: int, begins: int, fresh: bool = True
    ) -> Slices[list[Proposal]]:
        """``count`` tokens after ``past``, of which the cache holds a true prefix.

        What the cache lacks is fed first: the prompt, a correction, or the last drafted token
        after a block that was accepted whole. ``begins``: the position at which the epoch began,
        whose numbers they are drawn from. ``fresh``: nothing drafted is in flight before them.
        ``past`` is extended. In slices of a forward each, a long prompt's of ``CHUNK`` tokens.
        """
        # The noise of ``coupled`` belongs to a position, whoever picks from it, however often.
        key = self._key if self.foretells else noise.key_of_epoch(self._key, begins)
        proposals: list[Proposal] = []
        if self._model.length >= len(past):  # its row has been seen, but is not there any more
            self._model.rollback(len(past) - 1)
        unfed = past[self._model.length :]
        params, learned = self._sampling, self._learned
        if learned is not None:
            params = msgspec.structs.replace(params, temperature=learned.value * params.temperature)
            if fresh:
                learned.begin()
        while len(unfed) > CHUNK:
            self._model.forward(unfed[:CHUNK])
            del unfed[:CHUNK]
            yield
        for number in range(count):
            if number:
                yield
            with sampling.overflowing():
                row = self._model.forward(unfed)[: self._ids.vocab_size]
                logits = sampling.without(row, self._suppressed)
                if learned is not None:
                    learned.drafted(sampling.penalised(logits, params, past, self._begins))
                proposals.append(self._draw(logits, params, past, key))
            past.append(proposals[-1].drafted.token)
            unfed = past[-1:]
        return proposals

    def branching(self, past: list[int], made: Pass, begins: int) -> Slices[list[Proposal]]:
        """A token behind each of a forward's, which follow the text ``past``: see ``proposing``.

        The noise is that of the position at which it would stand, and penalties are over its own
        path: it is what would be drafted there if nothing had branched.
        """
        model = cast(Branching, self._model)
        model.keep(made.chain, made.rest)
        if not made.parents:
            return (yield from self.proposing(past, 1, begins))
        rows = model.branch([path[-1] for path in made.paths], made.parents)
        q: NDArray[np.float32] = np.zeros((len(rows), self._q.size), dtype=np.float32)
        texts = [[*past, *path] for path in made.paths]
        with sampling.overflowing():
            weights = []
            for one, row, text in zip(q, rows, texts, strict=True):
                weights.append(self._weigh(one, row[: self._ids.vocab_size], text))
            ranked = self._ranked(q, self._key, [len(text) for text in texts])
        found = []
        for one, weight, (drafted, later) in zip(q, weights, ranked, strict=True):
            chance = 1.0 if self._sampling.greedy else one[drafted.token]
            found.append(Proposal(drafted, float(chance) / weight, later))
        return found

    def _weigh(
        self, q: NDArray[np.float32], row: NDArray[np.floating[Any]], past: Sequence[int]
    ) -> float:
        """Of the logits behind ``past`` what is drafted by, in q (V,); a greedy draft's weight is
        that of all over its first's."""
        logits = sampling.without(row, self._suppressed)
        if not self._sampling.greedy:
            held = q[: len(logits)]
            return sampling.weights_in(held, logits, self._sampling, past, self._begins)
        scores = sampling.penalised(logits, self._sampling, past, self._begins)
        q[: len(logits)], q[len(logits) :] = scores, -np.inf
        return float(np.exp(scores - scores.max()).sum())

    def _draw(
        self,
        logits: NDArray[np.floating[Any]],
        params: sampling.Sampling,
        past: Sequence[int],
        key: bytes,
    ) -> Proposal:
        """The token drafted after ``past``, whose row of logits is (≤ V,)."""
        if params.greedy:
            scores = sampling.penalised(logits, params, past, self._begins)
            drafted, later = self._pick(scores, key, len(past))
            chance = 1.0 / np.exp(scores - scores[drafted.token]).sum()
        else:
            self._weight = sampling.weights_in(
                self._q[: len(logits)], logits, params, past, self._begins
            )
            drafted, later = self._pick(self._q, key, len(past), self._weight)
            chance = self._q[drafted.token] / self._weight
        return Proposal(drafted, float(chance), later)

    def _pick(
        self, q: NDArray[np.floating[Any]], key: bytes, position: int, weight: float = 1.0
    ) -> tuple[Drafted, tuple[float, ...]]:
        """The token that the scheme proposes, with its candidates, and these' ``later``."""
        if not self.beside:
            return self.scheme.propose(q, key, position, weight), ()
        return self._ranked(q[None], key, [position])[0]

    def _ranked(
        self, q: NDArray[np.floating[Any]], key: bytes, positions: Sequence[int]
    ) -> list[tuple[Drafted, tuple[float, ...]]]:
        """Those of each row of q (N, V)."""
        assert isinstance(self.scheme, IdScheme)
        found = self.scheme.candidates(q, key, positions, 1 + self.beside)
        return [(Drafted(first, beside=tuple(rest)), tuple(later))
                for (first, *rest), (_, *later) in found]  # fmt: skip

    def row(self) -> NDArray[np.float32]:
        """A copy of the distribution (V,) that the last token was drawn from."""
        return self._q / np.float32(self._weight)

    def encode(self, past: Sequence[int], drafted: Sequence[Drafted]) -> tuple[bytes, int]:
        """The payload that carries tokens drafted after ``past``, and its length in bits."""
        if self.scheme.codes_ids:
            self._ids.rollback(min(self._ids.length, len(past)))
            self._ids.extend(past[self._ids.length :])
        return self.scheme.encode(drafted, self._ids)

    def correct(
        self, history: Sequence[int], rejected: Drafted, row: bytes, had: int = 0
    ) -> int | Missed:
        """The token after ``history``, in the place of a rejected one, drawn by ``row``.

        It is the target's, or pairs behind those that the device ``had``; if none is the correction
        more is to be asked for. It is drawn once at its position, where it stands: numbers of the
        generation's own will do. Raises ValueError for a row that does not unpack.
        """
        size, most, position = self._ids.vocab_size, self.scheme.recovers, len(history)
        if had < most and split.brings_draws(row):
            draws = split.unpack_draws(row, had, most, size)
            if len(self._suppressed) and np.isin([y for y, _ in draws], self._suppressed).any():
                raise ValueError("it has drawn an id that is never written")
            token = split.recover(draws, had, rejected, self._key, position)
            return Missed(had + len(draws)) if token is None else token
        if not had and most and split.brings_support(row):
            p = split.unpack_support(row, size)
            if p[self._suppressed[self._suppressed < size]].any():
                raise ValueError("an id that is never written is likely")
        elif had < most:
            raise ValueError("a target row where pairs were to be drawn")
        else:
            logits = sampling.without(split.unpack_row(row, size), self._suppressed)
            p = sampling.distribution(logits, self._sampling, history, self._begins)
        return split.correct(p, rejected, self._key, position)

    def stands(self, length: int) -> None:
        """Of what payloads were coded behind, the first ``length`` tokens are as they were."""
        self._ids.rollback(min(self._ids.length, length))

    def rollback(self, length: int) -> None:
        """Keep at most the first ``length`` tokens that were fed."""
        self._model.rollback(min(self._model.length, length))
        self.stands(length)

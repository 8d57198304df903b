"""What a generation reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, get_args

import msgspec

from draftlink.link.ledger import Entry, total
from draftlink.protocol.logprobs import Logprobs

Mode = Literal["stop-and-wait", "run-ahead", "stream", "both", "auto"]
MODES: tuple[Mode, ...] = get_args(Mode)
UP, DOWN = ("Draft", "Propose"), ("Verdict", "Tokens", "Written")  # what carries a text
Kind = Literal["draft", "correction", "bonus", "stream", "provisional"]


class Came(NamedTuple):
    """A token of which the text is made; ``logprobs``: what the base station said of it, if it was
    asked to, which it is of no provisional one."""

    id: int
    kind: Kind
    logprobs: Logprobs | None = None


@dataclass(frozen=True)
class Token:
    """A token as it arrives: ``text`` may be empty while a character is incomplete.

    One of the kind ``provisional`` is the draft's own, shown while nothing is heard of the base
    station. Every other token stands, and comes in the place of the first provisional one, if there
    are any: it ``confirms`` that one, or ``takes_back`` that many, which is all of them.

    ``logprob``: the natural logarithm of the target's probability, before temperature, penalties
    and cuts, where the request asked for it; ``top_logprobs``: the likeliest ids, with theirs. A
    provisional token has none.
    """

    id: int
    text: str
    kind: Kind
    confirms: bool = False
    takes_back: int = 0
    logprob: float | None = None
    top_logprobs: tuple[tuple[int, float], ...] = ()


class Result(msgspec.Struct, frozen=True):
    """A finished generation; SI units, bytes on the wire with WebSocket headers."""

    text: str
    tokens: list[int]
    prompt_tokens: int
    seed: int | None
    scheme: str
    mode: str
    rounds: int
    drafted: int
    accepted: int
    acceptance_rate: float
    tokens_per_round: float
    accept_histogram: list[int]
    alpha: float
    discarded: int
    ttft_s: float
    tpot_s: float
    tokens_per_s: float
    draft_s: float
    wait_s: float
    verify_s: float
    uplink_bytes: int
    downlink_bytes: int
    uplink_payload_bits: int
    downlink_payload_bits: int
    reconnects: int
    provisional: int  # tokens that were shown before they were judged
    taken_back: int  # of them, those that do not stand
    stop_reason: str  # "eos", "length", "stop", "cancel"
    draft_temperature: float  # over the request's, at the end
    ledger: list[Entry]
    # Tokens before the text that were in a KV cache when it began, and were not fed again: in the
    # draft's, and in the base station's as far as the device knew, to which it did not send them.
    cached_tokens: int
    target_cached_tokens: int
    # What drafting waited while the device drafted for other conversations; not part of draft_s.
    draft_queue_s: float
    # Who wrote what, and when: of each token its kind, and the seconds since the beginning.
    kinds: list[Kind]
    times_s: list[float]
    draft_share: float  # of the tokens, those that the device had proposed
    overtaken: int  # proposals that were right, and which the text had reached without them
    followed: int  # tokens that came while nothing was proposed: it would have been late
    forwards: int  # of the target, for this text: verdicts, and steps that wrote
    rows: int | None  # that it was fed for them; None where the base station does not say
    # Of each token, if the request asked for that: its log-probability, and the likeliest ids'.
    logprobs: list[Logprobs]
    alone: str | None  # why the base station wrote all of it; None where the device drafted

    @property
    def summary(self) -> str:
        """What both ends did, in a line."""
        count = len(self.tokens)
        drafts = round(100 * self.draft_share)
        each = f", {self.forwards / count:.2f} forwards" if count else ""
        if count and self.rows is not None:
            each += f" and {self.rows / count:.2f} rows"
        each += " a token" if count else ""
        judged = f"; {self.drafted} drafted, {self.discarded} of them dropped" * bool(self.drafted)
        alpha = f", α {self.alpha:.2f}" * bool(self.drafted - self.discarded)
        said = f"base station wrote {100 - drafts}%, drafts {drafts}%{each}{judged}{alpha}"
        late = round(100 * self.followed / count) if count else 0
        return said + f"; followed {late}%, where proposals would come too late" * bool(late)


def alpha(results: Sequence[Result]) -> float:
    """The share of proposals with the right prefix that equal the text, of several texts.

    0 where nothing was judged. Those that were overtaken count, too.
    """
    judged = sum(result.drafted - result.discarded for result in results)
    right = sum(result.accepted + result.overtaken for result in results)
    return right / judged if judged else 0.0


@dataclass
class Tally:
    """Counts of a generation in progress."""

    started_s: float
    rounds: int = 0
    drafted: int = 0
    accepted: int = 0
    rejected: int = 0
    histogram: list[int] = field(default_factory=list)
    right: int = 0  # proposals behind the right prefix that are the text's, where both ends write,
    wrong: int = 0  # and those that are not
    followed: int = 0  # tokens of the text that the device followed
    forwards: int = 0
    rows: int = 0
    counts_rows: bool = True  # of all forwards
    times_s: list[float] = field(default_factory=list)
    kinds: list[Kind] = field(default_factory=list)
    logprobs: list[Logprobs] = field(default_factory=list)
    alone: str | None = None
    reached: int = 0  # tokens behind the last correction, with those of the last verdict
    first_s: float | None = None
    last_s: float = 0.0
    draft_s: float = 0.0
    wait_s: float = 0.0
    verify_s: float = 0.0
    provisional: int = 0
    taken_back: int = 0
    cached: int = 0
    target_cached: int = 0
    draft_queue_s: float = 0.0

    def verdict(self, position: int, accepted: int, *, rejected: bool) -> None:
        """Of a block, ``position`` tokens behind the last correction, ``accepted`` stand.

        ``rejected``: one more was judged and does not.
        """
        self.rounds += 1
        self.forwards += 1
        self.rejected += rejected
        self._stand(position, accepted)

    def _stand(self, position: int, accepted: int) -> None:
        self.accepted += accepted
        self.histogram += [0] * (position + accepted - len(self.histogram))
        for place in range(position, position + accepted):
            self.histogram[place] += 1
        self.reached = position + accepted

    def wrote(self, accepted: int, rows: int) -> None:
        """Where both ends write, a step of so many rows has: proposals first, then its own token.

        Without rows it was told before, over a connection that was lost, and is no step.
        """
        if rows:
            self.verdict(0, accepted, rejected=False)
            self.rows += rows
        else:
            self._stand(0, accepted)

    def streamed(self, tokens: int) -> None:
        """The base station wrote alone, in a step of a row for each of the ``tokens``."""
        self.forwards += 1
        self.rows += tokens

    def met(self, right: int, *, differs: bool) -> None:
        """The text has reached so many proposals that are right, and where it ``differs`` a wrong
        one, whether or not the base station had them when it wrote."""
        self.right += right
        self.wrong += differs

    def behind(self, kinds: Sequence[Kind]) -> None:
        """The text ended before tokens of these ``kinds``, the last of what came: not counted."""
        count = kinds.count("draft")
        self.accepted -= count
        if not self.right + self.wrong:  # else they are not counted as rejected
            self.rejected -= kinds.count("correction")
        for place in range(self.reached - count, self.reached):
            self.histogram[place] -= 1
        while self.histogram and not self.histogram[-1]:
            del self.histogram[-1]

    def token(self, now: float, kind: Kind, logprobs: Logprobs | None = None) -> None:
        """A token of the text came at ``now``."""
        if self.first_s is None:
            self.first_s = now
        self.last_s = now
        self.times_s.append(now - self.started_s)
        self.kinds.append(kind)
        if logprobs is not None:
            self.logprobs.append(logprobs)

    @property
    def _met(self) -> tuple[int, int]:
        """Of the proposals that were judged, or met the text: the right ones, and all."""
        if both := self.right + self.wrong:
            return max(self.right, self.accepted), max(both, self.accepted)
        return self.accepted, self.accepted + self.rejected

    @property
    def _begins_s(self) -> float:
        """When the first token came; the beginning where none did."""
        return self.started_s if self.first_s is None else self.first_s

    def _rate(self, count: int) -> float:
        """Tokens a second; 0 where no time has passed."""
        elapsed_s = self.last_s - self.started_s
        return count / elapsed_s if elapsed_s > 0.0 else 0.0

    def result(
        self,
        *,
        text: str,
        tokens: list[int],
        prompt_tokens: int,
        seed: int | None,
        scheme: str,
        mode: str,
        stop_reason: str,
        draft_temperature: float,
        ledger: list[Entry],
        reconnects: int,
    ) -> Result:
        """The finished generation's result."""
        count, (right, met) = len(tokens), self._met
        return Result(
            text=text,
            tokens=tokens,
            prompt_tokens=prompt_tokens,
            seed=seed,
            scheme=scheme,
            mode=mode,
            rounds=self.rounds,
            drafted=self.drafted,
            accepted=self.accepted,
            acceptance_rate=self.accepted / self.drafted if self.drafted else 0.0,
            tokens_per_round=count / self.rounds if self.rounds else 0.0,
            accept_histogram=self.histogram,
            alpha=right / met if met else 0.0,
            discarded=self.drafted - met,
            ttft_s=self._begins_s - self.started_s,
            tpot_s=(self.last_s - self._begins_s) / (count - 1) if count > 1 else 0.0,
            tokens_per_s=self._rate(count),
            draft_s=self.draft_s,
            wait_s=self.wait_s,
            verify_s=self.verify_s,
            uplink_bytes=total(ledger, "up").websocket_bytes,
            downlink_bytes=total(ledger, "down").websocket_bytes,
            uplink_payload_bits=total(ledger, "up", *UP).payload_bits,
            downlink_payload_bits=total(ledger, "down", *DOWN).payload_bits,
            reconnects=reconnects,
            provisional=self.provisional,
            taken_back=self.taken_back,
            stop_reason=stop_reason,
            draft_temperature=draft_temperature,
            ledger=ledger,
            cached_tokens=self.cached,
            target_cached_tokens=self.target_cached,
            draft_queue_s=self.draft_queue_s,
            kinds=self.kinds,
            times_s=self.times_s,
            draft_share=self.kinds.count("draft") / count if count else 0.0,
            overtaken=right - self.accepted,
            followed=min(self.followed, count),
            forwards=self.forwards,
            rows=self.rows if self.counts_rows else None,
            logprobs=self.logprobs,
            alone=self.alone,
        )

"""``draftlink plan``: what to expect of each mode, draft length and K at stated costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from draftlink.link.ledger import packet_bytes, websocket_bytes
from draftlink.link.shaping import LinkProfile
from draftlink.planning import payload, theory
from draftlink.planning.payload import Coding
from draftlink.planning.theory import Costs

FixedMode = Literal["stop-and-wait", "run-ahead", "stream"]

# What a round sends besides payload: a draft up and a verdict down, each with a frame's own head
# (about 10), WebSocket, TLS and TCP/IP.
MESSAGE_BYTES = packet_bytes(websocket_bytes(10, masked=True))
LONGEST = 1000  # where drafting is free or all is accepted, no draft length is the best

PAPER_KS = (3, 32, 320, 3200, 32_000)
PAPER_VOCAB = 32_000
# TK-SLT (arXiv 2509.04576): L at these K was .0700 .0702 .0723 .093 .300 over 50 Mbit/s; a drafted
# token's K·16 bits then make a target forward 44.5 ms, and a draft forward 0.07 of it.
PAPER_TARGET_S = 0.0445
PAPER_DRAFT_S = 0.07 * PAPER_TARGET_S
PAPER_RATE = 50e6


@dataclass(frozen=True)
class Setting:
    """What is known beforehand."""

    alpha: float
    draft_s: float
    target_s: float
    verify_s: float
    link: LinkProfile
    vocab_size: int = 32_000
    k: int = 16
    total: int = 256  # ℓ
    coding: Coding = "lattice"

    def bits(self) -> float:
        """Payload bits of a drafted token."""
        return payload.topk_bits(self.vocab_size, self.k, self.coding, self.total)

    def costs(self) -> Costs:
        """In seconds. Raises ValueError for impossible ones."""
        link = self.link
        return Costs(
            draft_s=self.draft_s,
            target_s=self.target_s,
            verify_s=self.verify_s,
            rtt_s=link.mean_rtt_s,
            uplink_s=self.bits() / link.rate_up,
            message_s=8 * MESSAGE_BYTES * (1.0 / link.rate_up + 1.0 / link.rate_down),
        )


@dataclass(frozen=True)
class ModePlan:
    """What one mode is expected to do."""

    mode: FixedMode
    time_per_token_s: float
    tokens_per_s: float
    speedup: float  # over ``stream``
    gamma: int | None = None  # stop-and-wait: draft length; run-ahead: the window in tokens
    tokens_per_round: float | None = None


@dataclass(frozen=True)
class KPlan:
    """What one K is expected to do in the two modes that draft."""

    k: int
    bits: float  # payload, per drafted token
    uplink_s: float  # per drafted token
    alpha: float
    gamma: int  # of stop-and-wait
    stop_and_wait_tokens_per_s: float
    run_ahead_tokens_per_s: float
    # Acceptance at which run-ahead would be as fast as with the same α and no payload: what the
    # bits have to bring. None where even 1 would not do.
    alpha_to_repay: float | None

    @property
    def drafting_tokens_per_s(self) -> float:
        """Of the faster of the two."""
        return max(self.stop_and_wait_tokens_per_s, self.run_ahead_tokens_per_s)


@dataclass(frozen=True)
class Plan:
    """The answer."""

    setting: Setting
    costs: Costs
    bits: float
    modes: list[ModePlan]  # stop-and-wait, run-ahead, stream
    best: FixedMode
    gamma_without_rtt: int  # the paper's γ*
    speedup_without_rtt: float  # and its S(γ*)
    ks: list[KPlan]
    suggested_k: int


def modes(alpha: float, costs: Costs) -> list[ModePlan]:
    """Stop-and-wait at its best draft length, run-ahead's bound, and stream."""
    gamma = theory.best_draft_length(
        alpha, fixed_s=costs.fixed_s, draft_s=costs.drafted_s, longest=LONGEST
    )
    stream = theory.stream_time(costs)

    def one(mode: FixedMode, time_s: float, gamma: int | None, tokens: float | None) -> ModePlan:
        return ModePlan(mode, time_s, 1.0 / time_s, stream / time_s, gamma, tokens)

    wait = theory.stop_and_wait_time(alpha, gamma, costs)
    ahead = theory.run_ahead_time(alpha, costs)
    return [
        one("stop-and-wait", wait, gamma, theory.expected_tokens(alpha, gamma)),
        one("run-ahead", ahead, theory.run_ahead_window(costs), None),
        one("stream", stream, None, None),
    ]


def make(setting: Setting, measured: Mapping[int, float] | None = None) -> Plan:
    """The plan. ``measured``: acceptance at some K; it is then a plan for the best of those.

    Without it the plan is for the setting's K, and the acceptance is taken as the same at every K
    (it rises with K, by how much the pair decides); the largest K is suggested whose bits slow
    neither stop-and-wait nor run-ahead by more than 1%. Raises ValueError, with a line that says
    what to change, for impossible settings.
    """
    if not 0.0 <= setting.alpha <= 1.0:
        raise ValueError(f"alpha must be in [0, 1], not {setting.alpha}")
    if setting.draft_s <= 0.0:
        raise ValueError("the draft time must be above 0 seconds")
    costs = setting.costs()
    found = modes(setting.alpha, costs)
    ratio = costs.drafted_s / costs.target_s
    gamma = theory.best_draft_length(setting.alpha, fixed_s=1.0, draft_s=ratio, longest=LONGEST)
    alphas = dict(measured) if measured else dict.fromkeys(_ladder(setting), setting.alpha)
    ks = [_k_plan(replace(setting, k=k, alpha=alpha)) for k, alpha in sorted(alphas.items())]
    if measured:
        suggested = max(ks, key=lambda plan: plan.drafting_tokens_per_s).k
        return replace(
            make(replace(setting, k=suggested, alpha=alphas[suggested])),
            ks=ks,
            suggested_k=suggested,
        )
    wait, ahead, _ = modes(setting.alpha, replace(costs, uplink_s=0.0))
    cheap = [
        plan.k
        for plan in ks
        if plan.stop_and_wait_tokens_per_s >= 0.99 * wait.tokens_per_s
        and plan.run_ahead_tokens_per_s >= 0.99 * ahead.tokens_per_s
    ]
    suggested = max(cheap, default=ks[0].k)
    return Plan(
        setting,
        costs,
        setting.bits(),
        found,
        min(found, key=lambda plan: plan.time_per_token_s).mode,
        gamma,
        theory.speedup(setting.alpha, gamma, ratio),
        ks,
        suggested,
    )


def make_at_best(setting: Setting, measured: Mapping[int, float] | None = None) -> Plan:
    """The plan for the K that ``make`` suggests: all of it is about that one. Raises ValueError."""
    return make(replace(setting, k=make(setting, measured).suggested_k), measured)


def _ladder(setting: Setting) -> list[int]:
    """Powers of two, and the setting's own K; a lattice has no more than ℓ entries."""
    most = setting.vocab_size
    if setting.coding == "lattice":
        most = min(most, setting.total)
    powers = [1 << i for i in range(most.bit_length()) if 1 << i <= most]
    return sorted({*powers, min(setting.k, most)})


def _k_plan(setting: Setting) -> KPlan:
    costs = setting.costs()
    wait, ahead, _ = modes(setting.alpha, costs)
    assert wait.gamma is not None
    free = theory.run_ahead_time(setting.alpha, replace(costs, uplink_s=0.0))
    repay = 1.0 - (free - costs.pace_s) / costs.correction_s
    return KPlan(
        setting.k,
        setting.bits(),
        costs.uplink_s,
        setting.alpha,
        wait.gamma,
        wait.tokens_per_s,
        ahead.tokens_per_s,
        repay if repay <= 1.0 else None,
    )


@dataclass(frozen=True)
class PaperRow:
    """One K of the paper's speed-up figure in one way of counting bits."""

    k: int
    coding: Coding
    bits: float
    cost_ratio: float  # L
    gamma: int
    speedup: float  # S(γ*)
    speedups: list[float]  # S(γ), γ = 1, 2, ...


def paper_figure(alpha: float, total: int = 256, longest: int = 20) -> list[PaperRow]:
    """S(γ) for the paper's K: with its count of bits, with all bits of it, and on a lattice.

    The paper's costs: no round trip, 50 Mbit/s, V = 32000; ``total`` is the lattice's ℓ.
    """
    rows = []
    codings: tuple[Coding, ...] = ("paper", "fp16", "lattice")
    for k in PAPER_KS:
        for coding in codings:
            # A whole row needs no ids: never more than ``dense``.
            bits = payload.topk_bits(PAPER_VOCAB, k, coding, total)
            bits = min(bits, payload.dense_bits(PAPER_VOCAB))
            ratio = (PAPER_DRAFT_S + bits / PAPER_RATE) / PAPER_TARGET_S
            gamma = theory.best_draft_length(alpha, fixed_s=1.0, draft_s=ratio, longest=LONGEST)
            curve = [theory.speedup(alpha, g, ratio) for g in range(1, longest + 1)]
            best = theory.speedup(alpha, gamma, ratio)
            rows.append(PaperRow(k, coding, bits, ratio, gamma, best, curve))
    return rows

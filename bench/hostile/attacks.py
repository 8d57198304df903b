"""All attacks by their names, and what each needs of the base station."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from bench.hostile import proposers, speaker, strangers, thieves
from bench.hostile.place import TOKENS, Place
from bench.hostile.strangers import Head
from draftlink.protocol import frames

Play = Callable[[Place], Awaitable[None]]


@dataclass(frozen=True)
class Attack:
    """``play`` goes on until it is cancelled; ``prepare`` comes before it, once.

    ``holds``: it is 5,000 connections, beside which a new device is to be greeted. ``long``: the
    target's context holds 32,768 tokens. ``limits``: of the attacker's token, if not the default
    ones. ``poison``: what the base station's embedding makes of ``thieves.BAD``. ``kernel``: nearly
    all that it costs is the kernel's work on packets, which no process is charged for in full, and
    which delays all others however little the base station does; its control is therefore itself,
    against a listening socket that nobody looks after.
    """

    play: Play
    prepare: Play | None = None
    holds: bool = False
    tls: bool = False
    long: bool = False
    limits: str = ""
    poison: Literal["", "nan", "raise"] = ""
    kernel: bool = False


def _holding(head: Head, *, drips: bool = False, tls: bool = False) -> Attack:
    return Attack(lambda place: strangers.hold(place, head, drips=drips), holds=True, tls=tls)


async def _hellos(place: Place) -> None:
    """Handshakes with a token and a Hello behind each, as fast as can be."""
    data = frames.encode(speaker.hello())
    upgrade = place.upgrade(token=TOKENS["thief"])
    await strangers.floods(place, upgrade + speaker.masked(data))


def attacks() -> dict[str, Attack]:
    """All of them."""
    short, ids = f"prompt_tokens={thieves.PROMPT}", thieves.Ids()
    return {
        "strangers": Attack(strangers.strangers),
        "wrong": Attack(strangers.wrong),
        "tiny": Attack(thieves.tiny),
        "pings": Attack(thieves.pings),
        "oversize": Attack(thieves.oversize),
        "bombs": Attack(lambda place: thieves.prompts(place, None), limits=short),
        "prompts": Attack(lambda place: thieves.prompts(place, thieves.PROMPT), limits=short),
        "deaf": Attack(thieves.deaf),
        "upgrade-body": _holding(strangers.upgrade_body),
        "upgrade-chunked": _holding(strangers.upgrade_chunked),
        "upgrade-headers": _holding(strangers.upgrade_headers),
        "upgrade-line": _holding(strangers.upgrade_line),
        "slow-heads": _holding(strangers.slow_head, drips=True),
        "tcp-silent": _holding(strangers.silent),
        "tls-silent": _holding(strangers.silent, tls=True),
        "accepted-silent": _holding(strangers.accepted),
        "poison": Attack(thieves.poison, poison="nan"),
        "poison-forward": Attack(thieves.poison, poison="raise"),
        "wide": Attack(lambda place: thieves.wide(place, 1)),
        "wide-16": Attack(lambda place: thieves.wide(place, 16)),
        "long-start": Attack(thieves.long_start, long=True),
        "ids": Attack(ids.play, ids.prepare, long=True),
        "flood-connect": Attack(strangers.connects, kernel=True),
        "flood-hello": Attack(_hellos),
        "flood-frames": Attack(thieves.overtaken),
        "beside": Attack(proposers.beside),
        "dead-paths": Attack(proposers.dead_paths),
        "old-bases": Attack(proposers.old_bases),
        "blocks": Attack(proposers.blocks),
    }

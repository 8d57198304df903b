"""What the drafting window asks the device to do: values, which the asynchronous shells carry out.

A window never sees a token's id. What it asks for names positions and counts of tokens, and the
shell, which holds the ids, knows which ones these are.
"""

from __future__ import annotations

from typing import Literal, NamedTuple


class Draft(NamedTuple):
    """Draft so many ``tokens`` behind the history and all that has been drafted.

    ``begins`` is the position at which the epoch began, whose random numbers they are drawn from;
    ``fresh`` says that nothing drafted is in flight before them.
    """

    tokens: int
    begins: int
    fresh: bool


class Reuse(NamedTuple):
    """Take so many shown provisional ``tokens``, from number ``first`` on, as drafted."""

    first: int
    tokens: int


class Send(NamedTuple):
    """Send the oldest ``tokens`` that were drafted and not sent, as one block.

    With ``waits`` the device binds itself to draft nothing behind them until their verdict.
    """

    tokens: int
    waits: bool


class Propose(NamedTuple):
    """Send the next ``tokens`` of the path that were not sent, where both ends write.

    ``goes_on``: more are to come whether or not anything is heard meanwhile.
    """

    tokens: int
    goes_on: bool


class Switch(NamedTuple):
    """Tell the base station who writes from here on: it alone (``stream``), or the device."""

    mode: Literal["stream", "draft"]


class GiveBack(NamedTuple):
    """The base station writes alone from here on, and nothing that was drafted is in flight."""


class Follow(NamedTuple):
    """Feed the draft the first ``until`` tokens of the history, and propose the next one.

    It is not sent, but compared with what the base station writes. ``begins`` as for ``Draft``.
    """

    until: int
    begins: int


class Show(NamedTuple):
    """Show as provisional the drafted tokens from number ``first`` on, which are in flight."""

    first: int


class Guess(NamedTuple):
    """Draft one token behind those that are shown, and show it as provisional.

    With ``apart`` what is shown belongs to an epoch that has ended: the token is for show alone. It
    is drawn from numbers that nothing else uses, and the cache is rolled back to the history before
    and after. ``begins`` as for ``Draft``.
    """

    begins: int
    apart: bool


class Wait(NamedTuple):
    """Nothing is due until something comes, or until a time; None is for ever."""

    until_s: float | None


Action = Draft | Reuse | Send | Propose | Switch | GiveBack | Follow | Show | Guess | Wait

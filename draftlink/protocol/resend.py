"""The frames of a generation that are sent again after a lost connection, and their numbers.

Drafts and switches go up, verdicts, tokens and switches that were carried out come down: each end
numbers its own from 0, counts the peer's, and keeps the bytes of those that the peer may lack.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from draftlink.protocol import frames


@dataclass
class Numbering:
    """One end's count. ``kept``: numbers and bytes of frames that the peer may not have had."""

    sent: int = 0
    received: int = 0
    kept: list[tuple[int, bytes]] = field(default_factory=list)
    began: int = 0  # ``sent`` when the epoch began: a peer that is in it has had those before

    def add(self, data: bytes, *, begins: bool) -> None:
        """A frame is sent; ``begins``: an epoch begins behind it."""
        self.kept.append((self.sent, data))
        self.sent += 1
        if begins:
            self.began = self.sent

    def lacks(self, seen: int) -> list[bytes]:
        """The frames that a peer which has had ``seen`` of them lacks."""
        return [data for number, data in self.kept if number >= seen]

    def has(self, seen: int) -> bool:
        """Whether a peer which has had ``seen`` frames can be told all that it lacks."""
        return self.sent - len(self.kept) <= seen <= self.sent

    def in_epoch(self) -> None:
        """The peer has shown that it is in the epoch."""
        self.kept = [one for one in self.kept if one[0] >= self.began]

    def keep(self, drafts: int) -> None:
        """Of the drafts the peer may lack the last so many, and any switch."""
        sent = [one for one in self.kept if frames.kind(one[1]) == "Draft"]
        switches = [one for one in self.kept if frames.kind(one[1]) != "Draft"]
        self.kept = sent[len(sent) - drafts :] + switches

    def keep_last(self, count: int) -> None:
        """The peer may lack the last ``count`` frames."""
        self.kept = self.kept[len(self.kept) - count :]

    def go_on_from(self, handled: int) -> None:
        """The peer has had ``handled`` frames; what it lacks, if kept, is numbered from there.

        What was overtaken meanwhile is not sent again, and has no number any more.
        """
        behind = [one for one in self.kept if one[0] < handled]
        again = list(enumerate(self.lacks(handled), handled))
        self.kept, self.sent = behind + again, handled + len(again)

    def restart(self) -> None:
        """Both ends number from 0 again; what is kept comes first."""
        self.kept = list(enumerate(data for _, data in self.kept))
        self.sent, self.received, self.began = len(self.kept), 0, 0

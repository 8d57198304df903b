"""Connections that no session owns: not accepted yet, or done with. Few, short, and fair.

A stranger can open as many as he likes, so none of them may keep out another: where all places are
taken, the newest gets one, and the oldest goes of the address that has most. No I/O: time is an
argument.
"""

from __future__ import annotations

import heapq
import ipaddress
from collections.abc import Callable
from dataclasses import dataclass, field


def _nothing() -> None:
    """Of a connection that is over there is nothing to close."""


@dataclass(eq=False)
class Place:
    """A connection's place among the pending ones, from its first packet until it is accepted."""

    pending: Pending
    network: str
    until: float
    end: Callable[[], None] = _nothing  # closes the connection, whatever holds it
    accepted: Callable[[], None] = _nothing  # is told when the application has accepted it
    number: int = field(default=0)  # of all that were ever taken

    def accept(self) -> None:
        """The application has accepted the connection."""
        self.pending.leave(self)
        self.accepted()

    def lose(self) -> None:
        """The connection is over."""
        self.pending.leave(self)
        self.end = self.accepted = _nothing  # which hold the connection, and are held by it

    def come_back(self, until: float) -> None:
        """The application has done with the connection, which is to end before ``until``."""
        self.pending.leave(self)
        self.until = until
        self.pending.enter(self)


class Pending:
    """``places`` for connections; none is kept beyond its time."""

    def __init__(self, places: int) -> None:
        self.places = places
        self.ended = 0  # for others' sake
        self._taken = 0
        self._number = 0
        self._networks: dict[str, dict[Place, None]] = {}  # each: oldest first
        # Each network as it is, and as it was: how many it has, negative, and which is its oldest.
        self._heaviest: list[tuple[int, int, str]] = []

    def __len__(self) -> int:
        return self._taken

    def take(self, address: str, until: float) -> Place:
        """A place for a new connection from ``address``, an IP address; another may end for it."""
        place = Place(self, network(address), until)
        self.enter(place)
        return place

    def enter(self, place: Place) -> None:
        """Count the connection of ``place``."""
        self._number += 1
        place.number = self._number
        self._networks.setdefault(place.network, {})[place] = None
        self._taken += 1
        self._weigh(place.network)
        if self._taken > self.places:
            self.cut(1)

    def leave(self, place: Place) -> None:
        """Count it no longer; nothing happens where it is not counted."""
        places = self._networks.get(place.network, {})
        if place in places:
            del places[place]
            self._taken -= 1
            if not places:
                del self._networks[place.network]
            self._weigh(place.network)

    def cut(self, count: int) -> int:
        """End ``count`` connections, each the oldest of the address that has most; how many were.

        Of addresses that have as many, that one goes whose oldest is older.
        """
        for done in range(count):
            if not self._networks:
                return done
            while (one := self._heaviest[0]) != self._weight(one[2]):
                heapq.heappop(self._heaviest)
            self._end(_oldest(self._networks[one[2]]))
            self.ended += 1
        return count

    def expire(self, now: float) -> None:
        """End those whose time is up."""
        late = [one for places in self._networks.values() for one in places if one.until <= now]
        for place in late:
            self._end(place)

    def _weight(self, network: str) -> tuple[int, int, str] | None:
        places = self._networks.get(network)
        return (-len(places), _oldest(places).number, network) if places else None

    def _weigh(self, network: str) -> None:
        if (weight := self._weight(network)) is not None:
            heapq.heappush(self._heaviest, weight)
        if len(self._heaviest) > 4 * self.places + 64:  # most are of the past
            self._heaviest = [one for name in self._networks if (one := self._weight(name))]
            heapq.heapify(self._heaviest)

    def _end(self, place: Place) -> None:
        self.leave(place)
        place.end()


def _oldest(places: dict[Place, None]) -> Place:
    return next(iter(places))


def network(address: str) -> str:
    """Who can have ``address``: itself for IPv4; for IPv6 a /64, which one machine has whole."""
    if ":" not in address:
        return address
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address  # of another family
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return str(ip.ipv4_mapped)
        return str(ipaddress.IPv6Network((ip, 64), strict=False))
    return str(ip)

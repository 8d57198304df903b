"""Connections that no session owns: not accepted yet, or done with. Few, short, and fair.

A stranger can open as many as he likes, so none of them may keep out another: where all places are
taken, the newest gets one, and the oldest goes of the address that has most. No I/O: time is an
argument.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(eq=False)
class Place:
    """A connection's place among the pending ones, from its first packet until it is accepted."""

    pending: Pending
    network: str
    until: float
    end: Callable[[], None] = lambda: None  # closes the connection, whatever holds it
    number: int = field(default=0)  # of all that were ever taken

    def leave(self) -> None:
        """The application has accepted the connection, or it is lost."""
        self.pending.leave(self)

    def come_back(self, until: float) -> None:
        """The application has done with the connection, which is to end before ``until``."""
        self.leave()
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

    def cut(self, count: int) -> int:
        """End ``count`` connections, each the oldest of the address that has most; how many were.

        Of addresses that have as many, that one goes whose oldest is older.
        """
        for done in range(count):
            if not self._networks:
                return done
            heaviest = max(
                self._networks.values(), key=lambda places: (len(places), -_oldest(places).number)
            )
            self._end(_oldest(heaviest))
            self.ended += 1
        return count

    def expire(self, now: float) -> None:
        """End those whose time is up."""
        late = [one for places in self._networks.values() for one in places if one.until <= now]
        for place in late:
            self._end(place)

    def _end(self, place: Place) -> None:
        self.leave(place)
        place.end()


def _oldest(places: dict[Place, None]) -> Place:
    return next(iter(places))


def network(address: str) -> str:
    """Who can have ``address``: itself for IPv4; for IPv6 a /64, which one machine has whole."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address  # of another family
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return str(ip.ipv4_mapped)
        return str(ipaddress.IPv6Network((ip, 64), strict=False))
    return str(ip)

"""Who keeps a place where all are taken, and for how long."""

from __future__ import annotations

import math

import pytest

from bs_runtime.operations import descriptors
from bs_runtime.serving.pending import Pending, network


def enter(pending: Pending, address: str, end, until: float):
    place = pending.take(address, until)
    place.end = end
    return place


def take(pending: Pending, gone: list[str], address: str, until: float = math.inf):
    name = f"{address}#{len(gone)}"
    return enter(pending, address, lambda: gone.append(name), until)


def test_the_newest_gets_a_place_and_the_oldest_of_the_heaviest_goes():
    pending, gone = Pending(4), []
    for address in ("10.0.0.1", "10.0.0.2", "10.0.0.2", "10.0.0.2"):
        take(pending, gone, address)
    assert not gone and len(pending) == 4
    take(pending, gone, "10.0.0.3")
    assert [name[:8] for name in gone] == ["10.0.0.2"] and len(pending) == 4
    take(pending, gone, "10.0.0.3")  # two and two: the older goes
    take(pending, gone, "10.0.0.4")
    assert [name[:8] for name in gone[1:]] == ["10.0.0.2", "10.0.0.3"]
    for _ in range(100):  # a new address takes the place of the oldest, and then only its own
        take(pending, gone, "10.0.0.9")
    assert set(pending._networks) == {"10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.9"}


def test_where_all_come_from_one_address_the_oldest_goes():
    """As behind a proxy: a newcomer still has as long as it takes to fill all places."""
    pending, order = Pending(8), []
    for number in range(50):
        enter(pending, "127.0.0.1", lambda number=number: order.append(number), math.inf)
    assert order == list(range(42))


def test_a_place_lasts_as_long_as_its_time():
    pending, gone = Pending(4), []
    early, late = take(pending, gone, "a", 5.0), take(pending, gone, "b", 9.0)
    pending.expire(4.9)
    assert not gone
    pending.expire(5.0)
    assert gone == ["a#0"] and len(pending) == 1
    early.accept()  # it was lost already
    late.come_back(6.0)
    assert len(pending) == 1
    late.accept()
    late.accept()
    pending.expire(math.inf)
    assert len(gone) == 1 and not len(pending)
    late.come_back(7.0)  # accepted, and done with
    pending.expire(7.0)
    assert gone == ["a#0", "b#0"] and not pending._networks


def test_no_more_are_cut_than_there_are():
    pending, gone = Pending(9), []
    for _ in range(3):
        take(pending, gone, "a")
    assert pending.cut(2) == 2 and pending.cut(2) == 1 and pending.cut(2) == 0
    assert len(gone) == 3


@pytest.mark.parametrize(
    ("address", "whose"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_whose_an_address_is(address, whose):
    assert network(address) == whose


@pytest.mark.parametrize(
    ("available", "sessions", "given"),
    [
        (math.inf, 256, (256, 256)),
        (1024, 256, (256, 256)),
        (1024, 5000, (880, 16)),
        (512, 256, (256, 128)),
        (256, 256, (112, 16)),
        (10, 256, (16, 16)),
    ],
)
def test_devices_come_before_strangers_where_descriptors_are_few(available, sessions, given):
    assert descriptors.share(available, sessions, 256) == given

"""The modelled link in virtual time: its rate, its delay, its order, every byte."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftlink.link import shaping
from draftlink.link.shaping import SEGMENT_BYTES, Flow, LinkProfile, Rate, Shaper, make_link


def constant(rate: float, delay_s: float = 0.0, **rest: float) -> Shaper:
    return Shaper(Rate((0.0,), (rate,)), delay_s, **rest)  # type: ignore[arg-type]


def played(flow: Flow, until: float = 1e9) -> list[tuple[float, bytes]]:
    """What comes out and when, read at the very times that the flow names."""
    out = []
    while (at := flow.next_s) is not None and at <= until:
        before = flow.read(math.nextafter(at, -math.inf))[0]
        assert before == b""  # not a moment earlier
        out.append((at, flow.read(at)[0]))
    return out


@pytest.mark.parametrize("name", shaping.PROFILES)
def test_each_profile_delivers_its_rate_and_delay(name):
    profile = shaping.adjusted(shaping.profile(name), loss=0.0)
    link = make_link(profile)
    for shaper, rate in [(link.up, profile.rate_up), (link.down, profile.rate_down)]:
        flow = Flow(shaper)
        size = 1_000_000
        # A message after a quiet time: serialisation and half a round trip, exactly.
        assert flow.write(bytes(size), 2.0) == pytest.approx(
            2.0 + 8 * size / rate + profile.rtt_s / 2
        )
        # One more at once queues behind it; one after an idle time does not.
        assert flow.write(bytes(size), 2.0) == pytest.approx(
            2.0 + 16 * size / rate + profile.rtt_s / 2
        )
        assert flow.write(b"x", 99.0) == pytest.approx(99.0 + 8 / rate + profile.rtt_s / 2)
        assert sum(len(piece) for _, piece in played(flow)) == 2 * size + 1


def test_directions_are_apart():
    link = make_link(LinkProfile(1e6, 8e6, 0.1))
    assert Flow(link.up).write(bytes(125_000), 0.0) == pytest.approx(1.05)
    assert Flow(link.down).write(bytes(125_000), 0.0) == pytest.approx(0.175)


def test_connections_share_the_rate_and_not_each_other_s_losses():
    shaper = constant(8e6, 0.01)
    one, two = Flow(shaper), Flow(shaper)
    assert one.write(bytes(1000), 0.0) == pytest.approx(0.011)
    assert two.write(bytes(1000), 0.0) == pytest.approx(0.012)
    stalled = Shaper(Rate((0.0,), (8e6,)), 0.01, loss=0.4, stall_s=1.0, seed="3")
    flows = [Flow(stalled) for _ in range(50)]
    times = [flow.write(bytes(1000), 0.0) for flow in flows]
    assert any(b < a for a, b in itertools.pairwise(times))


@given(
    st.lists(st.tuples(st.binary(max_size=5000), st.floats(0, 0.3)), max_size=25),
    st.floats(0, 0.1),
    st.floats(0, 0.45),
    st.integers(0, 99),
    st.lists(st.tuples(st.floats(0, 3), st.floats(0.01, 2)), max_size=3),
)
def test_no_byte_is_lost_or_overtakes_another(writes, jitter_s, loss, seed, outages):
    profile = LinkProfile(2e5, 2e5, 0.05, jitter_s, loss)
    outages = [(start, start + length) for start, length in outages]
    flow = Flow(make_link(profile, outages=outages, seed=seed).up)
    now, sent, free = 0.0, b"", 0.0
    for data, gap in writes:
        now += gap
        arrives = flow.write(data, now)
        sent += data
        if data:
            free = max(free, now) + 8 * len(data) / 2e5
            assert arrives >= free + 0.025 - 1e-9  # never earlier than rate and delay allow
    flow.write_eof(now)
    out, ended, last = [], False, 0.0
    while (at := flow.next_s) is not None:
        assert at >= last and not ended
        last = at
        data, ended = flow.read(at)
        out.append(data)
    assert ended and b"".join(out) == sent
    with pytest.raises(ValueError, match="after the end"):
        flow.write(b"x", now)


def test_jitter_and_loss_have_the_stated_means_and_the_seed_decides():
    count = 40_000

    def delays(seed: int, **changes: float) -> np.ndarray:
        profile = LinkProfile(1e9, 1e9, 0.02, **changes)
        shaper = make_link(profile, stall_s=0.1, seed=seed).up
        # Alone on the link each time, so that nothing waits for what is before it.
        return np.array([shaper.transmit(0, float(now))[1] - now for now in range(count)])

    jittered = delays(1, jitter_s=0.004)
    assert jittered.min() >= 0.01 and jittered.max() <= 0.018 + 1e-9
    # Five standard errors of the mean of a uniform number from 0 to 8 ms.
    assert jittered.mean() == pytest.approx(0.014, abs=5 * 0.008 / math.sqrt(12 * count))

    lost = delays(1, loss=0.1)
    found = lost - 0.01
    assert (found > 1e-9).mean() == pytest.approx(0.1, abs=5 * math.sqrt(0.09 / count))
    # loss · stall / (1 − 2 loss); doubling timeouts: 0.1 s, 0.3 s, 0.7 s, ...
    assert found.mean() == pytest.approx(0.0125, abs=5 * found.std() / math.sqrt(count))
    assert np.allclose(np.unique(found.round(9))[:3], [0, 0.1, 0.3])
    assert (lost == delays(1, loss=0.1)).all() and (lost != delays(2, loss=0.1)).any()
    link = make_link(LinkProfile(1e9, 1e9, 0.02, jitter_s=0.01), seed=1)
    assert link.up.transmit(0, 0.0) != link.down.transmit(0, 0.0)


def test_the_mean_round_trip_is_what_messages_take():
    profile = LinkProfile(1e9, 1e9, 0.02, jitter_s=0.003, loss=0.05)
    link = make_link(profile, seed=9)
    trips = np.array(
        [link.down.transmit(0, link.up.transmit(0, t)[1])[1] - t for t in np.arange(0.0, 2e5, 10)]
    )
    slack = 5 * trips.std() / math.sqrt(len(trips))
    assert profile.mean_rtt_s == pytest.approx(trips.mean(), abs=slack)
    assert abs(profile.rtt_s - trips.mean()) > slack  # negative control


def test_a_lost_segment_holds_up_those_behind_it_and_no_longer():
    """By default a loss costs a retransmission timeout: the round trip and 200 ms."""
    flow = Flow(make_link(LinkProfile(1e6, 1e6, 0.06, loss=0.05), seed=4).up)
    for now in range(400):
        flow.write(bytes(SEGMENT_BYTES), now * 0.05)
    times = np.array(
        [at for at, piece in played(flow) for _ in range(0, len(piece), SEGMENT_BYTES)]
    )
    lateness = times - (np.arange(400) * 0.05 + 8 * SEGMENT_BYTES / 1e6 + 0.03)
    assert 0.03 < (lateness > 1e-9).mean() < 0.5
    assert lateness.max() >= 0.26 - 1e-9
    behind = lateness[1:][lateness[:-1] > 0.21]  # the next one, 50 ms later, waits that much less
    assert (behind >= 0.16 - 1e-9).all()
    assert (lateness < 1e-9).sum() > 200


def test_an_outage_holds_bytes_back_for_exactly_its_length():
    flow = Flow(make_link(LinkProfile(1e6, 1e6, 0.02), outages=[(1.0, 6.0), (8.0, 8.5)]).up)
    assert flow.write(bytes(12_500), 0.95) == pytest.approx(0.95 + 0.1 + 5.0 + 0.01)
    assert flow.write(b"", 3.0) == pytest.approx(6.06)  # writes nothing, changes nothing
    assert flow.write(bytes(1250), 8.2) == pytest.approx(8.5 + 0.01 + 0.01)
    assert flow.write_eof(8.2) == pytest.approx(8.52)


def test_a_trace_is_followed():
    up, down = shaping.read_trace("time_s,rate_up,rate_down\n0,1e6,2e6\n1,0,2e6\n3,4e6,2e6\n\n")
    flow = Flow(make_link(LinkProfile(1, 1, 0.0), trace=(up, down)).up)
    assert flow.write(bytes(62_500), 0.0) == pytest.approx(0.5)
    # 0.5 s at 1 Mbit/s, 2 s of nothing, and the rest at 4 Mbit/s.
    assert flow.write(bytes(187_500), 0.0) == pytest.approx(3.0 + 1e6 / 4e6)
    both = shaping.read_trace("time_s, rate\n0,1e6")
    assert both[0] == both[1] == Rate((0.0,), (1e6,))


@given(st.lists(st.tuples(st.floats(0.01, 2), st.sampled_from([0.0, 10.0, 333.0])), max_size=8))
def test_a_rate_over_time_against_its_integral(pieces):
    starts = (0.0, *np.cumsum([length for length, _ in pieces]).tolist())
    rate = Rate(starts, (*(r for _, r in pieces), 50.0))
    for start in (0.0, 0.5, 3.0):
        for bits in (0.5, 100.0, 4000.0):
            end = rate.finish(start, bits)
            edges = np.unique([start, end, *[s for s in starts if start < s < end]])
            area = sum(rate.at(a) * (b - a) for a, b in itertools.pairwise(edges))
            assert area == pytest.approx(bits, rel=1e-6)


def test_room_and_unread_bound_what_is_buffered():
    flow = Flow(constant(8e6, 1.0))
    flow.write(bytes(146_000), 0.0)  # a segment every 1.46 ms
    assert flow.room_s(146_000, 0.0) == 0.0
    assert flow.room_s(14_600, 0.0) == pytest.approx(0.146 - 0.0146)
    assert flow.room_s(0, 0.0) == pytest.approx(0.146)
    assert flow.room_s(0, 0.2) == 0.2
    assert flow.unread(1.0) == 0 and flow.unread(1.0146 + 1e-9) == 14_600
    assert flow.unread(2.0) == 146_000
    flow.read(2.0)
    assert flow.unread(2.0) == 0


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "first line"),
        ("0,1e6", "first line"),
        ("time_s,rate\n0", "2 numbers"),
        ("time_s,rate\n0,fast", "2 numbers"),
        ("time_s,rate\n1,1e6", "starts at 0"),
        ("time_s,rate", "starts at 0"),
        ("time_s,rate\n0,1e6\n0,2e6", "must rise"),
        ("time_s,rate\n0,1e6\n5,0", "the last rate"),
        ("time_s,rate\n0,-1\n5,1", "at least 0"),
        ("time_s,rate\n0,nan", "at least 0"),
    ],
)
def test_bad_traces(text, words):
    with pytest.raises(ValueError, match=words):
        shaping.read_trace(text)


def test_bad_profiles():
    good = {"rate_up": 1.0, "rate_down": 1.0, "rtt_s": 0.0}
    for change in [{"rate_up": 0}, {"rate_down": math.nan}, {"rtt_s": -1}, {"loss": 0.5}]:
        with pytest.raises(ValueError, match=next(iter(change))):
            LinkProfile(**{**good, **change})
    with pytest.raises(ValueError, match="there are wifi, lte"):
        shaping.profile("4g")
    with pytest.raises(ValueError, match="an outage ends after"):
        make_link(LinkProfile(**good), outages=[(2.0, 1.0)])
    with pytest.raises(ValueError, match="stall_s"):
        make_link(LinkProfile(**good), stall_s=-1.0)

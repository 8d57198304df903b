"""Limits and tokens: what is let through, when, and what a file may say."""

from __future__ import annotations

import hashlib
import math

import pytest

from bs_runtime.operations.limits import BURST_S, OPEN, PATIENCE_S, Bucket, Limits, Refusal, Tenant
from bs_runtime.serving.auth import load_tokens

TOKEN = "a-token-of-some-length"


def test_a_burst_is_free_and_then_the_rate_holds():
    bucket = Bucket(10.0, 100.0)
    assert bucket.take(10 * BURST_S, 100.0) == 0.0
    assert bucket.take(5, 100.0) == pytest.approx(0.5)
    assert bucket.take(5, 100.0) == pytest.approx(1.0)  # behind the one before
    assert bucket.take(1, 102.0) == 0.0


def test_over_any_time_no_more_than_the_rate_and_one_burst():
    bucket, now, taken = Bucket(50.0, 0.0), 0.0, 0
    while now < 30.0:
        now += bucket.take(7, now)
        taken += 7
    assert taken <= 50.0 * (now + BURST_S) + 7


def test_who_would_wait_too_long_is_told_when_to_come_back():
    bucket = Bucket(10.0, 0.0)
    bucket.take(10 * BURST_S + 10 * PATIENCE_S, 0.0)
    level = bucket._level
    with pytest.raises(Refusal) as caught:
        bucket.take(10, 0.0)
    assert caught.value.code == "busy" and caught.value.retry_after_s == PATIENCE_S + 1
    assert bucket._level == level  # nothing was taken
    assert bucket.take(10, float(caught.value.retry_after_s)) <= PATIENCE_S


def test_spending_never_borrows():
    bucket = Bucket(1.0, 0.0)
    assert bucket.spend(BURST_S, 0.0) and not bucket.spend(1, 0.5) and bucket.spend(1, 1.0)


def test_without_a_rate_nothing_waits():
    assert Bucket(math.inf, 0.0).take(1e12, 0.0) == 0.0
    Tenant("", OPEN).admit(0.0)


def test_sessions_of_a_tenant():
    tenant = Tenant("x", Limits(sessions=2))
    tenant.admit(0.0)
    tenant.admit(0.0)
    with pytest.raises(Refusal, match="2 sessions"):
        tenant.admit(0.0)
    tenant.leave()
    tenant.admit(0.0)


def test_connections_of_a_tenant():
    tenant = Tenant("x", Limits(connections_per_s=1))
    for _ in range(int(BURST_S)):
        tenant.admit(0.0)
        tenant.leave()
    with pytest.raises(Refusal, match="too often"):
        tenant.admit(0.5)
    assert tenant.sessions == 0
    tenant.admit(1.0)


@pytest.mark.parametrize("text", ["speed=3", "sessions", "sessions=", "sessions=-1", "idle_s=nan"])
def test_a_limit_that_is_none(text):
    with pytest.raises(ValueError, match=r"is no limit such as .* frames_per_s"):
        Limits().with_([text])


def test_a_tokens_file(tmp_path):
    path = tmp_path / "tokens"
    hidden = hashlib.sha256(b"known-by-its-hash-only").hexdigest()
    path.write_text(
        f"# who may draft\n{TOKEN} phone sessions=2\n\n* tokens_per_s=100\n"
        f"sha256:{hidden}  # a comment\nthe-operator-s-own-token ops operator\n"
    )
    tokens = load_tokens(path)
    phone = tokens.find(f"Bearer {TOKEN}")
    assert (phone.name, phone.limits.sessions, phone.operator) == ("phone", 2, False)
    assert phone.limits.tokens_per_s == Limits().tokens_per_s
    other = tokens.find("bearer known-by-its-hash-only")
    assert (other.name, other.limits.tokens_per_s) == (f"token-{hidden[:12]}", 100)
    assert tokens.find("Bearer the-operator-s-own-token").operator
    for header in (None, "", "Bearer", "Bearer ", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x"):
        assert tokens.find(header) is None
    assert tokens.find(f"Bearer sha256:{hidden}") is None  # the hash is not the token
    assert tokens.find("Bearer \u00e9\u4e2d") is None


def test_a_line_that_goes_changes_no_other_token_s_name(tmp_path):
    """A ticket is sealed for its tenant's name: the next in line must not inherit it."""
    path = tmp_path / "tokens"
    unnamed = [f"{TOKEN}-{i}" for i in range(4)]
    path.write_text("\n".join(unnamed))
    before = [load_tokens(path).find(f"Bearer {token}").name for token in unnamed]
    path.write_text("\n".join(["the-first-of-all-tokens", *unnamed[1:]]))
    after = [load_tokens(path).find(f"Bearer {token}").name for token in unnamed[1:]]
    assert len(set(before)) == 4 and after == before[1:]
    path.write_text(f"{TOKEN}-9 {before[1]}\n{unnamed[1]}")
    with pytest.raises(ValueError, match=r"line 2: the name .* stands above"):
        load_tokens(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no token"),
        ("short", "line 1: a token has at least 16"),
        (f"{TOKEN}\n{TOKEN}", "line 2: this token stands above"),
        (f"{TOKEN} a\n{TOKEN}x a", "line 2: the name 'a' stands above"),
        (f"{TOKEN} a b", "line 1: one name"),
        (f"{TOKEN} speed=1", "line 1: 'speed=1' is no limit"),
        ("sha256:00", "64 hexadecimal digits"),
        ("sha256:xy", "line 1: "),
    ],
)
def test_a_tokens_file_with_a_mistake(text, words, tmp_path):
    path = tmp_path / "tokens"
    path.write_text(text)
    with pytest.raises(ValueError, match=words):
        load_tokens(path)
    with pytest.raises(ValueError, match="cannot be read"):
        load_tokens(tmp_path / "none")

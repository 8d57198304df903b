"""How devices join: the code says the link, nothing else does; who answers has the pinned key."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
import zxingcpp
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from bs_runtime.operations import certificate
from bs_runtime.operations.limits import Limits, Tenant
from bs_runtime.serving import auth, join, server
from device_runtime.transport.connecting import LinkError, connector
from device_runtime.transport.fetch import Station
from draftlink.cli.bs import bs
from draftlink.host import joining
from tests.fake_models import fake_device, random_logits
from tests.fakes import FakeTarget, served, serving

TABLE = random_logits(1, 20)
URL, TOKEN, PIN = "wss://192.168.1.20:8765", "a-token-of-forty-three-characters-or-so-000", "A" * 43
JOIN = join.invite(URL, TOKEN, PIN)


def read(rows: tuple[str, ...]) -> str:
    """What a reader that is not ours finds in a code."""
    modules = np.array([[255 * (sign == "0") for sign in row] for row in rows], np.uint8)
    [found] = zxingcpp.read_barcodes(np.kron(modules, np.ones((4, 4), np.uint8)))
    return str(found.text)


def drawn(text: str) -> tuple[str, ...]:
    """The rows of modules that a terminal shows."""
    whole = {halves: pair for pair, halves in join._HALVES.items()}
    rows = []
    for line in re.findall(r"\x1b\[38;5;231;48;5;16m([█▀▄ ]+)\x1b\[0m", text):
        rows += ["".join(whole[sign][half] for sign in line) for half in (0, 1)]
    return tuple(rows)


def test_a_reader_finds_the_link_on_page_and_terminal():
    for rows in (JOIN.rows, drawn(join.terminal(JOIN))):
        link = urlsplit(read(rows))
        assert (link.scheme, link.netloc) == ("draftlink", "join")
        assert parse_qs(link.query) == {"url": [URL], "token": [TOKEN], "pin": [PIN]}
    assert TOKEN not in repr(JOIN)


def test_what_is_not_needed_is_not_said():
    link = joining.link("ws://[fe80::1]:8765", None, None)
    assert parse_qs(urlsplit(link).query) == {"url": ["ws://[fe80::1]:8765"]}


def test_the_page_shows_it_to_who_has_the_token():
    known = auth.joined(TOKEN, Limits(), auth.Tokens((
        (auth._digest("the-operator-s-token"), Tenant("ops", Limits(), operator=True)),
        (auth._digest("another-s-own-token"), Tenant("other", Limits())),
    )))  # fmt: skip

    def asked(url: str, token: str | None) -> tuple[int, bytes]:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        request = urllib.request.Request(url.replace("ws", "http", 1) + "/join", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                assert answer.headers["cache-control"] == "no-store"
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    with served(FakeTarget(TABLE), tokens=known, join=JOIN) as url:
        for token in (None, "the-operator-s-token", "another-s-own-token", TOKEN + "0"):
            status, body = asked(url, token)
            assert status == 401 and TOKEN.encode() not in body
        status, body = asked(url, TOKEN)
        assert status == 200 and json.loads(body) == {"link": JOIN.link, "rows": list(JOIN.rows)}
    with served(FakeTarget(TABLE), tokens=known) as url:
        assert asked(url, TOKEN)[0] == 404


def test_a_tokens_file_cannot_have_the_same_name_or_token():
    for taken in (
        (auth._digest(TOKEN), Tenant("phone", Limits())),
        (auth._digest("another-s-own-token"), Tenant(auth.JOINED, Limits())),
    ):
        with pytest.raises(ValueError, match="which are --qr's"):
            auth.joined(TOKEN, Limits(), auth.Tokens((taken,)))


@pytest.mark.parametrize("terminal", [True, False])
def test_the_command_tells_the_token_by_its_code_alone(
    terminal, tmp_path, monkeypatch, capsys, caplog
):
    """A journal would keep what is printed where no terminal is."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    given = {}

    def serve(app, load, ready, bound, **options):
        given.update(app=app, **options)
        monkeypatch.setattr("sys.stdout.isatty", lambda: terminal, raising=False)
        ready(SimpleNamespace(name="small"))
        bound.close()

    monkeypatch.setattr(server, "serve", serve)
    bs("tinypair", port=0, self_signed=True, qr=True)
    said, more = capsys.readouterr()
    token = (tmp_path / "draftlink" / join.TOKEN).read_text().strip()
    assert (tmp_path / "draftlink" / join.TOKEN).stat().st_mode & 0o077 == 0
    assert isinstance(given["tls"], ssl.SSLContext)
    assert given["app"].state.station.tokens.find(f"Bearer {token}").name == auth.JOINED
    assert token not in said + more + caplog.text
    pin = certificate.pin(tmp_path / "draftlink" / certificate.CERTIFICATE)
    assert f"--pin {pin} " in said and str(tmp_path / "draftlink" / join.TOKEN) in said
    if not terminal:
        assert drawn(said) == ()
        return
    link = parse_qs(urlsplit(read(drawn(said))).query)
    address = re.search(r"listening on (wss://127\.0\.0\.1:\d+) ", said)
    assert address and link == {"url": [address[1]], "token": [token], "pin": [pin]}


def test_the_token_is_kept_and_only_what_is_one_is_taken(tmp_path):
    path = tmp_path / "state" / join.TOKEN
    first = join.token(path)
    assert join.token(path) == first and len(first) == 43
    path.chmod(0o644)
    with pytest.raises(ValueError, match="others may read"):
        join.token(path)
    for wrong in (b"short", b"two words of some length", b"\xff" * 40, b"", b"x" * 300):
        path.unlink()
        path.write_bytes(wrong)
        path.chmod(0o600)
        with pytest.raises(ValueError, match="remove it, and another is made"):
            join.token(path)


def test_a_certificate_is_made_anew_for_the_same_key(tmp_path):
    chain, key = certificate.own(tmp_path, ["192.168.1.20", "bs.example.com"])
    first, made = certificate.pin(chain), chain.read_bytes()
    again, _ = certificate.own(tmp_path, ["10.0.0.7"])
    assert certificate.pin(again) == first and again.read_bytes() != made
    found = x509.load_pem_x509_certificate(made)
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "bs.example.com" in names.get_values_for_type(x509.DNSName)
    assert "192.168.1.20" in map(str, names.get_values_for_type(x509.IPAddress))
    assert key.stat().st_mode & 0o077 == 0
    server.tls_context(chain, key)
    for wrong in (
        b"no key at all",
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----",
    ):
        key.write_bytes(wrong)
        with pytest.raises(ValueError, match="remove it, and another is made"):
            certificate.own(tmp_path, [])


def spki(found: x509.Certificate) -> bytes:
    """The pin by a library: of the key, and not of the certificate."""
    digest = hashes.Hash(hashes.SHA256())
    digest.update(found.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    ))  # fmt: skip
    return digest.finalize()


def test_a_pin_is_of_the_key_in_a_certificate(tmp_path, certificate_of_another):
    own = x509.load_pem_x509_certificate(certificate.own(tmp_path, [])[0].read_bytes())
    for found in (own, x509.load_pem_x509_certificate(certificate_of_another.read_bytes())):
        data = found.public_bytes(serialization.Encoding.DER)
        pin = joining.check_pin(joining.pin_of(data))
        assert np.array_equal(
            np.frombuffer(base64.urlsafe_b64decode(pin + "="), np.uint8),
            np.frombuffer(spki(found), np.uint8),
        )
        for end in range(0, data.index(b"\x06\x03U\x1d")):  # before the extensions
            with pytest.raises(ValueError, match="certificate"):
                joining.pin_of(data[:end])
    assert certificate.pin(certificate_of_another) is None  # whoever signed it is asked
    for wrong in ("", "A" * 42, "A" * 44, "A" * 42 + "+", "A" * 42 + "\n"):
        with pytest.raises(ValueError, match="a pin has 43"):
            joining.check_pin(wrong)


@pytest.fixture
def certificate_of_another(tmp_path) -> Path:
    trustme = pytest.importorskip("trustme")
    path = tmp_path / "signed.pem"
    trustme.CA().issue_cert("bs.example.com").cert_chain_pems[0].write_to_path(path)
    return path


def test_a_device_and_a_download_go_by_the_pin(tmp_path):
    """And where another answers it never hears the token."""
    chain, key = certificate.own(tmp_path, [])
    pin, wrong = (
        certificate.pin(chain),
        joining.pin_of(
            ssl.PEM_cert_to_DER_cert(certificate.own(tmp_path / "other", [])[0].read_text())
        ),
    )
    assert pin is not None and pin != wrong
    known = auth.joined(TOKEN, Limits(), None)

    async def write(url: str, **trusted: str) -> list[object]:
        device = fake_device(url, TABLE)
        device._connect = connector(TOKEN, **trusted)
        async with device:
            return [t async for t in device.generate([1, 2], mode="stop-and-wait", max_tokens=20)]

    with serving(
        FakeTarget(TABLE), tls=server.tls_context(chain, key), tokens=known
    ) as (url, running):  # fmt: skip
        assert len(asyncio.run(write(url, pin=pin))) == 20
        before = running._station.stats.meter.counts.connections
        with pytest.raises(LinkError, match="another key than the pinned one"):
            asyncio.run(write(url, pin=wrong))
        with pytest.raises(LinkError, match="is not trusted"):
            asyncio.run(write(url))
        with pytest.raises(LinkError, match="has no TLS"):
            asyncio.run(write(url.replace("wss", "ws"), pin=pin))
        with pytest.raises(LinkError, match="another key than the pinned one"), Station(
            url, token=TOKEN, pin=wrong
        ).get("/v1/bundle"):  # fmt: skip
            pass
        with pytest.raises(LinkError, match="offers no bundle"), Station(
            url, token=TOKEN, pin=pin
        ).get("/v1/bundle"):  # fmt: skip
            pass
        counts = running._station.stats.meter.counts
        assert counts.connections == before and not counts.refused.get("token")
    with pytest.raises(ValueError, match="leave one"):
        connector(TOKEN, chain, pin=pin)

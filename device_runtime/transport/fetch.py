"""What a base station answers to GET: for files, which a WebSocket's messages are too small for.

The rules are those of the WebSocket (``connecting``): a token crosses a network over TLS only, no
redirect is followed with it, and an environment's proxy is used but for this machine.
"""

from __future__ import annotations

import http.client
import re
import ssl
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from device_runtime.transport.connecting import (
    LinkError,
    Lost,
    bearer,
    denied,
    may_be_pinned,
    may_have,
    parsed,
    trust,
    untrusted,
)
from draftlink.host.address import is_loopback

TIMEOUT_S: Final = 30.0  # without a byte
_RANGE = re.compile(r"bytes (\d{1,15})-(\d{1,15})/(\d{1,15})")
_SCHEMES = {"http": "ws", "https": "wss"}


class Answer:
    """A body that is on its way: where it begins in the whole, and how many bytes that has."""

    def __init__(self, response: http.client.HTTPResponse, begin: int, total: int | None) -> None:
        self._response = response
        self.begin = begin
        self.total = total

    def read(self, most: int) -> bytes:
        """The next bytes, at most so many; none at the end. Raises Lost."""
        try:
            return self._response.read1(most)
        except (OSError, http.client.HTTPException) as error:
            raise Lost(str(error) or type(error).__name__) from None


class Station:
    """A base station's address, and what it is asked with. Raises LinkError, ValueError.

    ``url``: ``wss://``, ``ws://``, or the same as ``https://`` and ``http://``. ``pin``: the key
    that is trusted, instead of certificates. ``timeout_s``: how long nothing may come.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        ca: Path | None = None,
        insecure: bool = False,
        pin: str | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        scheme, colon, rest = url.partition("://")
        self.url = _SCHEMES.get(scheme.lower(), scheme) + colon + rest
        self._address = parsed(self.url)
        self._headers = bearer(token)
        may_have(token, self._address, insecure=insecure)
        may_be_pinned(pin, self._address)
        self._tls = trust(ca, pin) if self._address.scheme == "wss" else None
        self._timeout_s = timeout_s

    @contextmanager
    def get(self, path: str, begin: int = 0) -> Iterator[Answer]:
        """What is at a path, from byte ``begin`` on if the other end has it so.

        Raises Lost where another attempt may help, else LinkError.
        """
        connection = self._connection()
        headers = {**self._headers, "Accept-Encoding": "identity"}
        if begin:
            headers["Range"] = f"bytes={begin}-"
        try:
            try:
                connection.request("GET", self._address.path.rstrip("/") + path, headers=headers)
                response = connection.getresponse()
            except ssl.SSLCertVerificationError as error:
                raise untrusted(self.url, error) from None
            except (OSError, http.client.HTTPException) as error:
                raise Lost(str(error) or type(error).__name__) from None
            with response:  # which else holds the connection open
                yield self._answer(response)
        finally:
            connection.close()

    def _answer(self, response: http.client.HTTPResponse) -> Answer:
        if response.status == 200:
            return Answer(response, 0, response.length)
        if response.status == 206:
            found = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
            if found is not None:
                first, last, total = (int(number) for number in found.groups())
                if first <= last < total and response.length == last + 1 - first:
                    return Answer(response, first, total)
            raise LinkError(f"{self.url} sent a part of a file, and did not say which")
        try:
            body = response.read(200)
        except (OSError, http.client.HTTPException):
            body = b""
        raise denied(
            self.url, response.status, body, lambda name: response.headers.get_all(name) or []
        )

    def _connection(self) -> http.client.HTTPConnection:
        """Not open yet. Raises LinkError for a proxy of the environment that cannot be used."""
        host, secure = self._address.hostname or "", self._tls is not None
        port = self._address.port or (443 if secure else 80)
        via = None if is_loopback(host) or urllib.request.proxy_bypass(host) else _proxy(secure)
        where = (host, port) if via is None else via
        made: http.client.HTTPConnection
        if self._tls is not None:
            made = http.client.HTTPSConnection(*where, timeout=self._timeout_s, context=self._tls)
        else:
            made = http.client.HTTPConnection(*where, timeout=self._timeout_s)
        if via is not None:
            made.set_tunnel(host, port)
        return made


def _proxy(secure: bool) -> tuple[str, int] | None:
    """The environment's proxy. Raises LinkError for one of another kind than HTTP's."""
    named = urllib.request.getproxies()
    url = named.get("https" if secure else "http") or named.get("all")
    if not url:
        return None
    try:
        address = urlsplit(url if "://" in url else f"http://{url}")
        port = address.port or 80
    except ValueError:
        address, port = urlsplit(""), 0
    if address.scheme != "http" or not address.hostname or "@" in address.netloc:
        raise LinkError(
            "the proxy that the environment names cannot be used here; unset http_proxy and its"
            " like, or add the base station to no_proxy"
        )
    return address.hostname, port

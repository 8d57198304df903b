"""Making a connection to a base station: who may have the token, and what a denial means."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from enum import Enum, auto
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import SplitResult, urlsplit

from websockets.asyncio.client import connect
from websockets.exceptions import (
    InvalidHandshake,
    InvalidMessage,
    InvalidProxy,
    InvalidStatus,
    InvalidURI,
)

from device_runtime.transport import pinned
from draftlink.host.address import is_loopback, websocket
from draftlink.host.plain import printable
from draftlink.protocol import frames
from draftlink.protocol.control import MAX_RETRY_S

PATH = "/v1/draft"
CLOSE_S = 5.0  # for the peer to close its end
BUSY_S = 1  # after which to ask again, where a busy station names no number of seconds


class Stage(Enum):
    """Where a client's connection is."""

    OPEN = auto()  # it is there, or the next send or receive finds that it is not
    MENDING = auto()  # it was lost, and a new one is looked for
    LOST = auto()  # for good: patience has ended
    CLOSED = auto()  # by this device


class LinkError(ConnectionError):
    """The base station cannot be reached, refuses, or has gone; the text says what to do.

    The text is one line that a terminal can show: what the peer said in it does nothing there.
    ``retry_after_s``: when to try again, where the base station was only busy.
    """

    def __init__(self, text: str, retry_after_s: int | None = None) -> None:
        super().__init__(printable(text))
        self.retry_after_s = retry_after_s


class Lost(Exception):
    """The connection is not there, or no more; the text says how that showed.

    ``retry_after_s``: when to come back, where the base station is there and said so.
    """

    def __init__(self, text: str, retry_after_s: int | None = None) -> None:
        super().__init__(text)
        self.retry_after_s = retry_after_s


class Socket(Protocol):
    """What a client needs of a WebSocket; all three raise ConnectionClosed once it is closed."""

    async def send(self, message: bytes, /) -> None:
        """Send a binary message."""

    async def recv(self) -> str | bytes:
        """The next message."""

    async def close(self) -> None:
        """Close the connection."""


Connect = Callable[[str], Awaitable[Socket]]


class _Direct(connect):
    """A connection to the address that was given: nobody sends a device elsewhere."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        """No redirect is followed."""
        return exc


def connector(
    token: str | None = None,
    ca: Path | None = None,
    *,
    insecure: bool = False,
    pin: str | None = None,
) -> Connect:
    """Makes WebSockets with a bearer token; ``ca``: the certificates that ``wss`` trusts.

    ``pin``: the key that it trusts instead. A token goes to another machine over TLS only, or with
    ``insecure``. Raises ValueError for a token that no header can carry, and for certificates that
    cannot be read. What it makes raises LinkError for an address that is none or must not have the
    token, else what ``websockets`` raises.
    """
    headers = bearer(token)
    trusted = True if (ca, pin) == (None, None) else trust(ca, pin)  # or the system's

    async def connect_with(url: str) -> Socket:
        url = websocket(url)
        address = parsed(url)
        secure, here = address.scheme == "wss", is_loopback(address.hostname or "")
        may_have(token, address, insecure=insecure)
        may_be_pinned(pin, address)
        return await _Direct(
            url.rstrip("/") + PATH,
            additional_headers=headers,
            ssl=trusted if secure else None,
            proxy=None if here else True,  # the environment's, which is another machine
            compression=None,
            max_size=frames.MAX_MESSAGE_BYTES,
            ping_timeout=frames.PING_TIMEOUT_S,
        )

    return connect_with


def bearer(token: str | None) -> dict[str, str]:
    """The headers that carry a token. Raises ValueError for one that none can carry."""
    if token is None:
        return {}
    if not (token.isascii() and token.isprintable() and token.strip()):
        raise ValueError("the token is empty, or has characters that no HTTP header can carry")
    return {"Authorization": f"Bearer {token}"}


def trust(ca: Path | None, pin: str | None = None) -> ssl.SSLContext:
    """TLS that trusts the certificates of a file, a key, or the system's. Raises ValueError."""
    if pin is not None:
        if ca is not None:
            raise ValueError(
                "--ca and --pin are both given, and each says whom to trust: leave one"
            )
        return pinned.trust(pin)
    try:
        return ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise ValueError(f"{ca} holds no PEM certificates ({error})") from None


def may_have(token: str | None, address: SplitResult, *, insecure: bool) -> None:
    """Raises LinkError where a token would cross a network in clear."""
    secure, here = address.scheme == "wss", is_loopback(address.hostname or "")
    if token is not None and not (secure or here or insecure):
        raise LinkError(
            f"the token would cross the network to {address.hostname} in clear: give wss://..., or"
            " --insecure if a VPN encrypts"
        )


def may_be_pinned(pin: str | None, address: SplitResult) -> None:
    """Raises LinkError for a pin where there is no TLS, and nobody would look at it."""
    if pin is not None and address.scheme != "wss":
        raise LinkError("a pin is of a TLS key, and this address has no TLS: give wss://...")


connect_websocket = connector()


def parsed(url: str) -> SplitResult:
    """A base station's address. Raises LinkError."""
    try:
        address = urlsplit(url)
        named = address.port is None or address.port > 0
    except ValueError:
        raise _no_address(url) from None
    if "@" in address.netloc:  # which would be sent, and shown in every error
        raise LinkError(
            "an address with a name or a password before the host is not used; give the token with"
            " --token or in DRAFTLINK_TOKEN"
        )
    if (
        address.scheme not in ("ws", "wss")
        or not (address.hostname and named)
        or address.query
        or address.fragment
    ):
        raise _no_address(url)
    return address


def _no_address(url: str) -> LinkError:
    return LinkError(
        f"{url!r} is not a WebSocket address such as ws://host:8765, or wss://host:8765 with TLS"
    )


async def reach(connect: Connect, url: str) -> Socket:
    """A new connection. Raises Lost where another attempt may help, else LinkError."""
    try:
        return await connect(url)
    except LinkError:
        raise
    except InvalidStatus as error:
        response = error.response
        raise denied(
            url, response.status_code, bytes(response.body or b""), response.headers.get_all
        ) from None
    except ssl.SSLCertVerificationError as error:
        raise untrusted(url, error) from None
    except ssl.SSLError as error:
        if error.reason != "WRONG_VERSION_NUMBER":
            raise Lost(str(error)) from None
        raise LinkError(
            f"what answers at {url} speaks no TLS: give the address as ws://..., if it is a base"
            " station without a certificate"
        ) from None
    except (InvalidProxy, ImportError) as error:
        raise LinkError(
            f"the proxy that the environment names cannot be used ({error}); unset http_proxy and"
            " its like, or add the base station to no_proxy"
        ) from None
    except (InvalidURI, ValueError):  # such as a host name with an empty part
        raise _no_address(url) from None
    except InvalidMessage as error:  # no HTTP; a server of TLS closes on what is none
        raise Lost(f"{error}; if the base station has TLS, its address is wss://...") from None
    except (OSError, InvalidHandshake, TimeoutError, EOFError) as error:
        raise Lost(str(error) or type(error).__name__) from None


def untrusted(url: str, error: ssl.SSLCertVerificationError) -> LinkError:
    """What is said of a certificate that nobody who is trusted has signed, or of another key."""
    if isinstance(error, pinned.PinError):
        return LinkError(
            f"who answers at {url} has another key than the pinned one; if the base station has a"
            " new key, take its pin from there again"
        )
    return LinkError(
        f"the certificate of {url} is not trusted ({error.verify_message}); give the one that"
        " signed it with --ca FILE"
    )


def denied(
    url: str, status: int, body: bytes, header: Callable[[str], list[str]]
) -> Lost | LinkError:
    """What an HTTP answer in the place of what was asked for means.

    ``header``: the values of a header by its name.
    """
    words = body[:200].decode("utf-8", "replace").split("\n")[0].strip()
    reason = words or f"HTTP {status}"
    if status == 401:
        return LinkError(
            f"the base station at {url} refuses: {reason}; give its token with --token or in"
            " DRAFTLINK_TOKEN"
        )
    after = header("Retry-After")
    if status in (429, 503) and after:  # it is there, and says when to come back
        return Lost(reason, _seconds(after[0]))
    if status >= 500 or status in (408, 425, 429):  # a proxy whose base station is not there now
        return Lost(reason)
    if 300 <= status < 400:
        to = printable(", ".join(header("Location")), 200) or "nowhere"
        return LinkError(
            f"{url} redirects to {to}, which is not followed; if you trust it, give"
            " that address instead, as ws://... or wss://..."
        )
    return LinkError(f"{url} is no base station, or not for this device: {reason}")


def _seconds(after: str) -> int:
    """What Retry-After says, where it is a number of seconds; no more than need be believed."""
    if not (after.isascii() and after.isdigit()):
        return BUSY_S  # a date, by a clock that need not be this one's
    return min(int(after[:9]), MAX_RETRY_S)  # longer ones are beyond any limit


async def close(socket: Socket) -> None:
    """Close a connection; a peer that does not close its end is cut off."""
    try:
        async with asyncio.timeout(CLOSE_S):
            await socket.close()
    except TimeoutError:
        transport: Any = getattr(socket, "transport", None)
        if transport is not None:
            transport.abort()

"""What all connections share: the model, the counters, the limits, and whether there is room."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time

from starlette.websockets import WebSocket, WebSocketDisconnect

from bs_runtime.engine.lookup import LookUp, Nothing, Proposers
from bs_runtime.engine.prices import Prices
from bs_runtime.engine.scheduler import Scheduler
from bs_runtime.engine.slots import Slots
from bs_runtime.engine.threads import Team
from bs_runtime.model.target import Target
from bs_runtime.operations import logs, memory
from bs_runtime.operations.limits import Closing, Limits, Refusal, Tenant
from bs_runtime.operations.stats import Stats
from bs_runtime.serving import guard
from bs_runtime.serving.account import Account
from bs_runtime.serving.auth import Tokens, anyone
from bs_runtime.serving.connection import Connection
from bs_runtime.serving.conversations import Conversations
from bs_runtime.serving.tickets import Sealer
from draftlink.planning.units import binary

log = logging.getLogger("draftlink.bs")

SESSIONS = 256  # of all devices together
OVERLOAD_S = 2.0  # of queue delay, above which no more devices are taken
OVERLOAD_WINDOW_S = 10
RESTART_S = 5  # after which a device may look again for a base station that stops or loads
RESTART = 1012  # WebSocket close codes (IANA registry): service restart,
IDLE, POLICY = 1001, 1008  # going away, policy violation
GONE = (WebSocketDisconnect, RuntimeError)  # what sending to a device raises that is not there


class Station:
    """A base station. ``target`` may come later (``open``).

    ``tokens`` None: everyone may draft, within ``limits``. ``sealer`` seals the tickets of devices;
    without one they end with this process. ``slots``: the pool of KV slots; by default it
    may take a share of the memory that is free when the model is loaded. ``threads``: of the
    model's forwards; if not given, as many as pay (``threads.Team``). ``tariff``: tokens that a
    second of the model is worth besides what others write in it (``Prices``). ``look_up``: whether
    what may come next is looked up in prompt and text (``engine.lookup``).
    """

    def __init__(
        self,
        target: Target | None = None,
        sealer: Sealer | None = None,
        *,
        tokens: Tokens | None = None,
        limits: Limits | None = None,
        sessions: int = SESSIONS,
        slots: Slots | None = None,
        threads: int | None = None,
        tariff: float = 0.0,
        look_up: bool = True,
    ) -> None:
        self.sessions = sessions
        self.stopping = False
        self.tokens = tokens
        self.stats = Stats(time.monotonic())
        self.target: Target | None = None
        self.scheduler: Scheduler
        self.conversations: Conversations
        self._anyone = anyone(limits)
        self._sealer = sealer or Sealer()
        self._slots = slots
        self._threads = threads
        self._tariff = tariff
        self._proposers: Proposers = LookUp if look_up else Nothing
        self._links: set[DeviceSocket] = set()
        self._empty = asyncio.Event()  # of links, once it is stopping
        if target is not None:
            self.open(target)

    def open(self, target: Target) -> None:
        """The model is loaded: devices are taken from here on."""
        slots = self._slots
        if slots is None:
            slots = Slots(memory.for_caches(target.device))
        log.info("KV caches take %s at most", binary(slots.budget))
        # A GPU does the work itself: the processor's threads only hand it over.
        fixed = self._threads is not None or target.device.type != "cpu"
        team, prices = Team(self._threads, fixed=fixed), Prices(self._tariff)
        prices.tried(target.times)
        self.scheduler = Scheduler(target, slots, team, prices)
        self.conversations = Conversations(target.open, self.scheduler.close, self._sealer)
        self.stats.totals = self.scheduler.totals
        self.target = target

    def tenant(self, authorization: str | None) -> Tenant | None:
        """Whose request it is, by its ``Authorization`` header; None if it is nobody's."""
        return self._anyone if self.tokens is None else self.tokens.find(authorization)

    def trouble(self) -> Refusal | None:
        """Why no more devices are taken, if they are not."""
        if self.stopping:
            return Refusal("busy", "the base station is stopping", RESTART_S)
        if self.target is None:
            return Refusal("busy", "the base station is loading its model", RESTART_S)
        if len(self._links) >= self.sessions:
            return Refusal("busy", f"the base station has {self.sessions} sessions, the most", 30)
        now, queue = time.monotonic(), self.stats.meter.counts.queue
        since, _ = self.stats.meter.since(now, OVERLOAD_WINDOW_S)
        delay = queue.quantile(0.5, since.queue)
        if delay is not None and delay > OVERLOAD_S:
            return Refusal("busy", "the base station is overloaded", OVERLOAD_WINDOW_S)
        return None

    def unready(self, now: float) -> Refusal | None:
        """Why a balancer had better send devices elsewhere: ``trouble``, or rounds that fail.

        Those are no reason to refuse: whether the model works again, the next round shows.
        """
        trouble = self.trouble()
        if trouble is None and self.target is not None:
            stuck = self.scheduler.progress.trouble(now)
            return None if stuck is None else Refusal("busy", stuck, OVERLOAD_WINDOW_S)
        return trouble

    @property
    def devices(self) -> int:
        """How many are connected."""
        return len(self._links)

    async def serve(self, socket: WebSocket, tenant: Tenant) -> None:
        """Serve a device to its end. Raises Refusal before it is accepted."""
        trouble = self.trouble()
        if trouble is not None:
            raise trouble
        target = self.target
        assert target is not None
        tenant.admit(time.monotonic())
        account = Account(tenant, self.stats)
        link = DeviceSocket(socket, account)
        self._links.add(link)
        logs.current.set(account)
        try:
            await socket.accept()
            where = "" if socket.client is None else f"{socket.client.host}:{socket.client.port}"
            log.info("connected", extra={"values": {"tenant": tenant.name, "peer": where}})
            connection = Connection(
                target, self.scheduler, self.conversations, link.receive, link.send, account,
                self._proposers,
            )  # fmt: skip
            await connection.serve()
            await link.close(connection.closing.code, connection.closing.reason)
        finally:
            self._links.discard(link)
            if self.stopping and not self._links:
                self._empty.set()
            tenant.leave()
            account.close()
            log.info("disconnected")

    async def drain(self, deadline_s: float) -> None:
        """Take no more devices; end each connection after its round, to be made again.

        Returns once all have ended, after ``deadline_s`` at the latest.
        """
        self.stopping = True
        log.info("stopping", extra={"values": {"connections": len(self._links)}})
        for link in self._links:
            link.stop()
        if not self._links:
            self._empty.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(deadline_s):
                await self._empty.wait()


class DeviceSocket:
    """A device's WebSocket, as ``Connection`` needs it; it raises Closing where time is up."""

    def __init__(self, socket: WebSocket, account: Account) -> None:
        self._socket = socket
        self._account = account
        self._waiting: asyncio.Timeout | None = None
        self._stopping = False

    async def receive(self) -> bytes | None:
        """The next message, None at the end. Raises Closing, Refusal."""
        while True:
            if self._stopping:
                raise Closing(RESTART, "the base station restarts")
            try:
                async with asyncio.timeout_at(self._deadline_s()) as self._waiting:
                    message = await self._socket.receive()
                break
            except TimeoutError:
                # Heard of in the meantime: of what this end has sent.
                if not self._stopping and time.monotonic() >= self._deadline_s():
                    limits, greeted = self._account.tenant.limits, self._account.greeted
                    if greeted:
                        raise Closing(IDLE, f"idle for {limits.idle_s:.0f} s") from None
                    raise Closing(POLICY, f"no hello in {limits.hello_s:.0f} s") from None
            finally:
                self._waiting = None
        if message["type"] == "websocket.disconnect":
            return None
        # A text message has no bytes; the session refuses the empty frame.
        data: bytes = message.get("bytes") or b""
        await self._account.message(len(data))
        return data

    async def send(self, data: bytes) -> None:
        """Send a message. Raises ConnectionResetError."""
        try:
            await self._socket.send_bytes(data)
        except GONE as error:
            raise ConnectionResetError("the device has gone") from error

    async def close(self, code: int, reason: str) -> None:
        """Close, if it is open. A device that does not read is not waited for."""
        socket = self._socket
        if socket.application_state.name == "CONNECTED" and socket.client_state.name == "CONNECTED":
            with contextlib.suppress(TimeoutError, *GONE):
                async with asyncio.timeout(guard.CLOSE_S):
                    await socket.close(code, reason)

    def stop(self) -> None:
        """``receive`` is to end with Closing."""
        self._stopping = True
        if self._waiting is not None:
            self._waiting.reschedule(asyncio.get_running_loop().time())

    def _deadline_s(self) -> float:
        limits, account = self._account.tenant.limits, self._account
        if account.owes:
            return time.monotonic() + limits.idle_s
        if account.greeted:
            return account.heard_s + limits.idle_s
        return account.opened_s + limits.hello_s

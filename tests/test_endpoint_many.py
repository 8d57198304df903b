"""Many clients at once, some of whom leave, over a link that breaks: nothing is lost, or grows."""

from __future__ import annotations

import contextlib
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
from rich.console import Console

from draftlink.host import children
from draftlink.protocol import frames
from tests.cuttable import Cuttable
from tests.endpoints import DRAFT, TABLE, device, endpoint, leave, post
from tests.fakes import FakeTarget, served
from tests.fragile import connector
from tests.killable import Station, resident_bytes
from tinypair import loopback

TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
WORDS = ["the", "boat", "river", "went", "down", "and", "small", "table", "once", "upon", "was"]


def at_once(clients: Sequence[Callable[[], None]], within_s: float) -> list[BaseException]:
    """What goes wrong with clients, each in a thread of its own."""
    failures: list[BaseException] = []

    def run(client: Callable[[], None]) -> None:
        try:
            client()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(within_s)
    return failures


def test_many_clients_over_a_link_that_breaks():
    """No error but the cancelled ones, and every second turn finds its cache."""
    clients, requests = 4, 40
    cuts, lock = random.Random(1), threading.Lock()
    lost: list[bool] = []

    def breaks(direction: str, frame: object, rejection: bool) -> bool:
        # A greeting that fails is told at once, and not tried again.
        greets = isinstance(frame, frames.Hello | frames.Welcome)
        lost.append(not greets and cuts.random() < 0.005)
        return lost[-1]

    cached: list[int] = []

    def client(number: int, url: str) -> None:
        rng = random.Random(number)
        for turn in range(requests // clients // 2):
            said = "".join(rng.choice("abcdefgh") for _ in range(12))
            turns = [{"role": "user", "content": said}]
            body = {"messages": turns, "max_tokens": 16, "seed": turn}
            first = post(url, "/v1/chat/completions", body)
            if rng.random() < 0.25:
                other = [{"role": "user", "content": said[::-1]}]
                more = {"messages": other, "max_tokens": 5000, "stream": True}
                leave(url, body | more, 300)
            text = first["choices"][0]["message"]["content"]
            turns += [{"role": "assistant", "content": text}, {"role": "user", "content": "ab"}]
            second = post(url, "/v1/chat/completions", body | {"messages": turns})
            with lock:
                details = second["usage"]["prompt_tokens_details"]
                cached.append(details["cached_tokens"])

    with served(FakeTarget(TABLE)) as url:
        made = device(url, DRAFT)
        made._connect = connector(breaks)
        # More conversations than clients: nobody's is taken between two turns.
        with endpoint(url, made=made, most=2 * clients) as (where, _):
            failures = at_once([partial(client, n, where) for n in range(clients)], 300)
    assert not failures and any(lost)
    assert len(cached) == requests // clients // 2 * clients
    # Over a new connection the base station may have to be sent all of it again.
    assert sum(count == 0 for count in cached) <= sum(lost)


@dataclass
class Crowd:
    """What all clients have seen. ``cuts``: of the link, made as answers come."""

    link: Cuttable
    every: int  # answers between two cuts
    looks: tuple[int, int]  # the answers at which memory is looked at
    pids: tuple[int, int]
    answers: int = 0
    cuts: int = 0
    cached: list[int] = field(default_factory=list)  # of second turns, on one connection
    resident: list[list[int]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answered(self) -> None:
        with self.lock:
            self.answers += 1
            if self.answers in self.looks:
                self.resident.append([resident_bytes(pid) for pid in self.pids])
            if self.answers % self.every == 0:
                self.cuts += 1
                self.link.cut()  # whatever is under way
                self.link.mend()

    def client(self, number: int, url: str, turns: int) -> None:
        rng = random.Random(number)
        for turn in range(turns // 2):
            said = [{"role": "user", "content": " ".join(rng.choices(WORDS, k=12))}]
            body = {"max_tokens": 16, "seed": turn, "ignore_eos": True}
            cuts = self.cuts
            first = post(url, "/v1/chat/completions", body | {"messages": said})
            self.answered()
            if rng.random() < 0.25:
                other = [{"role": "user", "content": " ".join(rng.choices(WORDS, k=12))}]
                more = {"messages": other, "max_tokens": 300, "stream": True}
                leave(url, body | more, 300)
            said.append(first["choices"][0]["message"])
            said.append({"role": "user", "content": rng.choice(WORDS)})
            second = post(url, "/v1/chat/completions", body | {"messages": said})
            self.answered()
            if self.cuts == cuts:  # over a new connection all of it is sent again
                self.cached.append(second["usage"]["prompt_tokens_details"]["cached_tokens"])


@contextlib.contextmanager
def serving(folder: Path, url: str, conversations: int) -> Iterator[tuple[str, int]]:
    """``draftlink serve`` as a process of its own: its address, and its number."""
    (folder / "chat.jinja").write_text(TEMPLATE)
    command = [
        sys.executable,
        "-m",
        "draftlink.cli",
        "serve",
        str(loopback.draft_bundle(Console(stderr=True))),
        "--bs",
        url,
    ]
    command += ["--port", "0", "--chat-template", str(folder / "chat.jinja"), "--threads", "1"]
    process = subprocess.Popen(
        [*command, "--conversations", str(conversations)], stdout=subprocess.PIPE, text=True,
        env=children.environment(),
    )  # fmt: skip
    try:
        assert process.stdout is not None
        yield process.stdout.readline().split()[-1].removesuffix("/v1"), process.pid
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.full
def test_two_hundred_requests_to_real_processes(tmp_path, capsys):
    """Both processes take no more memory at the 200th than at the 50th, up to a twentieth."""
    clients, requests = 8, 200
    station = Station(tmp_path)
    station.start()
    link = Cuttable(f"ws://127.0.0.1:{station.port}")
    try:
        with serving(tmp_path, link.url, 2 * clients) as (address, pid):
            crowd = Crowd(link, 30, (50, 200), (station.pid, pid))
            # Each writes an even number of turns: 192 by eight, and the last eight by one of them.
            shares = [requests // clients // 2 * 2 + 8 * (n == 0) for n in range(clients)]
            everyone = [partial(crowd.client, n, address, share) for n, share in enumerate(shares)]
            failures = at_once(everyone, 1500)
    finally:
        link.close()
        station.kill()
    assert not failures, failures
    assert crowd.answers == requests and crowd.cuts == 6
    with capsys.disabled():
        print(f"\n{len(crowd.cached)} second turns, least cached {min(crowd.cached)}; resident:"
              f" {crowd.resident}")  # fmt: skip
    assert len(crowd.cached) > 40 and min(crowd.cached) > 0
    for early, late in zip(*crowd.resident, strict=True):
        assert late <= 1.05 * early

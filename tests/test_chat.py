"""``draftlink chat`` in a pseudo-terminal, as somebody at a keyboard sees it."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from bs_runtime.model.target import Target
from tests.cuttable import Cuttable
from tests.fakes import served

TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
ESCAPES = re.compile(r"\x1b(\[[0-9;?]*[a-zA-Z]|\][^\x07]*\x07|[=>]|[()][A-Z0-9])")
PROMPT = r">[ \x08]"
# What is answered has the colour of who wrote it; nothing else on the screen has one of these.
COLOURED = re.compile(r"\x1b\[3[236]m")
WRITTEN = "\ue000"  # stands for such a colour in what was seen: a token is shown
UNENDED = re.compile(r"(\x1b[^a-zA-Z\x07]*)?$")  # the rest of it has not come yet
WITHIN_S = 60.0


class Terminal:
    """A command in a pseudo-terminal of 80 columns; ``seen`` is what it showed."""

    def __init__(self, command: list[str], **environment: str) -> None:
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self._master, self.seen, self._raw = master, "", ""
        self._process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            env=os.environ | {"PROMPT_TOOLKIT_NO_CPR": "1", "TERM": "xterm-256color"} | environment,
        )  # fmt: skip
        os.close(slave)

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def until(self, pattern: str) -> str:
        """Read until something of this kind is shown; what was shown up to it, and forget it."""
        deadline = time.monotonic() + WITHIN_S
        while not (found := re.search(pattern, self.seen)):
            left = deadline - time.monotonic()
            assert left > 0, f"no {pattern!r} in {self.seen!r}"
            if not select.select([self._master], [], [], left)[0]:
                continue
            try:
                data = os.read(self._master, 1 << 16)
            except OSError:  # it has ended
                data = b""
            assert data, f"it ended without {pattern!r}: {self.seen!r}"
            self._raw += data.decode("utf-8", "replace")
            whole = len(self._raw) - len(UNENDED.search(self._raw)[0])
            coloured = COLOURED.sub(WRITTEN, self._raw[:whole])
            self.seen, self._raw = self.seen + ESCAPES.sub("", coloured), self._raw[whole:]
        shown, self.seen = self.seen[: found.end()], self.seen[found.end() :]
        return shown.replace(WRITTEN, "")

    def ends(self) -> int:
        """Its exit code, once it has ended."""
        try:
            return self._process.wait(WITHIN_S)
        finally:
            os.close(self._master)

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


@pytest.fixture(scope="module")
def link(model_folder):
    with served(Target.load(str(model_folder("llama")))) as url:
        link = Cuttable(url)
        yield link
        link.close()


@pytest.fixture
def chat(bundle, link, tmp_path):
    """Starts a chat, with a state folder of its own."""
    template = tmp_path / "chat.jinja"
    template.write_text(TEMPLATE)
    started: list[Terminal] = []

    def start(*options: str, **environment: str) -> Terminal:
        command = [sys.executable, "-m", "draftlink.cli", "chat", str(bundle().path)]
        command += ["--bs", link.url, "--chat-template", str(template), "--threads", "1"]
        command += ["--temperature", "0", "--max-tokens", "12", *options]
        state = {"XDG_STATE_HOME": str(tmp_path / "state")}
        started.append(Terminal(command, **state, **environment))
        return started[-1]

    yield start
    for terminal in started:
        terminal.kill()


STATUS = r"drafted \d+, corrected \d+, written \d+; accepted \d+%; \d+ tokens/s; RTT \d+ ms"


def test_three_turns_a_cut_and_a_return(chat, link, tmp_path):
    slow = ("--mode", "stop-and-wait", "--pace-draft", "40ms", "--max-tokens", "24")
    terminal = chat(*slow, "--system", "a boat")
    terminal.until(r"talking with")
    terminal.until(PROMPT)
    terminal.type("a table\r")
    shown = terminal.until(STATUS)
    assert all(len(line) <= 80 for line in shown.splitlines())
    drafted = re.search(r"drafted (\d+)", shown)
    assert int(drafted[1]) > 0  # the device drafts
    terminal.until(PROMPT)
    # The link is cut in mid-text: that is told at once, and the answer goes on when it is back.
    link.cut_at_the_next_answer()
    terminal.type("two\r")
    begun = time.monotonic()
    terminal.until("connection lost, trying again")
    assert time.monotonic() - begun < 10.0  # not after the minute that a lost link has
    link.mend()
    terminal.until("connected again")
    terminal.until(STATUS)
    # Ctrl-C ends an answer where it is, and the conversation goes on.
    terminal.until(PROMPT)
    terminal.type("river\r")
    terminal.until(WRITTEN)
    terminal.type("\x03")
    terminal.until(PROMPT)
    for line, says in [
        ("/stats\r", r"drafted +\d+"),
        ("/nothing\r", "there is no /nothing"),
        (f"/save {tmp_path}/said.json\r", "saved to"),
        ("/reset\r", "forgotten"),
        (f"/save {tmp_path}/empty.json\r", "saved to"),
        ("one \\\rtwo\r", STATUS),  # a line that goes on
    ]:
        terminal.type(line)
        terminal.until(says)
        terminal.until(PROMPT)
    terminal.type("\x04")
    assert terminal.ends() == 0
    said = json.loads((tmp_path / "said.json").read_text())
    roles = [turn["role"] for turn in said]
    assert roles[:5] == ["system", "user", "assistant", "user", "assistant"]
    assert [turn["content"] for turn in said[:4:3]] == ["a boat", "two"]
    assert json.loads((tmp_path / "empty.json").read_text()) == said[:1]


def test_a_screen_that_knows_ascii_alone(chat):
    plain = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0",
             "PYTHONIOENCODING": "ascii", "TERM": "dumb"}  # fmt: skip
    terminal = chat(**plain)
    terminal.until(PROMPT)
    terminal.type("a table\r")
    shown = terminal.until(STATUS)
    assert shown.isascii()
    terminal.until(PROMPT)
    terminal.type("/bye\r")
    assert terminal.ends() == 0


def test_lines_of_a_pipe_are_turns(bundle, link, tmp_path):
    """For scripts: the answers alone are on stdout."""
    template = tmp_path / "chat.jinja"
    template.write_text(TEMPLATE)
    command = [sys.executable, "-m", "draftlink.cli", "chat", str(bundle().path), "--bs", link.url]
    command += ["--chat-template", str(template), "--temperature", "0", "--max-tokens", "8"]
    done = subprocess.run(
        command, input=b"a table\n\n/save no/such/place\ntwo\n", capture_output=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(b"tokens/s") == 2 and b"not saved" in done.stderr
    assert b"tokens/s" not in done.stdout and len(done.stdout) > 4


def test_a_bundle_without_a_template_says_so(bundle):
    command = [sys.executable, "-m", "draftlink.cli", "chat", str(bundle().path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "no chat template" in " ".join(done.stderr.split())
    assert Path(bundle().path).is_dir() and signal.SIGINT

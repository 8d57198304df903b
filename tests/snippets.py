"""The code blocks of README and docs: what they are, and what is said about running them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
FENCE = re.compile(r"^([> ]*)```(\w*)\s*$")
MARK = re.compile(r"<!-- (run|not run|test)(?:: (.*?))? -->")
PROGRAMS = (
    "draftlink", "pip", "python", "python3", "pytest", "curl", "sudo", "docker", "git", "uv",
    "scp", "mkdocs", "twine", "bash", "ruff", "tegrastats", "vcgencmd", "watch", "mvn", "adb",
)  # fmt: skip


@dataclass(frozen=True)
class Block:
    """A code block: its page and line, language, text, and its mark, of a kind and a reason."""

    page: str
    line: int
    language: str
    text: str
    mark: str | None
    reason: str

    @property
    def is_snippet(self) -> bool:
        """Whether a reader would run it; other blocks show something."""
        if self.language in ("python", "kotlin", "bash", "sh"):
            return True
        words = {line.split()[0] for line in self.commands if line.split()}
        return self.language in ("", "nginx") and bool(words & set(PROGRAMS))

    @property
    def commands(self) -> list[str]:
        """Its lines, those that go on joined, without comments."""
        joined = re.sub(r"\\\n\s*", " ", self.text)
        lines = [re.split(r"\s+#\s", f" {line}")[0].strip() for line in joined.splitlines()]
        return [part.strip() for line in lines for part in line.split(" && ") if part.strip()]


def blocks() -> list[Block]:
    """Every code block of every page."""
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
    return [block for page in pages for block in of(page)]


def of(page: Path) -> list[Block]:
    """The blocks of a page."""
    found: list[Block] = []
    mark: tuple[str | None, str] = (None, "")
    inside: list[str] | None = None
    begun, language, indent = 0, "", ""
    for number, line in enumerate(page.read_text().splitlines(), 1):
        fence = FENCE.match(line)
        if fence and inside is None:
            begun, indent, language, inside = number, fence[1], fence[2], []
        elif fence and inside is not None:
            name = page.relative_to(ROOT).as_posix()
            found.append(Block(name, begun, language, "\n".join(inside) + "\n", *mark))
            inside, mark = None, (None, "")
        elif inside is not None:
            inside.append(line.removeprefix(indent))
        elif marked := MARK.search(line):
            mark = (marked[1], marked[2] or "")
        elif line.strip():
            mark = (None, "")
    return found

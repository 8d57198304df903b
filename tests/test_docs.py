"""README and docs: links lead somewhere, and every command and snippet is run, or says why not.

Here every command is parsed by the program's own parser, every module and test that is named is
there; ``pytest -m full tests/test_docs.py`` runs what can be run, and builds the site.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer

from draftlink.cli.common import app
from tests.run_snippets import as_program, own_network
from tests.snippets import PROGRAMS, ROOT, Block, blocks, of

PROGRAM = typer.main.get_command(app)
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", ROOT / "CHANGELOG.md",
         *sorted((ROOT / "docs").glob("*.md"))]  # fmt: skip
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
BLOCKS = [block for block in blocks() if block.is_snippet]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
LINK = re.compile(r"\]\(([^)\s]+)\)")
INLINE = re.compile(r"`(draftlink (?!ticket)[^`]+)`")  # but the label of a key


def where(block: Block) -> str:
    return f"{block.page}:{block.line}"


@pytest.mark.parametrize("block", BLOCKS, ids=where)
def test_a_snippet_is_run_or_says_why_not(block):
    assert block.mark in ("run", "test", "not run"), "mark it: see tests/snippets.py"
    if block.mark == "test":
        assert (ROOT / block.reason.partition(",")[0]).is_file()
    elif block.mark == "run":
        assert block.reason in ("pair", "plain")
    else:
        assert len(block.reason.split()) >= 2


def hidden(text: str) -> list[str]:
    """Commands in blocks that are indented, not fenced: without a mark, nobody runs them."""
    outside = re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.findall(rf"^ {{4,}}(?:{'|'.join(PROGRAMS)}) .*$", outside, flags=re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_no_command_is_in_a_block_without_a_mark(page):
    assert hidden(page.read_text()) == []


def problems(command: str) -> list[str]:
    """What is wrong with a command, as far as can be told without running it."""
    if re.search(r"[|<>;]|\.\.\.", command.replace("2>&1", "")):
        command = re.split(r"\s[|;>]\s", command)[0]
    words = shlex.split(command)
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words.pop(0)
    if words[:1] == ["draftlink"]:
        return draftlink_problems(words[1:])
    found = []
    for module in re.findall(r"python -m (bench[\w.]*)", command):
        if module != "bench.NAME" and importlib.util.find_spec(module) is None:
            found.append(f"no module {module}")
    for name in re.findall(r"(?:draftlink|\.)\[([\w,]+)\]", command):
        found += [f"no extra {extra}" for extra in name.split(",") if extra not in EXTRAS]
    for path in re.findall(r"\btests/[\w/.]+", command):
        found += [] if (ROOT / path).exists() else [f"no {path}"]
    return found


def draftlink_problems(words: list[str]) -> list[str]:
    """By the parser of the command itself: its options, their number of values, its arguments."""
    if not words or words[0].startswith("-"):
        return [w for w in words if not any(w in p.opts for p in PROGRAM.get_params(context()))]
    if words[0] == "COMMAND":
        return []
    command = PROGRAM.commands.get(words[0])
    if command is None:
        return [f"no command {words[0]}"]
    try:
        command.make_parser(context(command)).parse_args([w for w in words[1:] if w != "--debug"])
    except Exception as error:
        return [f"{words[0]}: {error}"]
    return []


def context(command=None):
    return (command or PROGRAM).context_class(command or PROGRAM)


@pytest.mark.parametrize("block", BLOCKS, ids=where)
def test_a_snippets_commands_are_ones(block):
    if block.language == "python":
        tree = ast.parse(as_program(block.text))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                module = importlib.import_module(node.module)
                assert [n.name for n in node.names if not hasattr(module, n.name)] == []
    elif block.language != "nginx":
        assert [p for line in block.commands for p in problems(line)] == []


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_what_a_page_names_is_there(page):
    """Commands within lines, benchmarks, tests, and links with their anchors."""
    text = page.read_text()
    outside = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    missing = [p for command in INLINE.findall(outside) for p in problems(command)]
    for module in re.findall(r"python -m (bench\.[a-z][\w.]*\w)", text):
        missing += [] if importlib.util.find_spec(module) else [module]
    for path in re.findall(r"`(tests/[\w/]+(?:\.py|/))`", text):
        missing += [] if (ROOT / path).exists() else [path]
    missing += broken(page, outside)
    assert missing == []


def broken(page: Path, text: str) -> list[str]:
    """Links within the repository that lead nowhere."""
    found = []
    for link in LINK.findall(text):
        target, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        place = page if not target else page.parent / target
        if (
            not place.exists()
            or not place.resolve().is_relative_to(ROOT)
            or (anchor and anchor not in anchors(place))
        ):
            found.append(link)
    return found


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in headings}


def test_what_leads_nowhere_is_found(tmp_path):
    """The controls."""
    page = ROOT / "docs" / "index.md"
    for link in ("nowhere.md", "index.md#nowhere", "../../outside.md"):
        assert broken(page, f"[x]({link})") == [link]
    for command in (
        "draftlink nothing", "draftlink bs m --nothing", "draftlink bs m --port", "draftlink --no",
        "python -m bench.nothing", "pip install 'draftlink[nothing]'", "pytest tests/nothing.py",
    ):  # fmt: skip
        assert problems(command), command
    assert hidden("Do:\n\n    draftlink demo\n") and not hidden("```\n    draftlink demo\n```\n")
    unmarked = ROOT / "docs" / ".unmarked.md"
    try:
        unmarked.write_text("```\ndraftlink demo\n```\n\n```\na picture\n```\n")
        found = of(unmarked)
    finally:
        unmarked.unlink(missing_ok=True)
    assert [(b.is_snippet, b.mark) for b in found] == [(True, None), (False, None)]


def test_every_page_is_in_the_site():
    listed = set(re.findall(r": ([\w-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    assert listed == {page.name for page in (ROOT / "docs").glob("*.md")}


def test_ci_runs_the_readmes_own_tests():
    """Two commands set all up: one runs the main job, one passes the tests, as CI does."""
    first, second = [b for b in blocks() if b.page == "README.md" and "pip install" in b.text]
    assert first.commands[-1] == "draftlink demo" and "[demo]" in first.text
    ci = (ROOT / ".ci" / "run").read_text().replace("pip install -q", "pip install").splitlines()
    assert second.commands[0].startswith("pip install") and "[test]" in second.text
    assert all(command in ci for command in second.commands)


RUNNABLE = sorted({block.page for block in BLOCKS if block.mark == "run"})


@pytest.mark.full
@pytest.mark.parametrize("page", RUNNABLE)
def test_a_pages_snippets_run(page, tmp_path):
    """In a folder, a home and a network of their own, with the embedded pair."""
    bins = tmp_path / "bin"
    bins.mkdir()
    program = bins / "draftlink"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m draftlink.cli "$@"\n')
    program.chmod(0o755)
    home = {"HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    environment = os.environ | home | {
        "PATH": f"{bins}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    work = tmp_path / "work"
    work.mkdir()
    command = [*own_network(), sys.executable, str(ROOT / "tests" / "run_snippets.py"), page]
    done = subprocess.run(
        command, cwd=work, env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr[-3000:]
    ran = sum(block.mark == "run" for block in BLOCKS if block.page == page)
    assert done.stdout.split()[-1] == str(ran)


@pytest.mark.full
def test_the_site_builds_without_a_warning(tmp_path):
    """``mkdocs build --strict``: links and anchors, and the API's docstrings."""
    if shutil.which("mkdocs") is None:
        pytest.skip("pip install '.[docs]'")
    command = ["mkdocs", "build", "--strict", "-f", str(ROOT / "mkdocs.yml"), "-d", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    pages = {page.stem for page in (ROOT / "docs").glob("*.md")}
    assert pages <= {page.stem for page in tmp_path.glob("*.html")}

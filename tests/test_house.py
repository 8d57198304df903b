"""Files and functions stay small enough to be read: one subject a file, one step a function.

What imports what is `lint-imports`' (pyproject.toml).
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("draftlink", "device_runtime", "bs_runtime", "export", "tinypair", "bench")
LINES, FUNCTION_LINES, BRANCHES = 300, 60, 12
# Typer reads a command's options off its signature, and Triton compiles a kernel as one function.
EXCEPTIONS = {
    ("draftlink/cli/bs.py", "bs"),
    ("draftlink/cli/chat.py", "chat"),
    ("draftlink/cli/device.py", "device"),
    ("draftlink/cli/export.py", "export"),
    ("draftlink/cli/links.py", "plan"),
    ("draftlink/cli/serve.py", "serve"),
    ("bs_runtime/model/kernels.py", "_attend"),
}
BRANCH = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.match_case)


def too_long(path: str, text: str) -> list[str]:
    """What of a file is longer than it may be."""
    lines = text.count("\n")
    found = [f"{path}: {lines} lines"] if lines > LINES else []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            branches = sum(isinstance(inner, BRANCH) for inner in ast.walk(node))
            named = (path, node.name) in EXCEPTIONS
            if not named and (length > FUNCTION_LINES or branches > BRANCHES):
                found.append(f"{path}: {node.name}: {length} lines, {branches} branches")
    return found


def test_files_and_functions_can_be_read():
    sources = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
    texts = {path.relative_to(ROOT).as_posix(): path.read_text() for path in sources}
    assert [line for path, text in texts.items() for line in too_long(path, text)] == []
    defined = {
        (path, node.name)
        for path, _ in EXCEPTIONS
        for node in ast.walk(ast.parse(texts[path]))
        if isinstance(node, ast.FunctionDef)
    }
    assert defined >= EXCEPTIONS  # no exception outlives what it was made for


def test_kotlin_files_can_be_read():
    """Of the Android client, which no compiler's tree is read of here."""
    sources = sorted((ROOT / "android_demo").rglob("*.kt"))
    lengths = {path.name: path.read_text().count("\n") for path in sources}
    assert len(lengths) > 20
    assert {name: lines for name, lines in lengths.items() if lines > LINES} == {}


@pytest.mark.parametrize(
    ("text", "many"),
    [
        ("x = 0\n" * LINES, 0),
        ("x = 0\n" * (LINES + 1), 1),
        ("def f():\n" + " pass\n" * FUNCTION_LINES, 1),
        ("def f():\n" + " if x: pass\n" * BRANCHES, 0),
        ("def f():\n" + " if x: pass\n" * (BRANCHES + 1), 1),
    ],
)
def test_what_is_too_long_is_found(text, many):
    """The control."""
    assert len(too_long("a.py", text)) == many

"""The Kotlin that docs/android.md shows, as a test of the JVM's: compiled, and run where it says.

A snippet has no imports, and addresses of its own; here it gets those of the base stations that a
test has started. What it leaves open is closed behind it.
"""

from __future__ import annotations

import json
from pathlib import Path

from device_runtime.model.bundle import Bundle
from tests.snippets import blocks

PAGE = "docs/android.md"
# By snippet: what the page has in the place of what is there, and what the page leaves to an app.
JOINED = "draftlink://join?url=wss%3A%2F%2F192.168.1.20%3A8765&token=...&pin=..."
PACKAGES = ("app", "device", "model", "pull", "text", "transport")


def texts() -> list[str]:
    """The page's Kotlin, in its order."""
    return [each.text for each in blocks() if (each.page, each.language) == (PAGE, "kotlin")]


def write(folder: Path, bundle: Bundle, url: str, link: str, place: Path) -> None:
    """A test of them, in a source ``folder``: at a base station's ``url``, and at another that is
    joined by a ``link``, whose draft comes to ``place``."""
    alone, joined = texts()
    for shown, text in (("ws://10.0.0.2:8765", alone), (JOINED, joined)):
        assert text.count(shown) == 1, shown
    alone = alone.replace("ws://10.0.0.2:8765", url)
    joined = joined.replace(JOINED, link)
    imports = "\n".join(f"import draftlink.{name}.*" for name in PACKAGES)
    folder.mkdir()
    (folder / "SnippetTest.kt").write_text(
        f"""package draftlink.docs

{imports}
import kotlinx.coroutines.runBlocking
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import java.io.File

class SnippetTest {{
    private var come = 0L

    private fun show(have: Long, all: Long) {{
        come = if (have <= all) maxOf(come, have) else -1
    }}

    @Test
    fun alone() = runBlocking {{
        val folder = File({quoted(str(bundle.path))})
{alone}
        println()
        println("docs: a text written")
    }}

    @Test
    fun joined() = runBlocking {{
        val filesDir = File({quoted(str(place))})
        filesDir.deleteRecursively() // a run before may have lacked what Maven then fetched
{joined}
        device.close()
        model.close()
        assertTrue(come > 0 && device.result!!.tokens.isNotEmpty())
        println("docs: joined, a draft taken, a text written")
    }}
}}
"""
    )


def quoted(text: str) -> str:
    """Kotlin's literal of a text without dollars."""
    assert "$" not in text
    return json.dumps(text)

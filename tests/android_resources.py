"""The app's resources: their names as ``R.java``, and what aapt2 says of them, where it is.

aapt2 is in Debian's package ``aapt``, off the PATH. Without it ``R.java`` is made here, so that the
app can be compiled; whether its resources fit one another, and the platform's, only aapt2 says.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parent.parent
APP = ROOT / "android_demo/app/src/main"
PACKAGE = "draftlink.demo"
LEAST, MADE_FOR = "26", "34"
PLACES = (Path("/usr/lib/android-sdk/build-tools/debian/aapt2"), Path("/usr/bin/aapt2"))
_ID = re.compile(r"@\+id/(\w+)")


def names(folder: Path) -> dict[str, set[str]]:
    """What a ``res`` folder has, by kind."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in sorted(folder.rglob("*.xml")):
        kind = path.parent.name.partition("-")[0]
        if kind == "values":
            for each in ElementTree.parse(path).getroot():
                found[each.tag].add(each.attrib["name"].replace(".", "_"))
        else:
            found[kind].add(path.stem)
            found["id"] |= set(_ID.findall(path.read_text(encoding="utf-8")))
    return dict(found)


def write_r(folder: Path) -> None:
    """``R.java`` as aapt2 would name things, with numbers of our own."""
    kinds = "".join(
        f"  public static final class {kind} {{\n"
        + "".join(
            f"    public static final int {name} = {i};\n" for i, name in enumerate(sorted(of))
        )
        + "  }\n"
        for kind, of in sorted(names(APP / "res").items())
    )
    place = folder / PACKAGE.replace(".", "/") / "R.java"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(
        f"package {PACKAGE};\n\npublic final class R {{\n{kinds}}}\n", encoding="utf-8"
    )


def declared(java: str) -> dict[str, set[str]]:
    """What an ``R.java`` declares, by kind."""
    found = {}
    for kind, body in re.findall(r"static final class (\w+) \{(.*?)\n  \}", java, flags=re.DOTALL):
        found[kind] = set(re.findall(r"static final int (\w+)=?", body))
    return found


def aapt2() -> str | None:
    """The program, where it is: as the environment says, on the PATH, or where Debian has it."""
    stated = os.environ.get("DRAFTLINK_AAPT2") or shutil.which("aapt2")
    return stated or next((str(path) for path in PLACES if path.is_file()), None)


def link(
    program: str, platform: Path, folder: Path, app: Path = APP
) -> subprocess.CompletedProcess[str]:
    """Compile and link resources and manifest against a ``platform``; ``R.java`` in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    compiled = folder / "resources.zip"
    done = subprocess.run(
        [program, "compile", "--dir", str(app / "res"), "-o", str(compiled)],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    if done.returncode:
        return done
    manifest = (app / "AndroidManifest.xml").read_text(encoding="utf-8")
    named = folder / "AndroidManifest.xml"  # Gradle adds the package itself
    named.write_text(manifest.replace("<manifest ", f'<manifest package="{PACKAGE}" ', 1))
    return subprocess.run(
        [
            program, "link", "-I", str(platform), "--manifest", str(named), "--java", str(folder),
            "--min-sdk-version", LEAST, "--target-sdk-version", MADE_FOR,
            "-o", str(folder / "resources.apk"), str(compiled),
        ],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip

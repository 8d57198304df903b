"""The app's manifest and resources: what can be said of them without an Android, and by aapt2.

Maven compiles its Kotlin (``test_android``). Gradle's files are read, and not run: its plugin for
Android is on a repository that is not needed here.
"""

from __future__ import annotations

import os
import re
import shutil
import tomllib
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests import android_resources as resources
from tests.android_resources import APP, MADE_FOR, ROOT

DEMO = ROOT / "android_demo"
ANDROID = "{http://schemas.android.com/apk/res/android}"
POM = "{http://maven.apache.org/POM/4.0.0}"
LAYOUTS = sorted((APP / "res/layout").glob("*.xml"))
SOURCES = sorted((DEMO / "app/src/main/kotlin").rglob("*.kt"))


def manifest() -> ElementTree.Element:
    return ElementTree.parse(APP / "AndroidManifest.xml").getroot()


def platform() -> Path:
    """Android's own resources, as Maven has fetched them; skips where it has not."""
    version = versions()["android.version"]
    folder = Path(os.environ.get("MAVEN_REPOSITORY", Path.home() / ".m2/repository"))
    path = folder / f"org/robolectric/android-all/{version}/android-all-{version}.jar"
    if not path.is_file():
        pytest.skip(f"{path.name} is not in Maven's local repository")
    return path


def versions() -> dict[str, str]:
    """The Maven build's properties."""
    found = ElementTree.parse(DEMO / "pom.xml").getroot().find(f"{POM}properties")
    assert found is not None
    return {each.tag.removeprefix(POM): each.text or "" for each in found}


def test_aapt2_links_them_with_the_platforms_own(tmp_path):
    """And names what ``R.java`` of ours names, with which the app is compiled where it is not."""
    program = resources.aapt2()
    if program is None:
        pytest.skip("aapt2 is not here (Debian: apt-get install aapt); resources are not linked")
    jar = platform()
    done = resources.link(program, jar, tmp_path)
    assert done.returncode == 0, done.stderr
    theirs = resources.declared((tmp_path / "draftlink/demo/R.java").read_text())
    resources.write_r(tmp_path / "ours")
    ours = resources.declared((tmp_path / "ours/draftlink/demo/R.java").read_text())
    assert theirs == ours and len(ours["string"]) > 20
    # The control: what the platform does not have is found.
    broken = tmp_path / "broken"
    shutil.copytree(APP, broken / "main")
    chat = broken / "main/res/layout/chat.xml"
    chat.write_text(chat.read_text().replace("@string/message", "@string/nothing"))
    assert resources.link(program, jar, tmp_path / "again", broken / "main").returncode != 0


def test_what_the_code_names_is_there():
    names = resources.names(APP / "res")
    used = {
        pair
        for path in SOURCES
        for pair in re.findall(r"(?<!android\.)\bR\.(\w+)\.(\w+)", path.read_text())
    }
    assert {f"{kind}.{name}" for kind, name in used if name not in names.get(kind, ())} == set()
    assert len(used) > 50
    classes = {path.stem for path in SOURCES}
    named = [each.attrib[f"{ANDROID}name"] for each in manifest().iter() if each.tag in (
        "application", "activity", "service")]  # fmt: skip
    assert {name.removeprefix(".") for name in named} <= classes and len(named) == 6


def test_only_the_platform_is_used():
    """No AndroidX, whose repository a build of this may not reach."""
    imports = {
        line for path in SOURCES for line in re.findall(r"^import (\S+)", path.read_text(), re.M)
    }
    roots = {name.split(".")[0] for name in imports}
    assert roots <= {"android", "draftlink", "java", "javax", "kotlinx", "kotlin"}, roots
    assert not [name for name in imports if name.startswith("kotlinx.coroutines.android")]
    core = [*(DEMO / "core").rglob("*.kt"), *(DEMO / "app-model").rglob("*.kt")]
    assert not [path for path in core if re.search(r"^import android", path.read_text(), re.M)]


def test_a_link_opens_it_and_nothing_else_does():
    root = manifest()
    exported = [a for a in root.iter() if a.attrib.get(f"{ANDROID}exported") == "true"]
    assert [a.attrib[f"{ANDROID}name"] for a in exported] == [".ChatActivity", ".JoinActivity"]
    [data] = root.iter("data")
    assert {k.removeprefix(ANDROID): v for k, v in data.attrib.items()} == {
        "scheme": "draftlink", "host": "join",
    }  # fmt: skip
    [application] = root.iter("application")
    assert application.attrib[f"{ANDROID}allowBackup"] == "false"  # lines of chats, and the token
    asked = {
        each.attrib[f"{ANDROID}name"].rpartition(".")[2] for each in root.iter("uses-permission")
    }
    assert asked == {
        "INTERNET", "FOREGROUND_SERVICE", "FOREGROUND_SERVICE_DATA_SYNC", "POST_NOTIFICATIONS",
    }  # fmt: skip


def layout_faults(path: Path) -> list[str]:
    """What large fonts would cut, a finger would miss, or a screen reader could not name."""
    found = []
    for view in ElementTree.parse(path).getroot().iter():
        said = {key.removeprefix(ANDROID): value for key, value in view.attrib.items()}
        name = f"{path.name}: {view.tag} {said.get('id', '')}"
        texts = view.tag in ("TextView", "Button", "EditText", "Switch")
        if texts and said.get("layout_height") != "wrap_content":
            found.append(f"{name} has a fixed height")
        if texts and said.get("textSize", "sp")[-2:] != "sp":
            found.append(f"{name} does not grow with fonts")
        touched = view.tag in ("Button", "EditText", "Switch", "Spinner")
        if touched and said.get("minHeight") != "48dp":
            found.append(f"{name} is smaller than a finger")
        if touched and not any(said.get(k) for k in ("text", "hint", "contentDescription")):
            found.append(f"{name} has no name")
        if any(said.get(k, "@")[0] != "@" for k in ("text", "hint", "contentDescription")):
            found.append(f"{name} has words of its own")
    return found


@pytest.mark.parametrize("path", LAYOUTS, ids=lambda path: path.stem)
def test_screens_can_be_read_and_touched(path, tmp_path):
    assert layout_faults(path) == []
    text = path.read_text()
    for right, wrong in (
        ('android:minHeight="48dp"', ""), ("@string/", "A word: "),
        ('android:layout_height="wrap_content"', 'android:layout_height="20dp"'),
    ):  # fmt: skip
        (tmp_path / path.name).write_text(text.replace(right, wrong))
        assert layout_faults(tmp_path / path.name), wrong  # the controls


def luminance(colour: str) -> float:
    """Of ``#RRGGBB``, as WCAG 2 has it."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize(("night", "ground"), [(False, "#FAFAFA"), (True, "#303030")])
def test_colours_are_seen_by_day_and_night(night, ground):
    """On the grounds of Material's two themes, with the contrast that WCAG 2 asks of text."""
    folder = APP / "res" / ("values-night" if night else "values")
    colours = {
        each.attrib["name"]: each.text or ""
        for each in ElementTree.parse(folder / "colors.xml").getroot()
    }
    assert set(colours) == {"drafted", "corrected", "written", "provisional", "accent"}
    for name, colour in colours.items():
        light, dark = sorted((luminance(colour), luminance(ground)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, name


def test_gradles_files_say_what_mavens_do():
    """They are not run here; so at least they name the same versions, modules and levels."""
    catalog = tomllib.loads((DEMO / "gradle/libs.versions.toml").read_text())
    said, maven = catalog["versions"], versions()
    for name, key in (
        ("kotlin", "kotlin.version"), ("okhttp", "okhttp.version"), ("junit", "junit.version"),
        ("serialization", "serialization.version"), ("coroutines", "coroutines.version"),
        ("onnxruntime", "onnxruntime.version"),
    ):  # fmt: skip
        assert said[name] == maven[key], name
    settings = (DEMO / "settings.gradle.kts").read_text()
    modules = [path.parent.name for path in DEMO.glob("*/pom.xml")]
    assert sorted(re.findall(r'include\(":([\w-]+)"\)', settings)) == sorted(modules)
    for module in modules:
        build = (DEMO / module / "build.gradle.kts").read_text()
        for alias in re.findall(r"libs\.(?!plugins)([\w.]+)", build):
            assert alias.replace(".", "-") in catalog["libraries"], alias
        for alias in re.findall(r"libs\.plugins\.([\w.]+)", build):
            assert alias.replace(".", "-") in catalog["plugins"], alias
    app = (DEMO / "app/build.gradle.kts").read_text()
    assert f"compileSdk = {MADE_FOR}" in app and f"minSdk = {resources.LEAST}" in app
    assert f'namespace = "{resources.PACKAGE}"' in app

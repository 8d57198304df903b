"""A base station that is joined by its code and offers a bundle, for the app's view models."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import msgspec

from bs_runtime.operations import certificate
from bs_runtime.serving import join
from device_runtime.device import Coupled, Device, Sampling
from device_runtime.model.bundle import MANIFEST, Bundle, load_bundle
from device_runtime.templates.form import Form, Part
from draftlink.host import joining
from tests import jvm_station
from tests.killable import Station

TOKENS = 40
SAID = ("Once upon a time there was a boat.", "And what came then?")
# The embedded pair has no template: its texts are stories, and so are these turns.
FORM = Form("", Part("", "\n"), Part("", "\n"), "")


@contextmanager
def station(folder: Path, bundle: Bundle) -> Iterator[None]:
    """Started with ``--self-signed --qr --offer``; ``app.json`` says what is to be done there.

    It is killed, and started again, whenever the JVM asks for it in the folder ``app``.
    """
    state, offered = folder / "state", folder / "offered"
    shutil.copytree(bundle.path, offered)
    manifest = msgspec.structs.replace(
        bundle.manifest, chat=FORM, sampling=Sampling(temperature=0.0)
    )
    (offered / MANIFEST).write_bytes(msgspec.json.encode(manifest))
    options = ("--self-signed", "--qr", "--offer", str(offered))
    started = Station(folder, *options, environment={"XDG_STATE_HOME": str(state)})
    started.start()
    try:
        token = (state / "draftlink" / join.TOKEN).read_text().strip()
        pin = certificate.pin(state / "draftlink" / certificate.CERTIFICATE)
        said = {
            "link": joining.link(f"wss://127.0.0.1:{started.port}", token, pin),
            "name": offered.name, "tokens": str(TOKENS), "first": SAID[0], "second": SAID[1],
        }  # fmt: skip
        (folder / "app.json").write_text(json.dumps(said))
        (folder / "app").mkdir()
        with jvm_station.killing(folder / "app", started):
            yield
    finally:
        started.kill()


def link(folder: Path) -> str:
    """By which it is joined."""
    said: str = json.loads((folder / "app.json").read_text())["link"]
    return said


def answers(folder: Path) -> tuple[list[str], str, list[str]]:
    """What the JVM's device was answered there, and to the first once more, over a link that was
    lost; and what Python's was."""
    theirs, lost = (
        json.loads((folder / f"jvm_{name}.json").read_text()) for name in ("app", "lost")
    )
    return theirs, lost, json.loads((folder / "python_app.json").read_text())


def answer(folder: Path) -> None:
    """Have Python's device write there what the JVM's was to, joined by the same link."""
    said = {key: values[0] for key, values in parse_qs(urlsplit(link(folder)).query).items()}
    bundle = load_bundle(folder / "offered")

    async def run() -> list[str]:
        device = Device(bundle, said["url"], token=said["token"], pin=said["pin"], threads=1)
        turns, found = [], []
        async with device:
            for text in SAID:
                turns.append({"role": "user", "content": text})
                ids = device.tokenizer.encode(FORM.render(turns), add_special_tokens=False).ids
                generation = device.generate(
                    ids, max_tokens=TOKENS, sampling=Sampling(temperature=0.0), scheme=Coupled()
                )
                async for _ in generation:
                    pass
                found.append(generation.result.text)
                turns.append({"role": "assistant", "content": found[-1]})
        return found

    (folder / "python_app.json").write_text(json.dumps(asyncio.run(run())))

"""A base station that is joined by its code and offers a bundle, for the app's view models."""

from __future__ import annotations

import asyncio
import json
import os
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
from tests.killable import Station

TOKENS = 24
SAID = ("Once upon a time there was a boat.", "And what came then?")
# The embedded pair has no template: its texts are stories, and so are these turns.
FORM = Form("", Part("", "\n"), Part("", "\n"), "")


@contextmanager
def station(folder: Path, bundle: Bundle) -> Iterator[None]:
    """Started with ``--self-signed --qr --offer``; ``app.json`` says what is to be done there."""
    state, offered = folder / "state", folder / "offered"
    shutil.copytree(bundle.path, offered)
    manifest = msgspec.structs.replace(
        bundle.manifest, chat=FORM, sampling=Sampling(temperature=0.0)
    )
    (offered / MANIFEST).write_bytes(msgspec.json.encode(manifest))
    started = Station(folder, "--self-signed", "--qr", "--offer", str(offered))
    before = os.environ.get("XDG_STATE_HOME")
    os.environ["XDG_STATE_HOME"] = str(state)
    try:
        started.start()
    finally:
        if before is None:
            del os.environ["XDG_STATE_HOME"]
        else:
            os.environ["XDG_STATE_HOME"] = before
    try:
        token = (state / "draftlink" / join.TOKEN).read_text().strip()
        pin = certificate.pin(state / "draftlink" / certificate.CERTIFICATE)
        said = {
            "link": joining.link(f"wss://127.0.0.1:{started.port}", token, pin),
            "name": offered.name, "tokens": str(TOKENS), "first": SAID[0], "second": SAID[1],
        }  # fmt: skip
        (folder / "app.json").write_text(json.dumps(said))
        yield
    finally:
        started.kill()


def answers(folder: Path) -> tuple[list[str], list[str]]:
    """What the JVM's device was answered there, and Python's."""
    theirs = json.loads((folder / "jvm_app.json").read_text())["answers"].split("\0")
    return theirs, json.loads((folder / "python_app.json").read_text())


def answer(folder: Path) -> None:
    """Have Python's device write there what the JVM's was to, joined by the same link."""
    link = json.loads((folder / "app.json").read_text())["link"]
    said = {key: values[0] for key, values in parse_qs(urlsplit(link).query).items()}
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

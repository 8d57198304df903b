"""``draftlink doctor``: what is wrong here, and whether drafting pays."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from draftlink.cli import common
from draftlink.cli.common import app, err, out
from draftlink.cli.models import cached

MARKS = {"ok": ("ok   ", "green"), "note": ("note ", "yellow"), "fault": ("fault", "red")}


@app.command(epilog="Example: draftlink doctor smollm2-draft --bs wss://base-station:8765")
def doctor(
    bundle: Annotated[
        Path | None,
        typer.Argument(
            help="draft bundle, or its name in the cache; with --bs it is tried", callback=cached
        ),
    ] = None,
    url: Annotated[
        str | None, typer.Option("--bs", envvar="DRAFTLINK_BS", help="base station to try")
    ] = None,
    token: common.Token = None,
    ca: common.Ca = None,
    insecure: common.Insecure = False,
    pin: common.Pin = None,
    provider: common.Provider = "cpu",
    threads: common.Threads = None,
    json: common.Json = None,
) -> None:
    """Look for what is wrong with this machine and the link, and say whether drafting pays.

    Exit code 1 where something will not work.
    """
    from draftlink.cli import doctor_checks

    checks: list[Any] = []

    def say(check: Any) -> None:
        checks.append(check)
        mark, colour = MARKS[check.status]
        out.say(f" {check.subject.ljust(11)}{check.text}", lead=mark, colour=colour, under=18)

    with err.status("looking at this machine"):
        for check in doctor_checks.here():
            say(check)
    verdict = None
    if url is not None:
        say(doctor_checks.reached(url, token, ca, insecure=insecure, pin=pin))
        if bundle is None:
            err.say("give a BUNDLE, too, to hear whether drafting pays", "dim")
        elif checks[-1].status == "ok":
            verdict = _tried(bundle, url, token, ca, insecure, pin, provider, threads, say)
    elif bundle is not None:
        err.say("give --bs URL, too, to hear whether drafting pays", "dim")
    if verdict is not None:
        out.say(verdict["text"], "bold")
        for line in verdict["also"]:
            out.say(line)
    common.write_json(
        json, {"checks": [msgspec.to_builtins(check) for check in checks], "verdict": verdict}
    )
    if any(check.status == "fault" for check in checks):
        raise typer.Exit(1)


def _tried(
    bundle: Path,
    url: str,
    token: str | None,
    ca: Path | None,
    insecure: bool,
    pin: str | None,
    provider: str,
    threads: int | None,
    say: Any,
) -> dict[str, Any] | None:
    """Write a little with the base station; the verdict, or None where that does not work."""
    from device_runtime.device import Device, LinkError
    from device_runtime.model.bundle import BundleError
    from device_runtime.probe import probe
    from draftlink.cli.doctor_checks import Check, told
    from draftlink.planning import verdict as verdicts

    async def write() -> tuple[Any, Any, int]:
        device = Device(
            bundle,
            url,
            provider=provider,
            threads=threads,
            token=token,
            ca=ca,
            insecure=insecure,
            pin=pin,
        )
        model: Any = device.model  # a bundle's
        async with device:
            return await probe(device), device.client.welcome, model.threads

    try:
        with err.status("writing some tokens in each mode"):
            found, welcome, used = asyncio.run(write())
    except (BundleError, LinkError, ValueError) as error:
        say(Check("trial", "fault", str(error)))
        return None
    for check in told(found, welcome, used):
        say(check)
    verdict, both = verdicts.judge(found.measured), found.both
    text, *also = verdicts.answer(found.measured, verdict, both)
    return {
        "text": text,
        "also": also,
        "pays": verdict.pays or (both is not None and both.pays),
        "topk": {"pays": verdict.pays, **msgspec.to_builtins(verdict)},
        "coupled": None if both is None else {"pays": both.pays, **msgspec.to_builtins(both)},
        "measured": msgspec.to_builtins(found.measured),
    }

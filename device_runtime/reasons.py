"""Why a text has nothing of the draft, in a line for people."""

from __future__ import annotations

from device_runtime.request import Request
from device_runtime.writers.writing import Writing


def alone(request: Request, writing: Writing) -> str | None:
    """Why the base station wrote all of a text that has ended; None where the device drafted."""
    if writing.tally.drafted:
        return None
    device, prompt = writing.device, len(request.prompt)
    if request.mode == "stream":
        return "the mode is stream"
    if prompt >= device.draft_context:
        return f"the prompt of {prompt} tokens fills the draft's context of {device.draft_context}"
    here = writing.controller.estimates
    draft_s, step_s = here.draft.mean, here.verify_s
    rests = writing.paths.rests if writing.both else writing.window.rests
    if not rests or not draft_s or not step_s:
        return f"the text ended before the draft, behind a prompt of {prompt} tokens, had begun"
    return (
        f"drafting would not have paid: a token of the draft takes {1e3 * draft_s:.1f} ms, a step"
        f" of the base station {1e3 * step_s:.1f} ms, the way there and back"
        f" {1e3 * here.rtt.mean:.1f} ms, and {here.acceptance.alpha:.0%} would be accepted"
    )

"""The page of ``draftlink report``: what is known of each kind of result, as HTML."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any, Final

from draftlink.cli import charts
from draftlink.cli.timeline import WRITERS

MOST_ROWS = 200  # of a table; what is more is counted
STYLE: Final = """
:root{color-scheme:light dark;--ground:#f4f6f8;--card:#fff;--line:#e1e6eb;--ink:#16202a;
--soft:#5b6875}
@media(prefers-color-scheme:dark){:root{--ground:#0e1319;--card:#171e26;--line:#28323d;
--ink:#e8edf2;--soft:#93a1af}}
*{box-sizing:border-box}body{margin:0;background:var(--ground);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
main{max-width:1080px;margin:0 auto;padding:20px 16px 40px}h1{font-size:20px}h2{font-size:17px;
overflow-wrap:anywhere;margin:28px 0 8px}h3{font-size:14px;margin:0 0 6px}
.card{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:14px 16px;
margin:10px 0;overflow-x:auto}.soft{color:var(--soft)}
svg{display:block;width:100%;max-width:760px;height:auto;margin:0 auto;
min-width:420px}table{border-collapse:collapse;font-size:13px;font-variant-numeric:tabular-nums}
th,td{padding:5px 10px;border-top:1px solid var(--line);text-align:right;vertical-align:top}
th{font-weight:500;color:var(--soft)}th:first-child,td:first-child{text-align:left}
pre{white-space:pre-wrap;overflow-wrap:anywhere;margin:0}
.legend{display:flex;flex-wrap:wrap;gap:2px 16px;list-style:none;padding:0;margin:6px 0 0;
font-size:13px}.legend i{display:inline-block;width:10px;height:10px;border-radius:50%;
margin-right:6px}
"""
# Of a text: what is told, and how.
SUMMARY: Final = {
    "scheme": "scheme", "mode": "mode", "tokens_per_s": "tokens/s", "alpha": "alpha",
    "draft_share": "written by drafts", "drafted": "drafted", "accepted": "accepted",
    "tokens_per_round": "tokens a round", "ttft_s": "to the first token, s",
    "uplink_bytes": "bytes up", "downlink_bytes": "bytes down", "reconnects": "reconnects",
}  # fmt: skip


def page(title: str, results: Sequence[tuple[str, Any]], version: str) -> str:
    """One self-contained page: a section for each result, of a name and what its file holds."""
    sections = "".join(
        f"<h2>{escape(name)}</h2>{''.join(_cards(found)) or _card('', _anything(found))}"
        for name, found in results
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>"
        f"<h1>{escape(title)}</h1>{sections}"
        f'<p class="soft">Made by draftlink {escape(version)}.</p></main></body></html>\n'
    )


def _card(title: str, inside: str) -> str:
    heading = f"<h3>{escape(title)}</h3>" if title else ""
    return f'<div class="card">{heading}{inside}</div>' if inside else ""


def _cards(found: Any) -> Iterator[str]:
    """What is known of a result of some kind; nothing of another."""
    if not isinstance(found, dict):
        return
    texts = {name: each for name, each in found.items() if _is_text(each)}
    if _is_text(found):
        yield from _text(found, texts)
    elif _is_rows(found.get("rows"), "bits_up_per_accepted", "acceptance"):
        yield from _comparison(found)
    elif _is_rows(found.get("cells"), "link", "tokens_per_s"):
        yield from _links(found["cells"])
    elif _is_rows(found.get("modes"), "mode", "tokens_per_s"):
        rates = [(row["mode"], row["tokens_per_s"]) for row in found["modes"]]
        yield _card("Expected tokens/s", charts.bars(_named(rates), x="mode", y="tokens/s"))
        yield _card("What each K costs", _table(found.get("ks", [])))
    elif _numbers(found.get("tokens_per_s")):
        rates = list(found["tokens_per_s"].items())
        yield _card("Tokens/s", charts.bars(_named(rates), x="who writes", y="tokens/s"))
        drafting = [{"": n, **each} for n, each in found.items() if _numbers(each)]
        yield _card("What drafting came to", _table(drafting))


def _text(found: dict[str, Any], others: dict[str, Any]) -> Iterator[str]:
    """A text's result, and others of the same prompt beside it."""
    every = {"coupled" if others else "this text": found, **others}
    shown = [
        {"": name, **{SUMMARY[key]: each[key] for key in SUMMARY if key in each}}
        for name, each in every.items()
    ]
    yield _card("", _table(shown))
    if isinstance(found.get("text"), str):
        yield _card("The text", f"<pre>{escape(found['text'])}</pre>")
    for name, each in every.items():
        writers: dict[str, list[tuple[float, float]]] = {}
        for place, (kind, at) in enumerate(zip(each["kinds"], each["times_s"], strict=True)):
            label = WRITERS.get(kind, (str(kind), ""))[0]
            writers.setdefault(label, []).append((float(at), place + 1.0))
        drawn = charts.steps(writers, x="seconds since it was asked for", y="tokens of the text")
        yield _card(f"Who wrote which token when: {name}", drawn)
        counts = each.get("accept_histogram")
        if isinstance(counts, list) and counts and all(map(_number, counts)):
            values = [(str(n + 1), float(count)) for n, count in enumerate(counts)]
            drawn = charts.bars(values, x="position in a block", y="accepted drafts")
            yield _card(f"Acceptance by position: {name}", drawn)


def _comparison(found: dict[str, Any]) -> Iterator[str]:
    """``draftlink compare``."""
    series = {
        f"{n + 1} {row['name']}": [
            (row["bits_up_per_accepted"], row["acceptance"], str(row["name"]))
        ]
        for n, row in enumerate(found["rows"])
        if row.get("payload_bits_per_drafted") and _number(row["acceptance"])
    }
    x = "bits up per accepted token, all counted (logarithmic)"
    temperature = found.get("temperature")
    said = f", temperature {temperature:g}" if _number(temperature) else ""
    yield _card(f"Bits against acceptance{said}", charts.points(series, x=x, y="alpha", log=True))
    rates = [(row["name"], row["tokens_per_s"]) for row in found["rows"] if "tokens_per_s" in row]
    named = [(str(n + 1), value) for n, (_, value) in enumerate(_named(rates))]
    drawn = charts.bars(named, x="row of the table below", y="tokens/s")
    yield _card("Tokens/s", drawn)
    yield _card("", _table([{"": f"{n + 1} {row['name']}", **_without(row, "name")}
                            for n, row in enumerate(found["rows"])]))  # fmt: skip


def _links(cells: Sequence[dict[str, Any]]) -> Iterator[str]:
    """``bench.link``: tokens/s of each mode against the round trip."""
    from draftlink.link.shaping import PROFILES

    for rule, pace in sorted({(str(c.get("rule")), c.get("target_s", 0.0)) for c in cells}):
        series: dict[str, list[charts.Point]] = {}
        for cell in cells:
            link = PROFILES.get(cell["link"])
            if link is None or (str(cell.get("rule")), cell.get("target_s", 0.0)) != (rule, pace):
                continue
            for mode, rate in cell["tokens_per_s"].items():
                told = f"{cell['link']}, {mode}: {rate:g} tokens/s"
                series.setdefault(mode, []).append((1e3 * link.mean_rtt_s, rate, told))
        drawn = charts.points(series, x="round trip, ms", y="tokens/s", lines=True)
        yield _card(f"Tokens/s against the round trip: {rule}, {1e3 * pace:g} ms a step", drawn)


def _anything(found: Any) -> str:
    """A result of a kind that is not known: its numbers, as they are."""
    if isinstance(found, dict) and found and not any(map(_nested, found.values())):
        return _table([{"": key, "value": value} for key, value in found.items()])
    if isinstance(found, dict):
        parts = (f"<h3>{escape(str(key))}</h3>{_anything(value)}" for key, value in found.items())
        return "".join(parts)
    if isinstance(found, list) and found and all(isinstance(row, dict) for row in found):
        return _table(found)
    return f"<pre>{escape(_value(found))}</pre>"


def _table(rows: Any) -> str:
    """Rows as a table; what nests is left out."""
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        return ""
    names = [
        name
        for name in dict.fromkeys(name for row in rows for name in row)
        if not any(_nested(row.get(name)) for row in rows)
    ]
    if not rows or not names:
        return ""
    head = "".join(f"<th>{escape(str(name).replace('_', ' '))}</th>" for name in names)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(_value(row.get(name)))}</td>' for name in names)}</tr>"
        for row in rows[:MOST_ROWS]
    )
    more = f"<p>and {len(rows) - MOST_ROWS} more</p>" if len(rows) > MOST_ROWS else ""
    return f"<table><tr>{head}</tr>{body}</table>{more}"


def _value(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _nested(value: Any) -> bool:
    return isinstance(value, dict | list)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _numbers(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and all(map(_number, value.values()))


def _named(pairs: Sequence[tuple[Any, Any]]) -> list[tuple[str, float]]:
    return [(str(name), float(value)) for name, value in pairs if _number(value)]


def _without(row: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != name}


def _is_text(found: Any) -> bool:
    """Whether it is a generation's result."""
    if not isinstance(found, dict):
        return False
    kinds, times_s = found.get("kinds"), found.get("times_s")
    return (
        isinstance(kinds, list)
        and isinstance(times_s, list)
        and len(kinds) == len(times_s)
        and all(isinstance(kind, str) for kind in kinds)
        and all(map(_number, times_s))
    )


def _is_rows(rows: Any, *keys: str) -> bool:
    """Whether it is a table that has these columns, of numbers, names, or numbers by name."""
    return (
        isinstance(rows, list)
        and bool(rows)
        and all(
            isinstance(row, dict)
            and all(
                _number(row.get(key)) or isinstance(row.get(key), str) or _numbers(row.get(key))
                for key in keys
            )
            for row in rows
        )
    )

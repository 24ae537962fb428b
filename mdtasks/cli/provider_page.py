"""The page of `mdtasks providers NAME`: the score with its arithmetic, the looks, the transitions with their cases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from mdtasks.cli.output import plural, show_line, show_table, sparkline, text_of
from mdtasks.domain import health
from mdtasks.domain.jobs import Interval

if TYPE_CHECKING:
    from mdtasks.flows.provider_past import Stood
    from mdtasks.flows.provider_reports import Report
    from mdtasks.store.providers import Entry

#: Samples that the page lists, of the newest and of each case; --json has them all.
_SAMPLES: Final = 6
_ORDERS: Final = {"bars": "intraday bars", "eod": "daily bars", "quotes": "quotes"}
_STYLES: Final = {
    "ok": "green",
    "demoted": "red",
    "half-open": "yellow",
    "paused": "yellow",
    "promoted": "green",
    "resumed": "green",
}


def show_page(found: Report, state: str) -> None:
    """Print everything that is known of a provider; it fits 80 columns."""
    standing = found.standing
    show_line((standing.name, "bold"), "  ", (state, _STYLES[state]), f"  score {standing.score:.3f}")
    if standing.why_aside:
        show_line(text_of(standing.why_aside))
    if standing.opened and not standing.pause:
        wait = f"a probe may go in {standing.retry_in_s:.0f} s" if standing.retry_in_s else "a probe may go now"
        show_line(f"{wait}; left alone {plural(standing.opened, 'time')} since it was last well")
    _head("score")
    _show_parts(standing.circuit, standing.parts)
    for line in found.thresholds:
        show_line(line)
    _show_looks(found.history)
    _head("asked")
    for line in _asked(found):
        show_line(line)
    ended = [f"{each.attempts:,} {each.error_class or 'well'}" for each in found.outcomes]
    show_line(f"attempts within 30 min, by what it did: {', '.join(ended) or 'none asked it'}")
    _show_samples("newest samples", [health.as_document(each) for each in found.samples])
    for entry in found.transitions or ():
        _show_entry(entry)


def show_page_then(found: Stood, state: str | None) -> None:
    """Print everything that was on record of a provider by an instant."""
    measured = found.measured
    score = "" if measured is None else f"  score {measured[1]:.3f} at {text_of(measured[0])} UTC"
    show_line((found.name, "bold"), "  ", (state or "not looked at", _STYLES[state] if state else ""), score)
    if found.why_aside:
        show_line(text_of(found.why_aside))
    if measured is not None:
        _head("score")
        _show_parts(measured[2], measured[3])
        _show_looks([each.as_dict() for each in found.looks])
    for entry in found.transitions:
        _show_entry(entry)


def _head(title: str, told: str = "", style: str = "") -> None:
    print()
    show_line((title, f"bold {style}".strip()), told)


def _show_parts(circuit: health.Circuit, parts: health.Parts) -> None:
    shares = {
        "breaker": (circuit.value_of, health.BREAKER),
        "latency": (parts.latency, health.LATENCY),
        "errors": (parts.errors, health.ERRORS),
        "completeness": (parts.completeness, health.COMPLETENESS),
    }
    rows = [(name, f"{value:.3f}", f"x {share:.2f}", f"{value * share:.3f}") for name, (value, share) in shares.items()]
    show_table(("part", "value", "share", "gives"), [*rows, ("score", "", "", f"{parts.score(circuit):.3f}")])
    show_line(f"evidence {parts.evidence:.3f}: the score without the breaker, from 0 to 1; rules go by it")


def _show_looks(history: Sequence[Mapping[str, Any]]) -> None:
    if not history:
        _head("looks", "  none yet: beat takes one every 10 s")
        return
    first, last = history[0]["timestamp"], history[-1]["timestamp"]
    lowest = min(look["health_score"] for look in history)
    told = f"  {first:%H:%M:%S} to {last:%H:%M:%S} UTC, {plural(len(history), 'look')}, lowest {lowest:.3f}"
    _head("looks", told)
    show_line(sparkline([look["health_score"] for look in history], len(history)))


def _asked(found: Report) -> Iterator[str]:
    places = [f"no. {place} for {_ORDERS[order]}" for order, place in found.places.items() if place is not None]
    yield ", ".join(places) or "in none of the orders"
    rates = "+".join(map(str, found.rates))
    yield f"rate {rates}: {found.standing.budget:,} may go at once now" if rates else "no rate limits it"
    declared = found.capabilities
    intervals = " ".join(interval for interval in Interval if interval in declared.intervals)
    words = [
        f"bars {intervals}" if intervals else "no bars",
        "quotes" if declared.quotes else "no quotes",
        "corporate actions" if declared.actions else "",
        f"{plural(declared.max_symbols, 'symbol')} a call",
        f"back {declared.history.days:,} days" if declared.history is not None else "",
        f"{declared.delay_s:g} s late" if declared.delay_s else "",
        "complete answers" if declared.complete else "silence proves nothing",
    ]
    yield "declares: " + ", ".join(filter(None, words))
    if declared.listing:
        yield f"lists its instruments: `mdtasks universe refresh --source {found.standing.name}`"


def _show_samples(title: str, samples: Sequence[Mapping[str, Any]]) -> None:
    if not samples:
        _head(title, "  none")
        return
    shown = f"{min(len(samples), _SAMPLES)} of {len(samples)}, the newest first"
    requests = [each for each in samples if each["code"] != health.JUDGED]
    failed = sum(each["code"] != health.ANSWERED for each in requests)
    _head(title, f"  {shown}; of {plural(len(requests), 'request')} {failed:,} failed")
    headers = ("at (UTC)", "what", "code", "took", "complete", "by")
    show_table(headers, [_sample(each) for each in samples[:_SAMPLES]])


def _sample(each: Mapping[str, Any]) -> tuple[object, ...]:
    at = each["at"] if isinstance(each["at"], str) else f"{each['at']:%Y-%m-%dT%H:%M:%S}"
    took, complete = each.get("latency_s"), each.get("completeness")
    return (
        at[11:19],
        f"{each['endpoint']} {'judged' if each['code'] == health.JUDGED else 'asked'}",
        each["code"],
        None if took is None else took_words(took),
        None if complete is None else f"{complete:.0%}",
        each["by"],
    )


def took_words(seconds: float) -> str:
    """How long something took: ``7 ms``, ``2.50 s``."""
    return f"{1000 * seconds:.0f} ms" if seconds < 0.1 else f"{seconds:.2f} s"


def _show_entry(entry: Entry) -> None:
    case = entry.case
    _head(entry.kind, f"  {text_of(entry.at)} UTC, score after it {entry.score:.3f}", _STYLES[entry.kind])
    for line in case.get("arithmetic", ()):
        show_line(text_of(line))
    if entry.kind == "promoted" and case.get("opened"):
        show_line(f"it was left alone {plural(case['opened'], 'time')} before")
    if "by" in case:
        show_line(text_of(f"by {case['by']}" + (f": {case['reason']}" if case["reason"] else "")))
    if "samples" in case:
        _show_samples("its samples", case["samples"])

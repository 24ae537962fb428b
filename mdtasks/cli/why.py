"""``mdtasks why``: where a bar comes from, or why there is none, on one page."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from mdtasks.cli.frame import Commands, print_json
from mdtasks.cli.inputs import add_interval, explain, symbols_of, time_of
from mdtasks.domain.errors import InvalidRequestError

if TYPE_CHECKING:
    from mdtasks.flows.why import Why
    from mdtasks.store.provenance import Origin

_VALUES: Final = ("open", "high", "low", "close", "volume")
#: Entries of the ledger, and voices on silence, that a page shows.
_SHOWN: Final = 5

_EXAMPLES: Final = """
examples:
  mdtasks why AAPL 2026-11-02T14:30Z
  mdtasks why AAPL 2026-11-02 --interval 1d
  mdtasks why AAPL 2026-11-02T09:30-05:00 --json

The interval that holds the time: the bar as it stands, every version it had, who brought each and by which job, worker
and policy; bars that came and broke a rule; and where there is no bar, why not.
"""


def add_parser(commands: Commands) -> None:
    """Add ``why``."""
    show = commands.add("why", why, "Show where a bar comes from, or why there is none", json=True)
    show.add_argument("symbol", metavar="SYMBOL")
    show.add_argument("ts", metavar="TIME", help="a moment in the interval; a date alone is 00:00 UTC of that day")
    add_interval(show)
    explain(show, _EXAMPLES)


def why(args: argparse.Namespace) -> int:
    """Show all that is known of one interval."""
    from mdtasks.cli.opened import opened_deps
    from mdtasks.cli.output import json_tree
    from mdtasks.domain.jobs import Interval
    from mdtasks.flows.why import why as explained

    symbol, *others = symbols_of([args.symbol])
    if others:
        raise InvalidRequestError(
            f"{len(others) + 1} symbols: give one", field="symbol", hint="a loop asks for several"
        )
    at = time_of(args.ts, "ts")
    with opened_deps(args) as deps:
        found = explained(symbol, at, Interval(args.interval), deps, datetime.now(UTC))
    if args.json:
        print_json(json_tree(found.as_dict()))
    else:
        show_page(found)
    return 0


def show_page(found: Why) -> None:
    """The page: the verdict first, then the bar, then the evidence."""
    from mdtasks.cli.output import show_line
    from mdtasks.domain.verdicts import MEANINGS

    slot = f"{found.slot.start:%Y-%m-%d %H:%M} to {found.slot.end:%Y-%m-%d %H:%M} UTC"
    tier = found.member.kept_in or "not followed"
    about = f"{found.member.symbol} {found.interval}, {slot} ({found.member.mic}, {tier}): "
    show_line(about, (found.verdict.value, "bold"))
    print(f"  {MEANINGS[found.verdict]}")
    _show_sessions(found)
    _show_versions(found)
    _show_candidates(found)
    _show_silences(found)
    _show_ledger(found)
    print("\nnext")
    for line in _next(found):
        print(f"  {line}")


def _show_sessions(found: Why) -> None:
    from mdtasks.domain.verdicts import Verdict

    if found.verdict not in (Verdict.OUTSIDE, Verdict.EXTENDED, Verdict.NOT_ENDED):
        return
    for word, session in (("before", found.before), ("after", found.after)):
        if session is not None:
            print(f"  the session {word}: {session.open:%a %Y-%m-%d %H:%M} to {session.close:%a %Y-%m-%d %H:%M} UTC")


def _show_versions(found: Why) -> None:
    from mdtasks.cli.output import show_table

    if not found.versions:
        print("\nbar  none")
        return
    print()
    headers = ("version", *_VALUES, "provider", "status", "known (UTC)", "final (UTC)", "replaced (UTC)", "attempt")
    first = len(found.versions)
    rows = [
        (
            f"{first - number}" + (" stands" if each.superseded_at is None else ""),
            *(getattr(each, name) for name in _VALUES),
            each.provider,
            each.status,
            each.known_at,
            each.known_at if each.status == "final" and each.final_at is None else each.final_at,
            each.superseded_at,
            str(each.attempt_id),
        )
        for number, each in enumerate(found.versions)
    ]
    show_table(headers, rows)
    for attempt_id in dict.fromkeys(each.attempt_id for each in found.versions):
        _show_origin(attempt_id, found.origins.get(attempt_id))


def _show_origin(attempt_id: int, origin: Origin | None) -> None:
    if origin is None:
        print(f"\nattempt {attempt_id}  not on record")
        return
    print(f"\nattempt {attempt_id}")
    width = 9
    for name, said in _origin_lines(origin):
        print(f"  {name:<{width}}{said}")


def _origin_lines(origin: Origin) -> Iterator[tuple[str, str]]:
    from mdtasks.cli.output import text_of

    if origin.job_type != "backfill":
        job = "a live fetch: it has no job row"
    elif origin.job_status is None:
        job = "its row is not kept any more (retention.jobs_days)"
    else:
        window = f"{text_of(origin.job_start)} to {text_of(origin.job_end)}"
        job = f"{origin.tier}, {window}, {origin.job_status}"
    yield "job", f"{origin.job_id} ({origin.job_type}): {job}"
    if origin.requested_by is not None:
        yield "asked by", f"{text_of(origin.requested_by)} at {text_of(origin.requested_at)}, request {origin.request}"
    yield "worker", f"{origin.worker}, attempt {origin.attempt}"
    ended = "still running" if origin.ended_at is None else f"{origin.outcome} at {text_of(origin.ended_at)}"
    yield "ran", f"{text_of(origin.started_at)}, {ended}" + (f", {origin.bars:,} bars" if origin.bars else "")
    if origin.message:
        yield "said", text_of(origin.message)
    yield "policy", _policy(origin)
    for step in origin.route or ():
        yield "route", _step(step)
    if origin.route is None and origin.ended_at is not None:
        yield "route", "not on record"


def _policy(origin: Origin) -> str:
    from mdtasks.cli.output import text_of

    if not origin.policy_version:
        return "the defaults: none was applied"
    if origin.policy_author is None:
        return f"version {origin.policy_version}"
    by = f"by {text_of(origin.policy_author)} at {text_of(origin.policy_applied_at)}"
    return f"version {origin.policy_version}, {by}: {text_of(origin.policy_reason)}"


def _step(step: Any) -> str:
    from mdtasks.cli.output import text_of

    said = [f"answered {step['answered']} times" if step.get("answered") else "", str(step.get("why", ""))]
    said += [f"{code}: {message}" for code, message in (step.get("errors") or {}).items()]
    return text_of(f"{step.get('provider')}: {'; '.join(part for part in said if part) or 'not asked'}")


def _show_candidates(found: Why) -> None:
    from mdtasks.cli.output import show_table

    if not found.candidates:
        return
    print()
    headers = ("kept out for", *_VALUES, "provider", "seen (UTC)", "job")
    rows = []
    for each in found.candidates:
        origin = found.origins.get(each.attempt_id)
        values = (each.bar.get(name) for name in _VALUES)
        rows.append((each.reason, *values, each.provider, each.seen_at, None if origin is None else origin.job_id))
    show_table(headers, rows)


def _show_silences(found: Why) -> None:
    from mdtasks.cli.output import show_table

    heard = [] if found.told is None else found.told.heard
    if not heard:
        return
    print()
    rows = []
    for each in heard[:_SHOWN]:
        origin = None if each.attempt_id is None else found.origins.get(each.attempt_id)
        believed = "believed" if each.believed else "not believed"
        job = None if origin is None else origin.job_id
        rows.append((each.provider, each.starts_at, each.ends_at, believed, each.answered_at, job))
    show_table(("silence said by", "from (UTC)", "to (UTC)", "and it is", "said (UTC)", "job"), rows)


def _show_ledger(found: Why) -> None:
    from mdtasks.cli.output import show_table

    ledger = [] if found.told is None else found.told.ledger
    if not ledger:
        return
    print()
    rows = [
        (str(e.id), e.start, e.end, e.found_at, e.outcome or "open", e.closed_at, e.job, e.job_status)
        for e in ledger[:_SHOWN]
    ]
    show_table(("gap", "from (UTC)", "to (UTC)", "found (UTC)", "now", "closed (UTC)", "job", "job is"), rows)
    for each in ledger[:_SHOWN]:
        if each.closed_at is None and each.last_error:
            print(f"  gap {each.id}: {each.last_error_class}: {each.last_error}")


def _next(found: Why) -> Iterator[str]:
    from mdtasks.domain.verdicts import Verdict

    of_it = f"{found.member.symbol} --interval {found.interval}"
    window = f"--start {found.slot.start:%Y-%m-%dT%H:%MZ} --end {found.slot.end:%Y-%m-%dT%H:%MZ}"
    jobs = dict.fromkeys(o.job_id for o in found.origins.values() if o.job_type != "backfill" or o.job_status)
    match found.verdict:
        case Verdict.MISSING | Verdict.QUARANTINED:
            yield f"mdtasks gaps {of_it} {window} --explain"
            yield f"mdtasks backfill {of_it} {window}"
        case Verdict.NOT_KEPT:
            yield "mdtasks retention"
        case Verdict.OUTSIDE | Verdict.HALTED:
            yield f"mdtasks calendar show {found.member.mic}"
        case Verdict.PRESENT | Verdict.UNSETTLED | Verdict.EXTENDED:
            yield f"mdtasks backfill {of_it} {window} --refetch   # ask again"
        case _:
            yield f"mdtasks gaps {of_it} {window} --explain"
    for job in list(jobs)[:2]:
        yield f"mdtasks jobs show {job}"

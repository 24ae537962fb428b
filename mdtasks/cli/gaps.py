"""``mdtasks gaps``: what is missing, since when, why, and what is done about it; ``gaps accept``: a person's word."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from mdtasks.cli.frame import Commands, print_json, say
from mdtasks.cli.inputs import actor, add_interval, add_window, asked_window, explain, symbols_of, time_of
from mdtasks.domain.errors import InvalidRequestError, SilenceDoubtedError

if TYPE_CHECKING:
    from mdtasks.domain.completeness import Completeness
    from mdtasks.flows.gaps import Explanation
    from mdtasks.store.gaps import LedgerEntry

#: Windows that a table lists.
_SHOWN: Final = 20
#: The last sessions that are looked at when no window is given.
_SESSIONS: Final = 5

_GAPS = """
examples:
  mdtasks gaps AAPL MSFT
  mdtasks gaps AAPL --explain
  mdtasks gaps --interval 1d --start 2020-01-01
  mdtasks gaps @symbols.txt --sessions 20 --check && echo complete
  mdtasks gaps AAPL --as-of 2026-11-02T21:00Z --explain
  mdtasks gaps accept AAPL --start 2026-11-02T15:30Z --end 2026-11-02T15:50Z --reason "halted for news"

Expected are the intervals in which the symbol's exchange trades. Present and no_trade ones were answered for by a
provider, with a bar and without; in halted ones the symbol did not trade; missing ones were not answered for, or with
bars that broke a rule (quarantined), or with silence that its own trading makes near impossible; pending ones ended a
moment ago and are on their way.
"""

_ACCEPT = """
examples:
  mdtasks gaps accept AAPL --start 2026-11-02T15:30Z --end 2026-11-02T15:50Z --reason "halted for news"

What is missing in the window counts as no trade from now on, on your word: gaps close, failed jobs about it are given
up. Who, when and why is kept.
"""


def add_parser(commands: Commands) -> None:
    """Add ``gaps`` and ``gaps accept``."""
    look = commands.add("gaps", gaps, "Show what is missing against the exchange's calendar", json=True)
    look.add_argument("symbols", nargs="*", metavar="SYMBOL", help="a name, @FILE, or - (default: the whole universe)")
    add_interval(look)
    add_window(look, default=f" (default: {_SESSIONS}, when there is no --start)")
    look.add_argument("--as-of", metavar="TIME", help="as it would have been answered then (default: now)")
    look.add_argument("--explain", action="store_true", help="since when, why, which job works on it, on what evidence")
    look.add_argument("--check", action="store_true", help="exit with 1 when something is missing")
    explain(look, _GAPS)
    take = commands.add("gaps accept", accept, "Count what is missing in a window as no trade, on your word", json=True)
    take.add_argument("symbol", metavar="SYMBOL")
    add_interval(take)
    take.add_argument("--start", required=True, metavar="TIME", help="first moment")
    take.add_argument("--end", required=True, metavar="TIME", help="the moment after the last")
    take.add_argument("--reason", required=True, metavar="TEXT", help="why, for the record")
    take.set_defaults(sessions=None)
    explain(take, _ACCEPT)


def gaps(args: argparse.Namespace) -> int:
    """Show what is missing. Exit code 1 with ``--check`` when something is."""
    from mdtasks.cli.opened import opened_deps
    from mdtasks.domain.jobs import Interval
    from mdtasks.flows.gaps import Question, explain_gaps, find_gaps

    symbols = symbols_of(args.symbols) if args.symbols else []
    as_of = None if args.as_of is None else time_of(args.as_of, "as_of")
    asked = Question(symbols, Interval(args.interval), asked_window(args, sessions=_SESSIONS), as_of)
    if args.explain and not symbols:
        raise InvalidRequestError("--explain which symbols?", field="symbol", hint="mdtasks gaps AAPL --explain")
    now = datetime.now(UTC)
    with opened_deps(args) as deps:
        explained = [explain_gaps(symbol, asked, deps, now) for symbol in symbols] if args.explain else []
        found = [each.completeness for each in explained] or find_gaps(asked, deps, now)
    if args.json:
        from mdtasks.cli.output import json_tree

        print_json(json_tree([each.as_dict() for each in explained or found]))
    elif explained:
        for each in explained:
            _explain(each)
    elif found:
        _show_gaps(found)
    else:
        empty = "the universe is empty; `mdtasks universe add AAPL --mic XNYS` adds a symbol"
        say(empty if args.as_of is None else f"no symbol was known at {args.as_of}")
    return 1 if args.check and any(each.gaps for each in found) else 0


def accept(args: argparse.Namespace) -> int:
    """Take responsibility for a stretch of silence."""
    from mdtasks.cli.opened import opened_deps
    from mdtasks.cli.output import json_tree, plural
    from mdtasks.domain.jobs import Interval
    from mdtasks.flows.gaps import Question, accept_gaps

    (symbol,) = symbols_of([args.symbol])
    asked = Question([symbol], Interval(args.interval), asked_window(args))
    with opened_deps(args) as deps:
        done = accept_gaps(symbol, asked, (actor(), args.reason), deps, datetime.now(UTC))
    if args.json:
        print_json(json_tree(done.as_dict()))
        return 0
    say(f"{plural(done.intervals, 'interval')} of {symbol} {done.interval} count as no trade now")
    say(f"`mdtasks gaps {symbol} --interval {done.interval} --explain` shows your word with the others")
    return 0


def _show_gaps(found: list[Completeness], *, explained: bool = False) -> None:
    from mdtasks.cli.output import plural, show_table

    names = ("expected", "present", "no_trade", "halted", "missing", "quarantined", "pending")
    # What is rare has a column only where there is some.
    shown = [n for n in names if n not in ("halted", "quarantined") or any(getattr(each, n) for each in found)]
    rows = [(e.symbol, f"{e.window.start:%Y-%m-%d %H:%M}", *(getattr(e, n) for n in shown)) for e in found]
    show_table(("symbol", "from (UTC)", *shown), rows)
    windows = [(each.symbol, gap.window.start, gap.window.end, gap.missing) for each in found for gap in each.gaps]
    if not windows:
        say("no gaps")
        return
    print()
    show_table(("gap in", "from (UTC)", "to (UTC)", "missing"), windows[:_SHOWN])
    if len(windows) > _SHOWN:
        say(f"and {len(windows) - _SHOWN:,} more; --json lists all")
    missing = [each.symbol for each in found if each.gaps]
    where = f"{plural(len(windows), 'gap')} in {plural(len(missing), 'symbol')}"
    say(where if explained else f"{where}; --explain says why and what is done about them")


def _explain(told: Explanation) -> None:
    """One symbol: the verdicts, then each gap of the ledger, then who said what."""
    from mdtasks.cli.output import show_table

    _show_gaps([told.completeness], explained=True)
    bars = ", ".join(f"{count:,} from {name}" for name, count in told.providers.items()) or "none"
    print(f"bars  {bars}")
    if told.ledger:
        print()
        headers = ("gap", "from (UTC)", "to (UTC)", "missing", "found (UTC)", "then" if told.as_of else "now", "job")
        show_table(headers, [_entry(each) for each in told.ledger[:_SHOWN]])
        for each in (entry for entry in told.ledger if entry.closed_at is None and told.as_of is None):
            say(_what_next(each, told))
    doubted = [each for each in told.heard if not each.believed]
    by_hand = [each for each in told.heard if each.by_hand]
    for title, said in (("not believed", doubted), ("accepted by", by_hand)):
        if said:
            print()
            rows = [(each.provider, each.starts_at, each.ends_at, each.answered_at) for each in said[:_SHOWN]]
            show_table((f"silence {title}", "from (UTC)", "to (UTC)", "said (UTC)"), rows)
    if told.rejected:
        print()
        broken = [(each.provider, each.ts, each.reason, each.seen_at) for each in told.rejected[:_SHOWN]]
        show_table(("quarantined from", "bar (UTC)", "rule", "seen (UTC)"), broken)


def _entry(each: LedgerEntry) -> tuple[object, ...]:
    from mdtasks.cli.waiting import spoken

    took = each.took_s
    now = "open" if took is None else f"{each.outcome} after {spoken(took)}"
    return (each.id, each.start, each.end, each.missing, each.found_at, now, each.job)


def _what_next(each: LedgerEntry, told: Explanation) -> str:
    """What is being done about an open gap, or what somebody must do."""
    of_it = f"{told.completeness.symbol} --interval {told.completeness.interval}"
    window = f"--start {each.start:%Y-%m-%dT%H:%MZ} --end {each.end:%Y-%m-%dT%H:%MZ}"
    error = f": {each.last_error}" if each.last_error else ""
    match each.job_status:
        case "failed":
            said = f"job {each.job} failed after {each.attempts} attempts{error}"
            again = f"`mdtasks requeue {each.job}` asks again"
            if each.last_error_class == SilenceDoubtedError.code:
                again += f"; `mdtasks gaps accept {of_it} {window} --reason ...` believes it"
            others = f"`mdtasks dlq list --symbol {told.completeness.symbol}` lists all its letters"
            return f"gap {each.id}: {said}\n  {again}\n  {others}"
        case "queued" | "deferred" | "running":
            tried = f" after {each.attempts} of {each.max_attempts} attempts{error}" if each.attempts else ""
            again = f", next attempt at {each.not_before:%H:%M:%SZ}" if each.not_before else ""
            return f"gap {each.id}: job {each.job} is {each.job_status}{tried}{again}"
        case "done" if not told.completeness.gaps:
            return f"gap {each.id}: job {each.job} has answered for it; the next scan closes it"
    return f"gap {each.id}: no job works on it; the next scan asks for it, or `mdtasks backfill {of_it} {window}`"

"""``mdtasks diff``: what changed of a symbol between two moments of knowledge, and who changed it."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from typing import Any, Final

from mdtasks.cli.frame import Commands, print_json, say
from mdtasks.cli.inputs import add_interval, add_window, asked_window, count_of, explain, symbols_of, time_of
from mdtasks.domain.errors import InvalidRequestError

#: The last sessions that are compared when no window is given.
_SESSIONS: Final = 5
_BY: Final = ("inserted", "revised", "worker", "policy_version", "job_id")
_VALUES: Final = ("open", "high", "low", "close", "volume")

_EXAMPLES: Final = """
examples:
  mdtasks diff AAPL --from 2026-11-02T21:00Z
  mdtasks diff AAPL --from 2026-11-02T21:00Z --to 2026-11-03T09:00Z --start 2026-11-02 --end 2026-11-03
  mdtasks diff AAPL --interval 1d --start 2020-01-01 --from 2026-01-01 --limit 100000 --json

Two reads of the same bars, as they were known at --from and at --to: which came, which were revised (field by field),
by which job and provider; which gaps were found and closed meanwhile; which corporate actions came to stand or no
longer do; and which tiers versions of the universe, or people, gave the symbol.
"""


def add_parser(commands: Commands) -> None:
    """Add ``diff``."""
    show = commands.add("diff", diff, "Show what changed of a symbol between two moments of knowledge", json=True)
    show.add_argument("symbol", metavar="SYMBOL")
    show.add_argument("--from", dest="since", required=True, metavar="TIME", help="as it was known then")
    show.add_argument("--to", dest="until", metavar="TIME", help="and as it was known then (default: now)")
    add_interval(show)
    add_window(show, default=f" (default: {_SESSIONS}, when there is no --start)")
    show.add_argument(
        "--limit", type=count_of("rows"), default=20, metavar="N", help="list at most N of each kind (default: 20)"
    )
    explain(show, _EXAMPLES)


def diff(args: argparse.Namespace) -> int:
    """Compare two reads of the same bars."""
    from mdtasks.cli.opened import opened_deps
    from mdtasks.cli.output import json_tree
    from mdtasks.domain.jobs import Interval
    from mdtasks.flows.differences import Between, differences

    symbol, *others = symbols_of([args.symbol])
    if others:
        raise InvalidRequestError(f"{len(others) + 1} symbols: give one", field="symbol", hint="compare one by one")
    between = Between(
        symbol,
        Interval(args.interval),
        asked_window(args, sessions=_SESSIONS),
        time_of(args.since, "from"),
        None if args.until is None else time_of(args.until, "to"),
        args.limit,
    )
    with opened_deps(args) as deps:
        found = differences(between, deps, datetime.now(UTC))
    if args.json:
        print_json(json_tree(found))
    else:
        _show(found)
    return 0


def _show(found: dict[str, Any]) -> None:
    from mdtasks.cli.output import text_of

    window = f"{found['start']:%Y-%m-%d %H:%M} to {found['end']:%Y-%m-%d %H:%M} UTC"
    if "kept_from" in found:
        say(f"compared from {found['kept_from']:%Y-%m-%d} on: what is older was deleted (`mdtasks retention`)")
    print(f"{found['symbol']} {found['interval']}, {window}")
    print(f"as known at {text_of(found['from'])} and at {text_of(found['to'])} UTC")
    _show_bars(found["bars"])
    _show_gaps(found["gaps"])
    _show_actions(found["actions"])
    _show_tier(found["tier"])
    if any(found[part]["cut"] for part in ("bars", "gaps", "actions", "tier")):
        say("not every row is shown; --limit shows more")


def _show_bars(bars: dict[str, Any]) -> None:
    from mdtasks.cli.output import plural, show_table

    names = {"inserted": "inserted", "revised": "revised", "promoted": "became final"}
    names |= {"removed": "removed", "unchanged": "unchanged"}
    counts = ", ".join(f"{bars[name]:,} {word}" for name, word in names.items())
    print(f"\n{plural(bars['before'], 'bar')} then, {bars['after']:,} later: {counts}")
    if bars["by"]:
        print()
        rows = [(each["provider"], str(each["attempt_id"]), *(each[name] for name in _BY)) for each in bars["by"]]
        show_table(("by", "attempt", "inserted", "revised", "worker", "policy", "job"), rows)
    for kind in ("inserted", "removed"):
        if bars["rows"][kind]:
            print()
            lines = [(r["ts"], *(r[v] for v in _VALUES), r["provider"], r["known_at"]) for r in bars["rows"][kind]]
            show_table((f"{kind} (UTC)", *_VALUES, "provider", "known (UTC)"), lines)
    if bars["rows"]["revised"]:
        print()
        show_table(("revised (UTC)", "what"), [(r["ts"], _changes(r["fields"])) for r in bars["rows"]["revised"]])


def _changes(fields: dict[str, list[Any]]) -> str:
    """What people look at: values, provider and state; when and by which attempt is told above."""
    from mdtasks.cli.output import text_of

    shown = {name: pair for name, pair in fields.items() if name not in ("known_at", "attempt_id")}
    return ", ".join(f"{name} {text_of(old)} -> {text_of(new)}" for name, (old, new) in shown.items())


def _show_gaps(gaps: dict[str, Any]) -> None:
    from mdtasks.cli.output import plural, show_table

    found = plural(gaps["found"], "gap")
    print(f"\n{found} found, {gaps['closed']:,} closed; {plural(gaps['silences'], 'run')} of silence heard")
    if gaps["rows"]["ledger"]:
        rows = [
            (str(r["id"]), r["start"], r["end"], r["missing"], r["found_at"], r["outcome"] or "open", r["closed_at"])
            for r in gaps["rows"]["ledger"]
        ]
        show_table(("gap", "from (UTC)", "to (UTC)", "missing", "found (UTC)", "now", "closed (UTC)"), rows)
    if gaps["rows"]["silences"]:
        lines = [
            (r["provider"], r["start"], r["end"], "believed" if r["believed"] else "not believed", r["answered_at"])
            for r in gaps["rows"]["silences"]
        ]
        show_table(("silence said by", "from (UTC)", "to (UTC)", "and it is", "said (UTC)"), lines)


def _show_actions(actions: dict[str, Any]) -> None:
    from mdtasks.cli.output import plural, show_table

    if not actions["statements"]:
        return
    told = plural(actions["statements"], "statement")
    print(f"\n{told} of corporate actions: {actions['appeared']:,} came to stand, {actions['gone']:,} no longer do")
    rows = [
        (r["ex_date"], r["kind"], _value(r), "withdrawn" if r["withdrawn"] else "told", r["source"], r["known_at"])
        for r in actions["rows"]["statements"]
    ]
    show_table(("ex-date", "kind", "value", "what", "by", "known (UTC)"), rows)


def _value(action: dict[str, Any]) -> object:
    """Its number, or the symbol that it names."""
    return action["symbol"] if action["value"] is None else action["value"]


def _show_tier(tier: dict[str, Any]) -> None:
    from mdtasks.cli.output import show_table

    if not tier["rows"]:
        return
    print(f"\ntier {tier['before'] or 'none'} then, {tier['after'] or 'none'} later")
    rows = [
        (r["at"], r["before"] or "none", r["tier"] or "none", r["version_tag"], r["actor"], r["reason"])
        for r in tier["rows"]
    ]
    show_table(("since (UTC)", "from", "to", "version", "by", "reason"), rows)

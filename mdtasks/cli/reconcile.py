"""``mdtasks reconcile``: how far stored bars agree with other sources."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from mdtasks.cli.frame import Commands, print_json, say
from mdtasks.cli.inputs import count_of, explain, since_of, symbols_of

if TYPE_CHECKING:
    from mdtasks.store.crosschecks import Disagreement, Tally

_KINDS: Final = {"minutes": "its minutes", "provider": "another provider"}

_EXAMPLES: Final = """
examples:
  mdtasks reconcile
  mdtasks reconcile AAPL SPY --since 30d --limit 100
  mdtasks reconcile --check --json

Every few minutes beat has daily bars held against their minutes, and some bars at random against a second provider.
Distances are in basis points of the larger value. `wrong` is the one that a third provider contradicts too, or whose
own minutes contradict its day; - where nobody can tell.
"""


def add_parser(commands: Commands) -> None:
    """Add ``reconcile``."""
    show = commands.add("reconcile", reconcile, "Show how far stored bars agree with other sources", json=True)
    show.add_argument("symbols", nargs="*", metavar="SYMBOL", help="a name, @FILE, or - (default: all)")
    show.add_argument("--since", default="7d", metavar="TIME", help="a time, or how long ago: 6h, 2d (default: 7d)")
    show.add_argument(
        "--limit",
        type=count_of("disagreements", 100_000, least=0),
        default=20,
        metavar="N",
        help="the N newest disagreements (default: 20)",
    )
    show.add_argument("--check", action="store_true", help="exit with 1 when sources disagreed")
    explain(show, _EXAMPLES)


def reconcile(args: argparse.Namespace) -> int:
    """Show which sources were compared and where they disagreed. With --check exit code 1 when any did."""
    from mdtasks.cli.opened import opened_database
    from mdtasks.cli.output import json_tree
    from mdtasks.flows.crosscheck_reports import report

    symbols = symbols_of(args.symbols) if args.symbols else []
    since = since_of(args.since, datetime.now(UTC))
    with opened_database(args) as database:
        found = report(database, symbols, since, args.limit)
    if args.json:
        print_json(json_tree(found.as_dict()))
    elif found.tallies:
        _show(found.tallies, found.disagreements)
    else:
        say("nothing was compared in that time: no final bars of two sources, or no beat (`mdtasks doctor` tells)")
    return 1 if args.check and any(each.disagreed for each in found.tallies) else 0


def _show(tallies: Sequence[Tally], disagreements: Sequence[Disagreement]) -> None:
    from mdtasks.cli.output import show_table

    worst = ("worst bp: open", "high", "low", "close", "volume")
    show_table(("stored by", "int", "beside", "of", "bars", "disagree", *worst), [_tally(each) for each in tallies])
    if disagreements:
        print()
        about = ("symbol", "int", "ts (UTC)", "field", "stored by", "value", "beside", "value", "bp", "wrong")
        show_table(about, [row for each in disagreements for row in _rows(each)])


def _tally(each: Tally) -> tuple[object, ...]:
    worst = (each.open_bp, each.high_bp, each.low_bp, each.close_bp, each.volume_bp)
    about = (each.provider, each.interval, _KINDS[each.kind], each.other_provider, each.compared, each.disagreed)
    return (*about, *(f"{bp:.1f}" for bp in worst))


def _rows(each: Disagreement) -> list[tuple[object, ...]]:
    from mdtasks.domain.crosschecks import FIELDS

    places = [FIELDS.index(name) for name in each.beyond]
    about = (each.symbol, each.interval, each.ts)
    return [
        (
            *about,
            FIELDS[at],
            each.provider,
            each.bar[at],
            each.other_provider,
            each.other_bar[at],
            f"{each.apart_bp[at]:.1f}",
            each.wrong,
        )
        for at in places
    ]

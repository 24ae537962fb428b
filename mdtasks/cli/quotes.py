"""``mdtasks quotes``: the newest stored quote of symbols."""

from __future__ import annotations

import argparse
from typing import Final

from mdtasks.cli.frame import Commands, print_json, say
from mdtasks.cli.inputs import explain, symbols_of

_COLUMNS: Final = ("symbol", "ts", "bid", "bid_size", "ask", "ask_size")

_EXAMPLES: Final = """
examples:
  mdtasks quotes BTC-USD
  mdtasks universe list --tier T0 --names | mdtasks quotes - --json
"""


def add_parser(commands: Commands) -> None:
    """Add ``quotes``."""
    show = commands.add("quotes", quotes, "Show the newest quote of symbols", json=True)
    show.add_argument("symbols", nargs="+", metavar="SYMBOL", help="a name, @FILE, or -")
    explain(show, _EXAMPLES)


def quotes(args: argparse.Namespace) -> int:
    """Show the newest stored quotes, all read in one call."""
    from mdtasks.cli.opened import opened_database
    from mdtasks.cli.output import json_row, show_table
    from mdtasks.store.quotes import latest_rows

    with opened_database(args) as database, database.transaction() as connection:
        rows = latest_rows(connection, symbols_of(args.symbols))
    if args.json:
        print_json([json_row(row) for row in rows])
        return 0
    found = [row for row in rows if row["ts"] is not None]
    if found:
        show_table(("symbol", "ts (UTC)", *_COLUMNS[2:]), [[row[name] for name in _COLUMNS] for row in found])
    if len(found) < len(rows):
        say(f"no quotes yet of {', '.join(row['symbol'] for row in rows if row['ts'] is None)}")
    return 0

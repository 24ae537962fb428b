"""``mdtasks traces``: provider calls that were slow, and where the time of the traced ones went."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Final

from mdtasks.cli.frame import Commands, print_json, say
from mdtasks.cli.inputs import count_of, explain

#: Functions that ``traces show`` lists.
_TOPS: Final = 20
_SUFFIXES: Final = (".html", ".json")

_EXAMPLES: Final = """
examples:
  mdtasks traces --provider alpaca --since 2h
  mdtasks traces --job 3f0c9c1e-8d3e-4f4e-9b44-0a6b2f7d1c55
  mdtasks traces show 17
  mdtasks traces save 17 --output slow.html     # a flame chart: opens in a browser, offline
  mdtasks traces save 17 --output slow.json     # for vizviewer slow.json, or ui.perfetto.dev
"""


def add_parser(commands: Commands) -> None:
    """Add ``traces``, ``traces show`` and ``traces save``."""
    several = commands.add(
        "traces", list_traces, "List slow provider calls; `traces show ID` tells where the time went", json=True
    )
    several.add_argument("--provider", metavar="NAME", help="of one provider only")
    several.add_argument("--capability", metavar="C", help="bars_1m ... bars_1d, quotes")
    several.add_argument("--job", metavar="ID", help="of one job only")
    several.add_argument("--since", metavar="TIME", help="begun since a time, or since 30m, 2h, 3d ago")
    several.add_argument("--min-latency", type=_seconds, metavar="S", help="that took so many seconds or longer")
    several.add_argument(
        "--limit", type=count_of("calls", 1_000_000), default=50, metavar="N", help="at most N (default: 50)"
    )
    explain(several, _EXAMPLES)
    below = Commands(several, dest="traces_command")
    several.set_defaults(func=list_traces)
    one = below.add("show", show_trace, "Show a slow call: what was asked, and where its time went", json=True)
    one.add_argument("call", type=_id, metavar="ID")
    file = below.add("save", save_trace, "Write the trace of a slow call to a file")
    file.add_argument("call", type=_id, metavar="ID")
    file.add_argument("--output", required=True, type=_file, metavar="FILE", help="FILE.html or FILE.json")
    for parser in (one, file):
        explain(parser, _EXAMPLES)


def _seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return number


def _id(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise argparse.ArgumentTypeError(f"{text!r} is not the number of a slow call; `mdtasks traces` lists them")
    return int(text)


def _file(text: str) -> Path:
    path = Path(text).expanduser()
    if path.suffix.lower() not in _SUFFIXES:
        raise argparse.ArgumentTypeError(f"{text!r} ends neither in .html (a flame chart) nor in .json (VizTracer's)")
    return path


def list_traces(args: argparse.Namespace) -> int:
    """List slow calls."""
    from datetime import UTC, datetime

    from mdtasks.cli.inputs import since_of
    from mdtasks.cli.opened import opened_database
    from mdtasks.cli.output import json_row, show_table
    from mdtasks.store import traces

    since = None if args.since is None else since_of(args.since, datetime.now(UTC))
    which = traces.TraceFilter(args.provider, args.capability, args.job, since, args.min_latency)
    with opened_database(args) as database, database.transaction() as connection:
        rows = traces.matching(connection, which, args.limit)
    if args.json:
        print_json([json_row(row) for row in rows])
    elif rows:
        headers = ("call", "began (UTC)", "provider", "capability", "took", "symbols", "job", "try", "error", "trace")
        show_table(headers, [_cells(row) for row in rows])
        if len(rows) == args.limit:
            say(f"the newest {args.limit}; --limit shows more")
    else:
        say("no slow provider calls" + (" like that" if which != traces.TraceFilter() else ""))
    return 0


def _cells(row: dict[str, Any]) -> tuple[object, ...]:
    asked = (row["provider"], row["capability"], f"{row['latency_s']:.2f}s", _symbols(row))
    trace = None if row["bytes"] is None else f"{row['bytes'] / 1000:.0f} kB"
    return (str(row["id"]), row["at"], *asked, row["job_id"], row["attempt"], row["error_class"], trace)


def _symbols(row: dict[str, Any]) -> str:
    first = row["symbols"][:3]
    more = row["symbol_count"] - len(first)
    return ",".join(first) + (f" +{more:,}" if more else "")


def show_trace(args: argparse.Namespace) -> int:
    """Show one slow call; of a traced one the functions in which most time was spent."""
    from dataclasses import asdict

    from mdtasks.cli.opened import opened_database
    from mdtasks.cli.output import json_row, show_fields, show_table
    from mdtasks.observe.flames import read_flame, tops
    from mdtasks.store import traces

    with opened_database(args) as database, database.transaction() as connection:
        row = traces.one(connection, args.call)
        content = None if row["bytes"] is None else traces.trace_of(connection, args.call)
    heaviest = [] if content is None else tops(read_flame(content), _TOPS)
    if args.json:
        print_json({**json_row(row), "functions": [asdict(each) for each in heaviest]})
        return 0
    shown = {**row, "id": str(row["id"]), "symbols": ", ".join(row["symbols"])}
    show_fields({name.replace("_", " "): value for name, value in shown.items() if value is not None})
    if content is None:
        say("no trace of it: not sampled, six traced in that minute by its process, or newer ones took its place")
        return 0
    print()
    headers = ("own s", "with callees s", "calls", "function", "at")
    cells = [(round(each.own_s, 4), round(each.total_s, 4), each.calls, each.function, each.where) for each in heaviest]
    show_table(headers, cells)
    say(f"`mdtasks traces save {args.call} --output FILE.html` writes the flame chart")
    return 0


def save_trace(args: argparse.Namespace) -> int:
    """Write a trace to a file, whole or not at all."""
    from mdtasks.cli.bar_formats import whole_file
    from mdtasks.cli.opened import opened_database
    from mdtasks.observe.flames import read_flame
    from mdtasks.store import traces
    from mdtasks.web.flame import flame_page

    with opened_database(args) as database, database.transaction() as connection:
        content = traces.trace_of(connection, args.call)
    if args.output.suffix.lower() == ".html":
        flame = read_flame(content)
        title = f"{flame.context['provider']} {flame.context['capability']}: slow call {args.call}"
        content = flame_page(flame, title).encode()
    with whole_file(args.output) as stream:
        stream.write(content)
    say(f"written to {args.output} ({len(content):,} bytes)")
    return 0

"""``mdtasks replay``: the newest bars out of the replay buffer, and every new one as it comes."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from mdtasks.cli.frame import Commands, say, settings_of
from mdtasks.cli.inputs import add_interval, count_of, explain, symbols_of
from mdtasks.domain.errors import InvalidRequestError

if TYPE_CHECKING:
    from mdtasks.client import Update
    from mdtasks.client.once import Kept

_HEADERS: Final = ("symbol", "ts (UTC)", "open", "high", "low", "close", "volume", "", "provider")

_EXAMPLES: Final = """
examples:
  mdtasks replay BTC-USD --last 5
  mdtasks replay BTC-USD ETH-USD --follow --json | jq -c '[.symbol, .ts, .close]'
  mdtasks replay BTC-USD --since 5f0c9a:118 --follow     go on after that position
"""


def add_parser(commands: Commands) -> None:
    """Add ``replay``."""
    show = commands.add("replay", replay, "Show the newest bars as they are committed", json=True)
    show.add_argument("symbols", nargs="+", metavar="SYMBOL", help="a name, @FILE, or -")
    add_interval(show)
    show.add_argument(
        "--last", type=count_of("entries", least=0), metavar="N", help="begin with the last N (default: all)"
    )
    show.add_argument(
        "--since", action="append", metavar="POSITION", help="go on from there; SYMBOL=POSITION where there are several"
    )
    show.add_argument("--follow", "-f", action="store_true", help="go on with every new one, until Ctrl-C")
    show.add_argument("--quotes", action="store_true", help="with --follow: the newest quotes too")
    show.add_argument("--url", metavar="URL", help="the web app (default: that of the stack in --home)")
    explain(show, _EXAMPLES)


def replay(args: argparse.Namespace) -> int:
    """Show what the buffer keeps; with ``--follow`` go on for ever, over restarts of the server."""
    symbols = symbols_of(args.symbols)
    since, url = since_of(args.since or [], symbols), args.url or _web_url(args)
    if args.follow:
        _follow(args, symbols, since, url)
        return 0
    from mdtasks.client.once import replay as kept_of

    kept = [
        kept_of(symbol, interval=args.interval, url=url, since=since.get(symbol, ""), last=args.last)
        for symbol in symbols
    ]
    if args.json:
        print(json.dumps([_document(each) for each in kept], indent=2, default=_iso, ensure_ascii=False))
    else:
        _show(kept)
    return 0


def since_of(words: Sequence[str], symbols: Sequence[str]) -> dict[str, str]:
    """Symbol -> position, from ``SYMBOL=POSITION`` or, of a single symbol, the position alone.

    Raises InvalidRequestError.
    """
    found = {}
    for word in words:
        symbol, given, position = word.rpartition("=")
        if not given and len(symbols) > 1:
            raise InvalidRequestError(
                f"--since {word} does not say of which symbol", field="since", hint=f"--since {symbols[0]}={word}"
            )
        found[symbol or symbols[0]] = position
    return found


def _web_url(args: argparse.Namespace) -> str:
    """Where the web app of the command's stack is. Raises StackNotRunningError."""
    from mdtasks.stack.report import stack_status

    return stack_status(settings_of(args).home).record.web_url


def _follow(args: argparse.Namespace, symbols: Sequence[str], since: dict[str, str], url: str) -> None:
    from mdtasks.client import stream

    def tell(error: Exception, pause_s: float) -> None:
        say(f"the stream is lost: {error}; again in {pause_s:.1f} s")

    updates = stream(
        symbols, interval=args.interval, url=url, since=since, last=args.last, quotes=args.quotes, on_lost=tell
    )
    for update in updates:
        line = json.dumps(_fields(update), default=_iso) if args.json else "  ".join(_cells(update))
        print(line, flush=True)


def _show(kept: Sequence[Kept]) -> None:
    from mdtasks.cli.output import show_table

    show_table(_HEADERS, [_cells(entry) for each in kept for entry in each.entries])
    for each in kept:
        how = "since then" if each.resumed else "kept"
        say(f"{each.symbol}: {len(each.entries)} {how}; go on with --since {each.position}")


def _document(kept: Kept) -> dict[str, Any]:
    return {**asdict(kept), "entries": [_fields(entry) for entry in kept.entries]}


def _fields(update: Update) -> dict[str, Any]:
    return {"type": _TYPES[type(update).__name__], **asdict(update)}


_TYPES: Final = {"Bar": "bar", "IntervalComplete": "interval_complete", "Quote": "quote"}


def _cells(update: Update) -> list[str]:
    """One line of the table: a bar's values, a quote's sides, or that nobody traded."""
    from mdtasks.client import Bar, Quote

    at = f"{update.ts:%Y-%m-%d %H:%M:%S}"
    if isinstance(update, Bar):
        values = (update.open, update.high, update.low, update.close, update.volume)
        status = "final" if update.final else "provisional"
        return [update.symbol, at, *(f"{value:g}" for value in values), status, update.provider]
    if isinstance(update, Quote):
        sides = (update.bid, update.bid_size, update.ask, update.ask_size)
        return [
            update.symbol,
            at,
            *("-" if side is None else f"{side:g}" for side in sides),
            "",
            "quote",
            update.provider,
        ]
    return [update.symbol, at, "", "", "", "", "", "no trade", ""]


def _iso(value: Any) -> str:
    return str(value.isoformat().replace("+00:00", "Z"))

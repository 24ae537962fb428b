"""What people type and how it is read: symbols, times, windows, tiers. Wrong values are refused by name.

The options are declared without importing the domain (``--help`` is quick); values are read when a command runs.
"""

from __future__ import annotations

import argparse
import getpass
import os
import re
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mdtasks.domain.errors import InvalidRequestError

if TYPE_CHECKING:
    from mdtasks.domain.windows import AskedWindow

#: The values of ``Interval`` and ``Tier``, and the kinds of instruments.
INTERVALS: Final = ("1m", "5m", "15m", "1h", "1d")
TIERS: Final = ("T0", "T1", "T2")
KINDS: Final = ("equity", "index", "crypto")

_SYMBOL: Final = re.compile(r"[A-Za-z0-9^][A-Za-z0-9._/^=:-]{0,31}")
_AGO: Final = re.compile(r"(\d{1,6})([smhdw])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def explain(parser: argparse.ArgumentParser, epilog: str) -> None:
    """Put examples under a command's ``--help``, laid out as they are written."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = epilog.strip("\n")


def add_interval(parser: argparse.ArgumentParser, default: str | None = "1m") -> None:
    """``--interval``, with the one that holds where none is given (None: all)."""
    text = f"{', '.join(INTERVALS)} (default: {default or 'all'})"
    parser.add_argument("--interval", type=_one_of("interval", INTERVALS), default=default, metavar="I", help=text)


def add_tier(parser: argparse.ArgumentParser, help_text: str, *, required: bool = False, name: str = "--tier") -> None:
    """``--tier``, or an option of another name that takes a tier."""
    parser.add_argument(name, type=_one_of("tier", TIERS), metavar="T", required=required, help=help_text)


def add_kind(parser: argparse.ArgumentParser) -> None:
    """``--kind`` of an instrument."""
    text = f"{', '.join(KINDS)} (default: crypto on 24/7, else equity)"
    parser.add_argument("--kind", type=_one_of("kind", KINDS), metavar="K", help=text)


def add_window(parser: argparse.ArgumentParser, *, default: str) -> None:
    """``--start``, ``--end`` and ``--sessions``; ``default`` says what holds without them."""
    parser.add_argument("--start", metavar="TIME", help="first moment; a date alone is 00:00 UTC of that day")
    parser.add_argument("--end", metavar="TIME", help="the moment after the last (default: now)")
    parser.add_argument("--sessions", type=count_of("sessions"), metavar="N", help=f"the last N sessions{default}")


def asked_window(args: argparse.Namespace, *, sessions: int | None = None) -> AskedWindow:
    """The window of the options; the last ``sessions`` where neither a start nor a number of sessions was given.

    Raises InvalidRequestError for both, for none without such a default, and for what is no time.
    """
    from mdtasks.domain.windows import AskedWindow

    start = None if args.start is None else time_of(args.start, "start")
    end = None if args.end is None else time_of(args.end, "end")
    number = args.sessions if args.sessions is not None or start is not None else sessions
    if (start is None) == (number is None):
        asked = "give --start or --sessions" + ("" if start is None else ", not both")
        raise InvalidRequestError(asked, field="start", hint="such as --start 2026-11-02, or --sessions 5")
    return AskedWindow(start, end, number)


def time_of(text: str, field: str, *, also: str = "") -> datetime:
    """An aware time (ISO 8601), or a date, which is its 00:00 UTC. Raises InvalidRequestError naming ``field``."""
    try:
        read = datetime.fromisoformat(text.strip())
    except ValueError:
        raise InvalidRequestError(
            f"{field} {text!r} is not a time",
            field=field,
            hint="write 2026-11-02T14:30Z, 2026-11-02T09:30-05:00, or a date alone for 00:00 UTC"
            + (f"; or {also}" if also else ""),
        ) from None
    if read.tzinfo is None and re.fullmatch(r"\d{4}-?\d\d-?\d\d", text.strip()):
        return read.replace(tzinfo=UTC)
    if read.tzinfo is None:
        raise InvalidRequestError(
            f"{field} {text} is naive: it does not say in which time zone",
            field=field,
            hint=f"add one, such as {text}Z for UTC",
        )
    try:
        return read.astimezone(UTC)
    except OverflowError:
        raise InvalidRequestError(
            f"{field} {text} is out of range", field=field, hint="the years 1 to 9999 in UTC are in range"
        ) from None


def since_of(text: str, now: datetime) -> datetime:
    """A time, or how long before ``now``: 90s, 30m, 2h, 3d, 1w. Raises InvalidRequestError."""
    ago = _AGO.fullmatch(text.strip())
    if ago is None:
        return time_of(text, "since", also="how long ago: 30m, 2h, 3d")
    try:
        return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    except OverflowError:
        return datetime.min.replace(tzinfo=UTC)


def seconds_of(what: str, least: float, most: float) -> Callable[[str], float]:
    """An argparse type: a length of time such as 90s, 30m, 2h, in seconds."""

    def read(text: str) -> float:
        found = _AGO.fullmatch(text.strip())
        seconds = timedelta(**{_UNITS[found[2]]: int(found[1])}).total_seconds() if found else -1.0
        if not least <= seconds <= most:
            raise argparse.ArgumentTypeError(f"{text!r}: {what} is such as 90s, 30m, 2h; {least:g} s to {most:g} s")
        return seconds

    return read


def add_symbol(parser: argparse.ArgumentParser) -> None:
    """``--symbol``, a filter."""
    parser.add_argument("--symbol", type=_symbol, metavar="SYMBOL", help="of one symbol only")


def symbols_of(words: Iterable[str]) -> list[str]:
    """The symbols of an argument list, each once: names, ``@FILE`` for those in a file, ``-`` for standard input.

    In files and on standard input they stand between white space or commas; ``#`` begins a comment.
    Raises InvalidRequestError for what is no symbol, and for a file that cannot be read.
    """
    found: dict[str, None] = {}
    for word in words:
        for symbol in _listed(word) if word == "-" or word.startswith("@") else [word]:
            if not _SYMBOL.fullmatch(symbol):
                raise InvalidRequestError(
                    f"{symbol!r} is not a symbol",
                    field="symbol",
                    hint="up to 32 letters, digits and . _ / ^ = : - or @FILE for those in a file, - for stdin",
                )
            found[symbol] = None
    if not found:
        raise InvalidRequestError("no symbols were given", field="symbol", hint="name some, or @FILE, or - for stdin")
    return list(found)


def _listed(word: str) -> Iterator[str]:
    try:
        text = sys.stdin.read() if word == "-" else Path(word[1:]).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is not text"
        raise InvalidRequestError(
            f"cannot read symbols from {word[1:] or 'stdin'}: {reason}",
            field="symbol",
            hint="@FILE is a text file with symbols between white space or commas",
        ) from exc
    for line in text.splitlines():
        yield from line.partition("#")[0].replace(",", " ").split()


def _symbol(text: str) -> str:
    return symbols_of([text])[0]


def actor() -> str:
    """Who does this, for the record: user@host."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def count_of(what: str, most: int = 100_000, *, least: int = 1) -> type[int]:
    """An argparse type: a whole number from ``least`` to ``most``."""

    def read(text: str) -> int:
        number = int(text) if text.isascii() and text.isdigit() and len(text) < 12 else -1
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number of {what} ({least} to {most})")
        return number

    return read  # type: ignore[return-value]


def _one_of(what: str, known: tuple[str, ...]) -> type[str]:
    def read(text: str) -> str:
        folded = {name.lower(): name for name in known}
        if text.lower() not in folded:
            raise argparse.ArgumentTypeError(f"unknown {what} {text!r}; there are {', '.join(known)}")
        return folded[text.lower()]

    return read  # type: ignore[return-value]

"""``mdtasks demo``, which `up --demo` runs beside the stack: fill it, say what to type, show bars arrive."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from mdtasks.cli.frame import Commands, say, settings_of
from mdtasks.domain.errors import ConflictError, UnavailableError

if TYPE_CHECKING:
    from mdtasks.connections import Database
    from mdtasks.flows.deps import Deps
    from mdtasks.settings import Settings

#: How often the store is looked at for new live bars, seconds.
_LOOK_EVERY_S: Final = 2.0
_NEXT: Final = (
    ("mdtasks status", "what runs, and what it uses"),
    ("mdtasks bars BTC-USD", "the newest bars"),
    ("mdtasks gaps AAPL", "what is missing: nothing"),
    ("mdtasks backfill SPY --interval 1d --sessions 250 --wait", "fetch more"),
    ("mdtasks jobs", "what was fetched, and how"),
    ("mdtasks dlq list", "what failed for good: nothing"),
    ("mdtasks doctor", "is all well?"),
)


def add_parser(commands: Commands) -> None:
    """Add ``demo``."""
    show = commands.add("demo", demo, "Fill a stack that was started with `up --demo` with simulated bars")
    only = show.add_mutually_exclusive_group()
    only.add_argument("--no-live", action="store_true", help="end when the bars are stored")
    only.add_argument("--live", action="store_true", help="only show the live bars arrive")


def demo(args: argparse.Namespace) -> int:
    """Fill and watch. Ends quietly with Ctrl-C or with its stack."""
    from mdtasks.cli.opened import opened_database, opened_deps

    # Ends like Ctrl-C does, so that the terminal gets its cursor back.
    # A Ctrl-C comes from the terminal and, as a stop, from the stack: the first ends this, the second is no news.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop_once)
    try:
        if args.live:
            with opened_database(args) as database:
                _watch(database)
        settings = settings_of(args)
        _refuse_without_simulator(settings)
        with opened_deps(args, settings) as deps:
            _fill(deps)
        _say_what_next(settings.home)
        if not args.no_live:
            _become_the_watcher(settings.home)
    except KeyboardInterrupt:
        return 0
    return 0


def _become_the_watcher(home: Path) -> None:
    """Go on as a process that is half as large: what filling needed (calendars, the broker) is gone from memory."""
    sys.stderr.flush()
    argv = [sys.executable, "-P", "-m", "mdtasks", "demo", "--live", "--home", str(home)]
    os.execv(sys.executable, argv)  # noqa: S606 - itself


def _refuse_without_simulator(settings: Settings) -> None:
    """Raise ConflictError when the workers have no simulator: each job of the demonstration would be a dead letter."""
    from mdtasks.settings import CONNECTION_FILE, load_settings

    settings.require_database_url()
    # What the stack here was started with; this terminal's variables say nothing of its workers.
    here = (settings.home / CONNECTION_FILE).exists()
    if not (load_settings({}, home=settings.home) if here else settings).simulator:
        raise ConflictError(
            "the simulator is off here: the demonstration is made of its bars",
            hint="`mdtasks down`, then `mdtasks up --demo`; or give stack and command MDTASKS_SIMULATOR=1",
        )


def _fill(deps: Deps) -> None:
    from mdtasks.cli.output import plural
    from mdtasks.cli.waiting import wait_for
    from mdtasks.flows import demo as flow

    began = time.monotonic()
    answer = flow.seed(deps, datetime.now(UTC))
    total = answer.queued + answer.deferred + answer.merged
    names = ", ".join(each.symbol for each in flow.UNIVERSE)
    about = f"1m bars of the last {flow.SESSIONS} sessions, made up by the simulator"
    say(f"filling {names}: {about} ({plural(total, 'job')})")
    seen = wait_for(deps.database, answer.request_id)
    say(f"{plural(seen.bars, 'bar')} stored in {time.monotonic() - began:.1f} s")
    if seen.jobs.get("failed"):
        say(f"{plural(seen.jobs['failed'], 'job')} failed: `mdtasks dlq groups` says why")


def _say_what_next(home: Path) -> None:
    """What to type in another terminal, with the home where it is not the default one."""
    from mdtasks.cli.output import activation

    plain = home == Path.cwd() / ".mdtasks" and "MDTASKS_HOME" not in os.environ
    extra = "" if plain else f" --home {shlex.quote(str(home))}"
    say("\nin another terminal:")
    if activate := activation():
        say(f"  {activate}")
    width = max(len(command) for command, _ in _NEXT) + len(extra)
    for command, why in _NEXT:
        say(f"  {command + extra:<{width}}  {_dim(why)}")
    say("")


def _stop_once(_number: int, _frame: object) -> NoReturn:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _watch(database: Database) -> NoReturn:
    """A line for each minute in which live bars came. A store that is away for a while is waited for."""
    from mdtasks.flows.demo import ALWAYS, newest

    say(_dim("live bars follow, a line a minute"))
    shown: datetime | None = None
    while True:
        with suppress(UnavailableError):
            found = newest(database, ALWAYS, datetime.now(UTC))
            latest = max((at for at, _, _ in found.values()), default=None)
            if latest is not None and (shown is None or latest > shown):
                shown = latest
                prices = "   ".join(_price(symbol, *found[symbol][1:]) for symbol in ALWAYS if symbol in found)
                say(f"{latest:%H:%M} UTC   {prices}")
        time.sleep(_LOOK_EVERY_S)


def _price(symbol: str, close: float, before: float) -> str:
    mark, colour = ("▲", "32") if close > before else ("▼", "31") if close < before else ("=", "2")
    return f"{symbol} {close:>10,.2f} " + (f"\x1b[{colour}m{mark}\x1b[0m" if sys.stderr.isatty() else mark)


def _dim(text: str) -> str:
    return f"\x1b[2m{text}\x1b[0m" if sys.stderr.isatty() else text

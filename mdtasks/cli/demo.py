"""``mdtasks demo``, which `up --demo` runs beside the stack: fill it, say what to type, show bars arrive."""

from __future__ import annotations

import argparse
import itertools
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from mdtasks.cli.demo_watch import Watcher, dim
from mdtasks.cli.frame import Commands, say, settings_of
from mdtasks.domain.errors import ConflictError

if TYPE_CHECKING:
    from mdtasks.flows.deps import Deps
    from mdtasks.providers.outages import Schedule
    from mdtasks.settings import Settings

#: During an outage somebody asks for a further day so often: jobs show what it does to them.
_ASK_EVERY: Final = timedelta(seconds=5)
_NEXT: Final = (
    ("mdtasks status", "what runs, and what it uses"),
    ("mdtasks bars BTC-USD", "the newest bars"),
    ("mdtasks gaps AAPL", "what is missing: nothing"),
    ("mdtasks backfill SPY --interval 1d --sessions 250 --wait", "fetch more"),
    ("mdtasks jobs", "what was fetched, and how"),
    ("mdtasks dlq list", "what failed for good: nothing"),
    ("mdtasks doctor", "is all well?"),
)
_NEXT_OF_OUTAGE: Final = (
    ("mdtasks providers", "how well each provider is"),
    ("mdtasks providers simulator", "its score part by part, and the case when it is left aside"),
    ("mdtasks jobs", "what was fetched meanwhile"),
    ("mdtasks jobs show JOB", "whom an attempt asked, and who answered"),
    ("mdtasks runbook ProviderDemoted", "what to do about it"),
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
                Watcher(database, _order(settings_of(args))).run()
        settings = settings_of(args)
        _refuse_without_simulator(settings)
        with opened_deps(args, settings) as deps:
            _fill(deps)
            outage = _outage(deps.settings)
            _say_what_next(settings.home, _NEXT_OF_OUTAGE if outage.spells else _NEXT)
            if outage.ends_at is not None and not args.no_live:
                _show_outage(deps, outage)
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


def _outage(settings: Settings) -> Schedule:
    from mdtasks.providers.faults import Faults
    from mdtasks.providers.outages import Schedule

    return Schedule.parse(settings.simulator_schedule, settings.simulator_epoch, Faults())


def _order(settings: Settings) -> list[str]:
    """Whom the stack asks for live bars, first choice first."""
    from mdtasks.domain.jobs import Interval
    from mdtasks.providers.registry import Registry

    return [each.name for each in Registry(settings).order(Interval.M1)]


def _show_outage(deps: Deps, outage: Schedule) -> NoReturn:
    """Say what will happen when, then watch it, with a trickle of backfills until it is over."""
    from mdtasks.flows import demo as flow

    for line in outage_lines(outage, datetime.now(UTC)):
        say(line)
    say("")
    numbers = itertools.count()
    due_at = datetime.now(UTC)

    def trickle(now: datetime) -> None:
        nonlocal due_at
        if outage.ends_at is not None and due_at <= now < outage.ends_at:
            due_at = now + _ASK_EVERY
            flow.ask_further(deps, next(numbers), now)

    Watcher(deps.database, _order(deps.settings)).run(trickle)


def outage_lines(outage: Schedule, now: datetime) -> Iterator[str]:
    """What a schedule of faults will do to the first provider, and when."""
    if outage.epoch is None:
        return
    yield "the provider `simulator` has an outage; lines here tell when it is left aside and taken back:"
    for spell in outage.spells:
        since, until = (outage.epoch + timedelta(seconds=at_s) for at_s in (spell.since_s, spell.until_s))
        what = "fails" if spell.faults.error else "is slow" if spell.faults.latency_s else "is faulty"
        wait_s = (since - now).total_seconds()
        when = f"in {wait_s:.0f} s" if wait_s > 0 else "over" if until <= now else "now"
        yield f"  {since:%H:%M:%S} to {until:%H:%M:%S} UTC  it {what} ({spell.faults}), {when}"
    yield f"  from {outage.ends_at:%H:%M:%S} UTC on it answers; once probes have shown it, it serves again by itself"


def _say_what_next(home: Path, what: Sequence[tuple[str, str]]) -> None:
    """What to type in another terminal, with the home where it is not the default one."""
    from mdtasks.cli.output import activation

    plain = home == Path.cwd() / ".mdtasks" and "MDTASKS_HOME" not in os.environ
    extra = "" if plain else f" --home {shlex.quote(str(home))}"
    say("\nin another terminal:")
    if activate := activation():
        say(f"  {activate}")
    width = max(len(command) for command, _ in what) + len(extra)
    for command, why in what:
        say(f"  {command + extra:<{width}}  {dim(why)}")
    say("")


def _stop_once(_number: int, _frame: object) -> NoReturn:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt

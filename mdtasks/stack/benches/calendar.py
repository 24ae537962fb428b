"""Calendars beside exchange_calendars' own calls for the same answers: equal first, then fast."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np

from mdtasks.domain.bars import from_us, to_us
from mdtasks.domain.errors import MdtasksError
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.domain.moments import MINUTE_US
from mdtasks.domain.schedules import Times
from mdtasks.domain.sessions import Calendar, Calendars
from mdtasks.stack.benches.measure import Result, Say, alternate

#: A lunch break, half days, holidays of two calendars.
MIC: Final = "XHKG"
_WINDOW: Final = TimeWindow(start=datetime(2024, 1, 1, tzinfo=UTC), end=datetime(2025, 1, 1, tzinfo=UTC))
_DAYS: Final = TimeWindow(start=datetime(2024, 9, 2, tzinfo=UTC), end=datetime(2024, 9, 5, tzinfo=UTC))


@dataclass(frozen=True, slots=True)
class Pair:
    """One question put to both: each side answers all of it and says how many answers that were.

    ``name`` of ours and of the library's call. ``answers``: both sides' answers, to be found equal before the race.
    """

    ours: tuple[str, Callable[[], int]]
    theirs: tuple[str, Callable[[], int]]
    answers: Callable[[], tuple[Any, Any]]


def bench_calendar(say: Say, *, moments: int = 20_000, rounds: int = 5) -> Result:
    """Scalars and arrays of one exchange. Raises MdtasksError when the two do not say the same."""
    from exchange_calendars import calendar_utils

    start, end = _WINDOW.start - timedelta(days=60), _WINDOW.end + timedelta(days=30)
    library = calendar_utils._default_calendar_factories[MIC](start=start.date(), end=end.date())
    pairs = [*_scalars(Calendars().get(MIC), library, moments), *_arrays(Calendars().get(MIC), library, moments * 50)]
    for pair in pairs:
        ours, theirs = pair.answers()
        if not np.array_equal(ours, theirs):
            raise MdtasksError(f"{pair.ours[0]} and {pair.theirs[0]} do not say the same", hint="a fault of mdtasks")
    say(f"{len(pairs)} questions about {MIC}: both say the same")
    rates = alternate(dict(side for pair in pairs for side in (pair.ours, pair.theirs)), rounds, say, before=_nothing)
    for pair in pairs:
        say(f"{pair.ours[0]:<16} {1e9 / rates[pair.ours[0]]:>10,.1f} ns")
    ratios = {f"{pair.ours[0]} / {pair.theirs[0]}": rates[pair.ours[0]] / rates[pair.theirs[0]] for pair in pairs}
    return Result("calendar", "answers per second", rates, ratios)


def _scalars(calendar: Calendar, library: Any, count: int) -> list[Pair]:
    """Single moments of the last days at random, as series and ticks of a universe ask: the same minutes many times."""
    import pandas as pd

    minutes = _random_minutes(_DAYS, count)
    times: list[int] = minutes.tolist()
    stamps = [pd.Timestamp(us, unit="us", tz="UTC") for us in times]
    open_us = [us for us in times if calendar.is_open(us)]
    open_stamps = [pd.Timestamp(us, unit="us", tz="UTC") for us in open_us]
    now = to_us(_DAYS.end)
    end = pd.Timestamp(now - MINUTE_US, unit="us", tz="UTC")

    def minute_of(stamp: Any) -> Any:
        return stamp if library.is_trading_minute(stamp) else library.previous_minute(stamp)

    def label_of(us: int) -> Any:
        session = calendar.session_of(us)
        return session and session.label

    return [
        _each("align_minute", calendar.align_minute, times, ("previous_minute", minute_of, stamps), _us_of),
        _each("is_open", calendar.is_open, times, ("is_open_on_minute", library.is_open_on_minute, stamps), bool),
        _each("session_of", label_of, open_us, ("minute_to_session", library.minute_to_session, open_stamps), _date_of),
        _each(
            "elapsed",
            lambda us: calendar.elapsed(us, now, Interval.M1),
            times,
            ("minutes_in_range", lambda stamp: len(library.minutes_in_range(stamp, end)), stamps),
            float,
        ),
    ]


def _each(
    name: str,
    ours: Callable[[int], Any],
    times: Sequence[int],
    other: tuple[str, Callable[[Any], Any], Sequence[Any]],
    plainly: Callable[[Any], Any],
) -> Pair:
    """A question put once for each moment. ``plainly`` turns the library's answer into ours."""
    their_name, theirs, stamps = other
    few = stamps[:2000]  # the library takes its time

    def ask_ours() -> int:
        for us in times:
            ours(us)
        return len(times)

    def ask_theirs() -> int:
        for stamp in few:
            theirs(stamp)
        return len(few)

    def answers() -> tuple[list[Any], list[Any]]:
        return [ours(us) for us in times[: len(few)]], [plainly(theirs(stamp)) for stamp in few]

    return Pair((name, ask_ours), (their_name, ask_theirs), answers)


def _arrays(calendar: Calendar, library: Any, count: int) -> list[Pair]:
    """Many moments at once, over a year."""
    import pandas as pd

    at = _random_minutes(_WINDOW, count)
    open_us = np.unique(at[calendar.are_open(at)])  # the library takes them in order only
    index = pd.DatetimeIndex(open_us.astype("datetime64[us]"), tz="UTC").as_unit("ns")
    minutes = library.minutes.as_unit("us").asi8  # it has no call for arrays: its minutes, searched by hand
    days = (_WINDOW.start.date().isoformat(), "2024-12-31")

    def search() -> Times:
        found: Times = minutes[np.searchsorted(minutes, at, side="right") - 1]
        return found

    def sessions() -> Times:
        held = calendar.schedule(int(open_us.min()), int(open_us.max()))
        return held.labels[np.searchsorted(held.opens, open_us, side="right") - 1]

    def expected() -> Times:
        return calendar.expected(_WINDOW, Interval.M5)

    def trading_index() -> Times:
        found: Times = library.trading_index(*days, "5min", intervals=False, closed="left").as_unit("us").asi8
        return found

    def labels() -> Times:
        found: Times = library.minutes_to_sessions(index).as_unit("us").asi8
        return found

    return [
        _whole("align", lambda: calendar.align(at), ("minutes.searchsorted", search)),
        _whole("sessions", sessions, ("minutes_to_sessions", labels)),
        _whole("expected", expected, ("trading_index", trading_index)),
    ]


def _whole(name: str, ours: Callable[[], Times], other: tuple[str, Callable[[], Times]]) -> Pair:
    """A question put once for all moments."""
    their_name, theirs = other
    return Pair((name, lambda: len(ours())), (their_name, lambda: len(theirs())), lambda: (ours(), theirs()))


def _random_minutes(window: TimeWindow, count: int) -> Times:
    first, after = to_us(window.start) // MINUTE_US, to_us(window.end) // MINUTE_US
    minutes: Times = np.random.default_rng(1).integers(first, after, count) * MINUTE_US
    return minutes


def _us_of(stamp: Any) -> int:
    return int(stamp.value) // 1000  # nanoseconds, whatever unit it holds


def _date_of(label: Any) -> Any:
    return from_us(_us_of(label)).date()


def _nothing() -> None:
    """Calendars need no clearing between rounds."""

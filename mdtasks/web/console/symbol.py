"""A symbol as a page: its bars as candles, what is missing against its exchange's sessions, what was revised."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final
from urllib.parse import quote, urlencode

from pydantic import Field, TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from mdtasks.domain.bars import from_us
from mdtasks.domain.errors import InvalidRequestError
from mdtasks.domain.jobs import Interval, Symbol, TimeWindow
from mdtasks.domain.schedules import Session
from mdtasks.domain.windows import AskedWindow
from mdtasks.flows.gaps import Question
from mdtasks.flows.symbol_view import SymbolView, look
from mdtasks.web.console.backfills import LEVELS
from mdtasks.web.console.forms import filled
from mdtasks.web.console.render import page
from mdtasks.web.console.symbol_paths import symbol_path
from mdtasks.web.console.trading_time import (
    DRAWN,
    HEIGHTS,
    NAMES,
    TradingTime,
    by_session,
    chart_data,
    in_words,
    strip,
    trading_time,
)
from mdtasks.web.console.words import most_decimals
from mdtasks.web.parsing import Query, QueryTime

#: Windows that the page offers for each interval, in sessions; the first is what it shows unless it is told.
_SESSIONS: Final[Mapping[Interval, Sequence[int]]] = {
    Interval.M1: (1, 2, 5),
    Interval.M5: (5, 1, 20),
    Interval.M15: (10, 30, 60),
    Interval.H1: (30, 60, 250),
    Interval.D1: (250, 60, 1250),
}
#: Sessions of which each has a strip of its own.
_ROWS: Final = 10
_NEWEST: Final = 20
_GAPS: Final = 50
_SYMBOL: Final[TypeAdapter[str]] = TypeAdapter(Symbol)


class SymbolQuery(Query):
    """Which interval, and which window: from ``start``, or the last ``sessions``, to ``end`` (blank: now)."""

    interval: Interval = Interval.M1
    sessions: Annotated[int, Field(ge=1, le=5000)] | None = None
    start: QueryTime | None = None
    end: QueryTime | None = None

    @property
    def window(self) -> AskedWindow:
        """The window asked for."""
        if self.start is not None:
            return AskedWindow(self.start, self.end, self.sessions)
        return AskedWindow(None, self.end, self.sessions or _SESSIONS[self.interval][0])


def show(request: Request) -> Response:
    """A symbol: its bars as candles, coverage against its sessions, gaps, revisions; live; a page."""
    symbol, asked, now = _symbol_of(request), filled(request, SymbolQuery), datetime.now(UTC)
    view = look(symbol, Question([symbol], asked.interval, asked.window), request.state.deps, now)
    explained, places = view.explained, trading_time(view.explained)
    return page(
        request,
        "symbols/one.html",
        charts=True,
        symbol=symbol,
        view=view,
        found=explained.completeness,
        intervals=_intervals(view, asked),
        windows=_windows(symbol, asked),
        data=chart_data(explained, places),
        drawn=min(len(places.at_us), DRAWN),
        places=len(places.at_us),
        verdicts=[(name, places.count(name)) for name in NAMES],
        strips=list(_strips(view, places)),
        newest=list(_newest(view)),
        gaps=[
            (gap, view.entry_of(gap), view.jobs_of(gap), _ask(symbol, asked, gap.window))
            for gap in explained.completeness.gaps[::-1][:_GAPS]
        ],
        levels=LEVELS,
        heights=HEIGHTS,
        ask_all=_ask(symbol, asked, explained.completeness.window),
        follows=asked.end is None,
        replay=_replay(request, symbol, asked),
    )


def _symbol_of(request: Request) -> str:
    try:
        return _SYMBOL.validate_python(request.path_params["symbol"])
    except ValidationError as exc:
        raise InvalidRequestError(
            "this is no symbol", field="symbol", hint="the page of all symbols is /console/symbols"
        ) from exc


def _replay(request: Request, symbol: str, asked: SymbolQuery) -> str:
    """Where the live stream of the series is; "" where the app has none, or the window has an end."""
    has = any(getattr(each, "path", "").startswith("/replay/") for each in request.app.routes)
    return f"/replay/{quote(symbol)}?interval={asked.interval}" if has and asked.end is None else ""


def _intervals(view: SymbolView, asked: SymbolQuery) -> list[tuple[str, str, bool]]:
    stored = {each.interval for each in view.stored}
    return [
        (
            each.value if each in stored else f"{each} (none)",
            symbol_path(view.member.symbol, interval=each.value),
            each is asked.interval,
        )
        for each in Interval
    ]


def _windows(symbol: str, asked: SymbolQuery) -> list[tuple[str, str, bool]]:
    plain = asked.start is None and asked.end is None
    taken = asked.window.sessions if plain else None
    numbers = sorted({*_SESSIONS[asked.interval], *([taken] if taken else [])})
    ways = [
        (
            "1 session" if each == 1 else f"{each:,} sessions",
            symbol_path(symbol, interval=asked.interval.value, sessions=each),
            each == taken,
        )
        for each in numbers
    ]
    return ways if plain else [*ways, ("as linked", "", True)]


def _ask(symbol: str, asked: SymbolQuery, window: TimeWindow) -> str:
    """Where a backfill of a window is asked for."""
    fields = {"symbols": symbol, "interval": asked.interval.value}
    span = {name: at.isoformat().replace("+00:00", "Z") for name, at in (("start", window.start), ("end", window.end))}
    return f"/console/backfills/new?{urlencode({**fields, **span})}"


def _strips(view: SymbolView, places: TradingTime) -> Iterator[tuple[str, str, Any, str]]:
    """What each strip is of, its hours, itself, and its verdicts in words."""
    daily = view.explained.completeness.interval is Interval.D1
    if daily or len(view.sessions) > _ROWS:
        if len(places.at_us):
            first, last = (from_us(int(places.at_us[at])) for at in (0, -1))
            told = in_words(places.verdicts)
            yield f"{first:%Y-%m-%d} to {last:%Y-%m-%d}", "", strip(places.verdicts, told), told
        return
    for session, verdicts in zip(view.sessions, by_session(places, view.sessions), strict=True):
        told, hours = in_words(verdicts), _hours(session)
        yield f"{session.label:%a %Y-%m-%d}", hours, strip(verdicts, told), told


def _hours(session: Session) -> str:
    whole = session.close - session.open >= timedelta(days=1)
    return "all day" if whole else f"{session.open:%H:%M} to {session.close:%H:%M}"


def _newest(view: SymbolView) -> Iterator[dict[str, Any]]:
    """The newest bars, the last first."""
    stored = view.explained.stored
    shown = [column[-_NEWEST:].tolist() for column in stored.bars.columns]
    decimals = [*[most_decimals([price for column in shown[:4] for price in column])] * 4, most_decimals(shown[4])]
    for at in range(len(stored) - 1, max(len(stored) - _NEWEST, 0) - 1, -1):
        yield {
            "ts": from_us(int(stored.bars.ts_us[at])),
            "values": [
                f"{column[at]:,.{places}f}" for column, places in zip(stored.bars.columns, decimals, strict=True)
            ],
            "provider": stored.provider[at],
            "final": bool(stored.final[at]),
            "known_at": from_us(int(stored.known_at_us[at])),
        }

"""The benchmark of completeness: the census and the gap scan of a whole tier, beside a query for each series.

A case is a function that does its work once and returns how many series it did; ``_cases`` is the table of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Final

from sqlalchemy import text

from mdtasks.domain.jobs import Interval, Tier
from mdtasks.domain.lateness import lags_s, mark
from mdtasks.flows.deps import Deps
from mdtasks.flows.monitor import WORST, allowance, run_once
from mdtasks.flows.scan import scan
from mdtasks.stack.benches.measure import Result, Say, alternate, scratch
from mdtasks.store import snapshots
from mdtasks.store.gaps import Scope
from mdtasks.store.reference import Instrument, add_instruments
from mdtasks.store.snapshots import Sample, Series

#: A Wednesday on which New York and London trade.
_NOW: Final = datetime(2025, 6, 18, 15, 0, tzinfo=UTC)
_MICS: Final = ("XNYS", "XNYS", "XLON", "24/7")
_SERIES: Final = Series("gap", Tier.T0, Interval.M1)

_FILL: Final = (
    "UPDATE instruments SET created_at = :made_at",
    """
    INSERT INTO coverage (instrument_id, interval, covered, fresh_until)
    SELECT id, '1m', tstzmultirange(tstzrange(:made_at, until)), until
    FROM (SELECT id, :now - make_interval(secs => CASE WHEN id % 100 = 0 THEN 3600 ELSE 90 END) AS until
          FROM instruments) series
    """,
    "ANALYZE instruments, symbols, coverage",
)
_ONE: Final = text("""
SELECT greatest(c.fresh_until, i.created_at), i.mic FROM instruments i
LEFT JOIN coverage c ON c.instrument_id = i.id AND c.interval = '1m' WHERE i.id = :id
""")


@dataclass(frozen=True, slots=True)
class _Scene:
    """A universe with coverage, one series in a hundred an hour late."""

    deps: Deps
    ids: list[int]

    def census(self) -> int:
        """What the monitor asks of PostgreSQL for one tier, the marks of its exchanges included."""
        allowed = {mic: allowance(Tier.T0, Interval.M1, mic, self.deps) for mic in set(_MICS)}
        marks = {mic: mark(self.deps.calendars.get(mic), each, _NOW) for mic, each in allowed.items()}
        open_ = {mic: each for mic, each in marks.items() if each is not None}
        with self.deps.database.transaction() as connection:
            found = snapshots.lateness(connection, _SERIES, open_, _NOW, sample=Sample(), worst=WORST)
        late = sum(each.violations for each in found.values())
        assert late == len([each for each in self.ids if each % 100 == 0]), late
        return sum(each.expected for each in found.values())

    def gap_scan(self) -> int:
        """A round of the gap scan over five sessions: look, keep the ledger, see that all is asked for already."""
        found = scan(Scope(Tier.T0, Interval.M1), self.deps, _NOW)
        late = len([each for each in self.ids if each % 100 == 0])
        assert found.lacking == late, found
        return len(self.ids)

    def query_per_series(self) -> int:
        """Each series by a query of its own and its lag by itself; a twentieth of them, on one connection."""
        allowed_s = allowance(Tier.T0, Interval.M1, _MICS[0], self.deps).trading_s
        some, late = self.ids[::20], 0
        with self.deps.database.transaction() as connection:
            for each in some:
                since, mic = connection.execute(_ONE, {"id": each}).one()
                late += lags_s(self.deps.calendars.get(mic), Interval.M1, [since], _NOW)[0] > allowed_s
        return len(some)


def bench_slo(say: Say, *, series: int = 8_000, rounds: int = 7) -> Result:
    """The census of a tier; all that a run of the monitor does; a round of the gap scan; a query per series (of a
    twentieth, extrapolated)."""
    with scratch() as deps:
        scene = _scene(deps, series)
        rates = alternate(_cases(scene), rounds, say, before=lambda: None)
    took_ms = {name: series / rate * 1000 for name, rate in rates.items()}
    slow = took_ms.pop("query_per_series")
    return Result(
        "slo",
        f"milliseconds for {series:,} series",
        {**took_ms, "query_per_series, of a twentieth": slow},
        {"query_per_series / census": slow / took_ms["census"]},
    )


def _cases(scene: _Scene) -> dict[str, Callable[[], int]]:
    moments = (_NOW + timedelta(minutes=2 * number) for number in count())

    def whole_run() -> int:
        # Later each time, so that sessions are looked at too and everything is kept.
        return run_once(scene.deps, next(moments))["expected"]

    cases = {"census": scene.census, "whole_run": whole_run, "gap_scan": scene.gap_scan}
    return {**cases, "query_per_series": scene.query_per_series}


def _scene(deps: Deps, series: int) -> _Scene:
    members = [Instrument(f"B{number}", _MICS[number % len(_MICS)], tier=Tier.T0) for number in range(series)]
    with deps.database.transaction() as connection:
        add_instruments(connection, members)
        for statement in _FILL:
            connection.execute(text(statement), {"made_at": _NOW - timedelta(days=90), "now": _NOW})
        ids = list(connection.execute(text("SELECT id FROM instruments ORDER BY id")).scalars())
    return _Scene(deps, ids)

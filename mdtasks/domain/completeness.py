"""How complete a symbol is: a verdict for each interval that its exchange's sessions make us expect. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from mdtasks.domain.gaps import Spans
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.domain.ledger import runs_of
from mdtasks.domain.schedules import Times
from mdtasks.domain.silence import inside, slots


class Verdict(IntEnum):
    """What is said of an expected interval, as ``Completeness`` tells."""

    PRESENT = 0
    NO_TRADE = 1
    HALTED = 2
    MISSING = 3
    PENDING = 4


@dataclass(frozen=True, slots=True)
class Gap:
    """A stretch without an answer: ``missing`` expected intervals follow one another in it, nights apart."""

    window: TimeWindow
    missing: int


@dataclass(frozen=True, slots=True)
class Completeness:
    """How complete one symbol is in a window. Every expected interval that has ended has one verdict:

    ``present`` (answered for, a bar), ``no_trade`` (answered for, no bar), ``halted`` (the symbol did not trade),
    ``missing`` (in ``gaps``), of which ``quarantined`` ones have bars that broke a rule, ``pending`` (ended just now,
    not missed yet).
    """

    symbol: str
    interval: Interval
    window: TimeWindow
    expected: int
    present: int
    no_trade: int
    halted: int
    quarantined: int
    pending: int
    gaps: tuple[Gap, ...]

    @property
    def missing(self) -> int:
        """Expected intervals that nobody has answered for, or with bars only that broke a rule."""
        return sum(gap.missing for gap in self.gaps)

    def as_dict(self) -> dict[str, object]:
        """As JSON shows it; times are datetimes."""
        counts = ("expected", "present", "no_trade", "halted", "missing", "quarantined", "pending")
        return {
            "symbol": self.symbol,
            "interval": self.interval.value,
            "start": self.window.start,
            "end": self.window.end,
            **{name: getattr(self, name) for name in counts},
            "gaps": [{"start": g.window.start, "end": g.window.end, "missing": g.missing} for g in self.gaps],
        }


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """What is known of one symbol in a window. Times are int64 microseconds since 1970.

    ``starts``, ``ends``: the expected intervals that have ended, within the listing's life. ``rejected_us``: starts of
    intervals with bars that broke a rule. Those that ended before ``due_us`` are missed when nobody answers for them.
    """

    symbol: str
    interval: Interval
    window: TimeWindow
    starts: Times
    ends: Times
    covered: Spans
    halted: Spans
    bars_us: Times
    rejected_us: Times
    due_us: int

    def verdicts(self) -> NDArray[np.int8]:
        """The ``Verdict`` on each of ``starts``, in their order."""
        starts = self.starts
        covered, barred = inside(starts, self.covered), np.isin(starts, self.bars_us)
        found = np.where(self.ends <= self.due_us, Verdict.MISSING, Verdict.PENDING)
        found = np.where(covered, np.where(barred, Verdict.PRESENT, Verdict.NO_TRADE), found)
        return np.where(inside(starts, self.halted), Verdict.HALTED, found).astype(np.int8)

    def judged(self) -> Completeness:
        """How complete the symbol is by those verdicts."""
        starts, verdicts = self.starts, self.verdicts()
        present, no_trade, halted, _, pending = np.bincount(verdicts, minlength=len(Verdict)).tolist()
        missing, traded = verdicts == Verdict.MISSING, verdicts != Verdict.HALTED
        runs = runs_of(slots(starts[missing], self.interval), starts[traded], self._grid_ends()[traded])
        return Completeness(
            symbol=self.symbol,
            interval=self.interval,
            window=self.window,
            expected=len(starts),
            present=present,
            no_trade=no_trade,
            halted=halted,
            quarantined=int((missing & np.isin(starts, self.rejected_us)).sum()),
            pending=pending,
            gaps=tuple(Gap(run.window, run.missing) for run in runs),
        )

    def _grid_ends(self) -> Times:
        ends: Times = self.starts + self.interval.seconds * 1_000_000
        return ends

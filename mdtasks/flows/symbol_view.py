"""Everything that is stored of a symbol in a window, and how far it can be trusted. Reads only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from mdtasks.domain.completeness import Gap
from mdtasks.domain.schedules import Session
from mdtasks.flows.deps import Deps
from mdtasks.flows.gaps import Explanation, Question, explain_gaps
from mdtasks.store import bar_reports, reference, symbol_reports
from mdtasks.store.bar_reports import Revision, Series
from mdtasks.store.gaps import LedgerEntry
from mdtasks.store.reference import Instrument
from mdtasks.store.symbol_reports import SeriesJob

#: Jobs that are looked at.
_JOBS: Final = 1000


@dataclass(frozen=True, slots=True, eq=False)
class SymbolView:
    """A symbol in a window. ``stored``: the intervals of which there are bars at all; ``sessions`` of its exchange that
    reach into the window; ``revisions``: bars that were replaced, the last first; ``jobs`` that work on the window, or
    died of it.
    """

    member: Instrument
    explained: Explanation
    sessions: Sequence[Session]
    stored: Sequence[Series]
    revisions: Sequence[Revision]
    jobs: Sequence[SeriesJob]

    def entry_of(self, gap: Gap) -> LedgerEntry | None:
        """The open entry of the ledger that a gap belongs to; None when no scan has met it yet."""
        of_it = (
            each
            for each in self.explained.ledger
            if each.closed_at is None and each.start < gap.window.end and gap.window.start < each.end
        )
        return next(of_it, None)

    def jobs_of(self, gap: Gap) -> list[SeriesJob]:
        """The jobs that work on a gap, or died of it."""
        return [each for each in self.jobs if each.start < gap.window.end and gap.window.start < each.end]


def look(symbol: str, asked: Question, deps: Deps, now: datetime, *, revisions: int = 50) -> SymbolView:
    """Look at one symbol; of its revisions at most so many. Raises as ``explain_gaps``."""
    explained = explain_gaps(symbol, asked, deps, now)
    window = explained.completeness.window
    with deps.database.transaction() as connection:
        member = reference.resolve(connection, [symbol])[symbol]
        stored = bar_reports.stored_series(connection, member.id)
        replaced = bar_reports.revisions(connection, member.id, asked.interval, window, revisions)
        jobs = symbol_reports.jobs(connection, member.id, asked.interval, window, _JOBS)
    sessions = deps.calendars.get(member.mic).sessions(window)
    return SymbolView(member, explained, sessions, stored, replaced, jobs)

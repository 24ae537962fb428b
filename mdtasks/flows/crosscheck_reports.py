"""What comparisons of sources found, as the command and the web app tell it. Reads only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from mdtasks.connections import Database
from mdtasks.domain.crosschecks import FIELDS
from mdtasks.store import crosschecks, reference
from mdtasks.store.crosschecks import Disagreement, Tally


@dataclass(frozen=True, slots=True)
class Report:
    """How often which sources were compared since then, and the newest comparisons that disagreed."""

    since: datetime
    tallies: Sequence[Tally]
    disagreements: Sequence[Disagreement]

    def as_dict(self) -> dict[str, Any]:
        """As JSON shows it; times are datetimes, bars and distances are by field."""
        return {
            "since": self.since,
            "compared": sum(each.compared for each in self.tallies),
            "disagreed": sum(each.disagreed for each in self.tallies),
            "sources": [_tally(each) for each in self.tallies],
            "disagreements": [_disagreement(each) for each in self.disagreements],
        }


def report(database: Database, symbols: Sequence[str], since: datetime, limit: int) -> Report:
    """What was compared since then, of these symbols or (none given) of all; at most ``limit`` disagreements.

    Raises UnknownSymbolError, StoreUnavailableError.
    """
    with database.transaction() as connection:
        ids = [member.id for member in reference.resolve(connection, symbols).values()] if symbols else None
        return Report(
            since,
            crosschecks.summary(connection, since, ids),
            crosschecks.disagreements(connection, since, ids, limit),
        )


def _tally(tally: Tally) -> dict[str, Any]:
    document = asdict(tally)
    worst = {name: document.pop(f"{name}_bp") for name in FIELDS}
    return {**document, "worst_bp": worst}


def _disagreement(each: Disagreement) -> dict[str, Any]:
    by_field = {name: dict(zip(FIELDS, getattr(each, name), strict=True)) for name in ("bar", "other_bar", "apart_bp")}
    return {**asdict(each), **by_field}

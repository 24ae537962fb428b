"""What changed of a symbol between two moments of knowledge: bars that came and were revised, by whom; gaps and
silences; corporate actions; its tier.

Each section is a function of one question; what else is known as of an instant joins ``SECTIONS``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection

from mdtasks.domain.actions import Action, standing
from mdtasks.domain.bars import from_us
from mdtasks.domain.differences import diff
from mdtasks.domain.errors import InvalidRequestError
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.domain.retention import subject_of
from mdtasks.domain.stored import StoredBars
from mdtasks.domain.windows import AskedWindow
from mdtasks.flows.as_of import await_changes, await_statements, await_writers
from mdtasks.flows.calendars import calendars_at
from mdtasks.flows.deps import Deps
from mdtasks.store import actions, provenance, reference, retention
from mdtasks.store.bars import read_bars
from mdtasks.store.provenance import at_one_moment
from mdtasks.store.reference import Instrument

#: Rows of each kind that an answer lists where nobody says otherwise, and at most. Counts are always of all.
ROWS: Final = 100
MOST_ROWS: Final = 100_000
#: Intervals of one comparison: a year of minutes that always trade.
MOST_INTERVALS: Final = 530_000


@dataclass(frozen=True, slots=True)
class Asked:
    """Bars of one symbol, interval and window; as known at ``since`` and at ``until``. ``rows``: listed at most."""

    member: Instrument
    interval: Interval
    window: TimeWindow
    since: datetime
    until: datetime
    rows: int

    @property
    def series(self) -> tuple[int, Interval, TimeWindow]:
        return self.member.id, self.interval, self.window


@dataclass(frozen=True, slots=True)
class Between:
    """Which symbol and window, and the two moments of knowledge; ``until`` None: now."""

    symbol: str
    interval: Interval
    window: AskedWindow
    since: datetime
    until: datetime | None = None
    rows: int = ROWS


Section = Callable[[Connection, Asked], Mapping[str, Any]]


def differences(between: Between, deps: Deps, now: datetime) -> dict[str, Any]:
    """What changed, a part for each section; times are datetimes. Reads only, all at one moment.

    Raises InvalidRequestError for a window that is empty or not kept any more, and for moments that are in the wrong
    order, to come, or before the oldest revisions that are kept; UnknownSymbolError, StoreUnavailableError, BusyError.
    """
    until = now if between.until is None else between.until
    if between.since >= until:
        raise InvalidRequestError(
            f"{between.since.isoformat()} is not before {until.isoformat()}",
            field="as_of_from",
            hint="give the earlier moment as the first",
        )
    if between.until is not None:
        await_changes(deps.database, until, field="as_of_to")
        await_writers(deps.database, until, between.interval, [between.symbol])
    await_statements(deps.database, until)
    with deps.database.transaction() as connection:
        at_one_moment(connection)
        member = reference.resolve(connection, [between.symbol], as_of=between.until)[between.symbol]
        known = deps.calendars
        if between.until is not None:
            known = calendars_at(connection, known, between.until)
        window = between.window.on(known.get(member.mic), between.interval, now, between.until)
        _refuse_too_long(between.interval, window)
        kept = _kept(connection, between.interval, window)
        asked = Asked(member, between.interval, kept, between.since, until, between.rows)
        sections = {name: section(connection, asked) for name, section in SECTIONS.items()}
    return {
        "symbol": member.symbol,
        "interval": between.interval.value,
        "start": kept.start,
        "end": kept.end,
        "from": asked.since,
        "to": until,
        **({"kept_from": kept.start} if kept != window else {}),
        **sections,
    }


def _kept(connection: Connection, interval: Interval, window: TimeWindow) -> TimeWindow:
    """The part of a window whose bars were never deleted. Raises InvalidRequestError when there is none."""
    lost = retention.lost_before(connection, subject_of(interval))
    if lost is None or window.start >= lost:
        return window
    if window.end <= lost:
        raise InvalidRequestError(
            f"{interval} bars before {lost:%Y-%m-%d} were deleted: what changed of them cannot be told",
            field="start",
            hint=f"ask for time from {lost:%Y-%m-%d} on; `mdtasks retention` shows what is kept",
        )
    return TimeWindow(start=lost, end=window.end)


def _bars(connection: Connection, asked: Asked) -> Mapping[str, Any]:
    """Bars that came, were revised, only became final, and (by hand in the database alone) went; by the attempts that
    did it, but for those that became final: a bar keeps the attempt that brought it.
    """
    first = read_bars(connection, *asked.series, as_of=asked.since)
    second = read_bars(connection, *asked.series, as_of=asked.until)
    change = diff(first, second)
    promoted, revised = change.after.take(change.promoted), change.after.take(~change.promoted)
    counts = {
        "inserted": len(change.inserted),
        "revised": len(revised),
        "promoted": len(promoted),
        "removed": len(change.removed),
    }
    return {
        "before": len(first),
        "after": len(second),
        **counts,
        "unchanged": len(first) - len(change.removed) - len(change.before),
        "by": _by(connection, change.inserted, revised),
        "rows": {
            "inserted": _rows(change.inserted, asked.rows),
            "revised": [row for row, _ in zip(change.revisions(), range(asked.rows), strict=False)],
            "promoted": _rows(promoted, asked.rows),
            "removed": _rows(change.removed, asked.rows),
        },
        "cut": any(count > asked.rows for count in counts.values()),
    }


def _by(connection: Connection, inserted: StoredBars, revised: StoredBars) -> list[dict[str, Any]]:
    """What each attempt did to the bars, the one that did most first."""
    done: dict[tuple[int, str], Counter[str]] = {}
    for kind, bars in (("inserted", inserted), ("revised", revised)):
        for key in zip(bars.attempt_id.tolist(), bars.provider.tolist(), strict=True):
            done.setdefault(key, Counter())[kind] += 1
    origins = provenance.origins(connection, (attempt for attempt, _ in done))
    told = []
    for (attempt, provider), counts in done.items():
        about = {"provider": provider, "attempt_id": attempt, "inserted": counts["inserted"]}
        origin = origins.get(attempt)
        names = ("job_id", "job_type", "worker", "policy_version", "requested_by", "ended_at")
        behind = {name: None if origin is None else getattr(origin, name) for name in names}
        told.append({**about, "revised": counts["revised"], **behind})
    return sorted(told, key=lambda each: (-each["inserted"] - each["revised"], each["attempt_id"]))


def _rows(bars: StoredBars, most: int) -> list[dict[str, Any]]:
    names = ("open", "high", "low", "close", "volume")
    shown = bars.take(slice(0, most))
    values = zip(*(column.tolist() for column in shown.bars.columns), strict=True)
    return [
        {
            "ts": from_us(ts_us),
            **dict(zip(names, row, strict=True)),
            "provider": provider,
            "final": final,
            "known_at": from_us(known_us),
            "attempt_id": attempt,
        }
        for ts_us, row, provider, final, known_us, attempt in zip(
            shown.bars.ts_us.tolist(),
            values,
            shown.provider.tolist(),
            shown.final.tolist(),
            shown.known_at_us.tolist(),
            shown.attempt_id.tolist(),
            strict=True,
        )
    ]


def _gaps(connection: Connection, asked: Asked) -> Mapping[str, Any]:
    """Gaps that were found and closed, as they stood at the second moment, and what each voice had said of silence last
    by then.
    """
    ledger = provenance.between(connection, "ledger", asked.series, asked.since, asked.until)
    found = [each for each in ledger if asked.since < each["found_at"] <= asked.until]
    closed = [each for each in ledger if each["closed_at"] and asked.since < each["closed_at"] <= asked.until]
    silences = provenance.between(connection, "silences", asked.series, asked.since, asked.until)
    return {
        "found": len(found),
        "closed": len(closed),
        "silences": len(silences),
        "rows": {"ledger": ledger[: asked.rows], "silences": silences[: asked.rows]},
        "cut": max(len(ledger), len(silences)) > asked.rows,
    }


def _actions(connection: Connection, asked: Asked) -> Mapping[str, Any]:
    """Corporate actions that came to stand and that no longer do, and the statements that made it so, by whom."""
    told = actions.told(connection, [asked.member.id], asked.until)[asked.member.id]
    before = [each.action for each in standing(one for one in told if one.known_at <= asked.since)]
    after = [each.action for each in standing(told)]
    said = [each for each in told if each.known_at > asked.since]
    rows = {
        "appeared": [_action(each) for each in after if each not in before],
        "gone": [_action(each) for each in before if each not in after],
        "statements": [
            {"source": each.source, "known_at": each.known_at, "withdrawn": each.withdrawn, **_action(each.action)}
            for each in said
        ],
    }
    return {
        **{name: len(found) for name, found in rows.items()},
        "rows": {name: found[: asked.rows] for name, found in rows.items()},
        "cut": any(len(found) > asked.rows for found in rows.values()),
    }


def _action(each: Action) -> dict[str, Any]:
    return {"kind": each.kind.value, "ex_date": each.ex_date, "value": each.value, "symbol": each.symbol}


def _tier(connection: Connection, asked: Asked) -> Mapping[str, Any]:
    """The tiers that the instrument had, and each change: by which version of the universe, or which person."""
    held = reference.tiers_between(connection, asked.member.id, asked.since, asked.until)
    first = held.pop(0) if held and held[0].at <= asked.since else None
    before = tier = None if first is None else first.tier
    changes = []
    for each in held:
        changes.append({**asdict(each), "before": tier})
        tier = each.tier
    return {"before": before, "after": tier, "rows": changes[: asked.rows], "cut": len(changes) > asked.rows}


def _refuse_too_long(interval: Interval, window: TimeWindow) -> None:
    """Both reads are held in memory. Raises InvalidRequestError."""
    spans = (window.end - window.start).total_seconds() / interval.seconds
    if spans > MOST_INTERVALS:
        raise InvalidRequestError(
            f"the window holds {spans:,.0f} intervals of {interval}: at most {MOST_INTERVALS:,} are compared at a time",
            field="start",
            hint="ask for a shorter window, or a longer interval",
        )


#: What is told of, in this order.
SECTIONS: Final[dict[str, Section]] = {"bars": _bars, "gaps": _gaps, "actions": _actions, "tier": _tier}

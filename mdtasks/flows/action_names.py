"""Names and lives follow the renamings and delistings among the corporate actions, once their day has come.

What a listing or a person says comes first, and what is told is held against what is known: a symbol that another
living instrument bears, or an instrument that trades on, is left as it is, with a letter that says why. Whatever is
withdrawn is undone. Each round works out anew what shall hold, so it may be repeated, late, or cut off anywhere.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Final

from sqlalchemy import Connection

from mdtasks.connections import Database
from mdtasks.domain.actions import PERSON, Action, Kind, Told, in_force, standing
from mdtasks.domain.adjustment import trading_day
from mdtasks.domain.errors import InvalidRequestError
from mdtasks.domain.names import ACTIONS, STILL, Bearer, Plan, Saying, Span, borne_on, laid_over, planned
from mdtasks.domain.sessions import Calendars
from mdtasks.flows.name_doubts import Doubt, Named, no_symbol, not_back, taken, trades_on, write_letters
from mdtasks.providers.listings import FORMATS, SYMBOL
from mdtasks.store import actions, evidence, listings, names, reference
from mdtasks.store.names import Fact, Life

log = logging.getLogger(__name__)

_KINDS: Final = (Kind.RENAME, Kind.DELISTING)
#: Bars so long after a renaming or an end say that it was another one's: some vendors know the old symbol for a while.
_LINGERS: Final = timedelta(days=3)
#: So long is waited for whoever changes the universe: housekeeping has other things to do, and comes by again.
_LOCK_S: Final = 10.0
#: A round of beat looks at all of which something is told for a day so near; the others have their turn once a day.
_DUE: Final = timedelta(days=10)


@dataclass(slots=True)
class Followed:
    """What followed: instruments that bear another symbol, or bore others; lives that ended or did not after all; and
    what was not followed, each with why.
    """

    renamed: int = 0
    lives: int = 0
    unclear: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, object]:
        return {"names": self.renamed, "lives": self.lives, "unclear": list(self.unclear)}


@dataclass(slots=True)
class _Work:
    connection: Connection
    lives: Mapping[int, Life]
    facts: Mapping[int, Fact]
    told: Mapping[int, Sequence[Told]]
    spans: Mapping[int, Sequence[Span]]
    doubts: list[Doubt] = field(default_factory=list)
    ends: dict[int, date | None] = field(default_factory=dict)


def follow_due(database: Database, ids: Iterable[int], calendars: Calendars, now: datetime) -> Followed:
    """``follow`` for these instruments and for all of which something is told for a day about now."""
    with database.transaction() as connection:
        near = names.due(connection, now.date() - _DUE, now.date() + timedelta(days=1))
    return follow(database, {*ids, *near}, calendars, now)


def follow(
    database: Database, ids: Iterable[int], calendars: Calendars, now: datetime, actor: str = ACTIONS
) -> Followed:
    """Let names and lives of these instruments be as the actions that stand and are in force tell. Idempotent.

    Raises StoreUnavailableError; BusyError where somebody else has been changing the universe for long.
    """
    with database.waiting(_LOCK_S) as connection:
        concerned = names.concerned(connection, ids)
        if not concerned:
            return Followed()
        actions.lock(connection)
        reference.lock(connection)
        work = _work(connection, concerned, calendars, now)
        _end_lives(work)
        bearers = _bearers(work)
        plan = planned(bearers)
        then = {one: plan.changed.get(one, bearer.spans) for one, bearer in bearers.items()}
        _refused(plan, work, bearers, then)
        done = Followed(len(plan.changed), len(work.ends))
        _write(plan, work, bearers, actor)
        done.unclear = write_letters(connection, work.doubts, _named(work, then))
    return done


def _named(work: _Work, then: Mapping[int, Sequence[Span]]) -> dict[int, Named]:
    """What each instrument is called once ``then`` holds."""
    borne = {one: borne_on(spans, STILL) for one, spans in then.items()}
    return {
        one: Named(f"instrument {one}" if now is None else now.symbol, work.lives[one].tier)
        for one, now in borne.items()
    }


def _work(connection: Connection, concerned: Iterable[int], calendars: Calendars, now: datetime) -> _Work:
    """What is known of these instruments, and of all that may have to give up a symbol to one of them."""
    ids = set(concerned)
    while True:
        told = actions.told(connection, ids, kinds=_KINDS)
        wanted = {each.action.symbol for held in told.values() for each in held if each.action.symbol}
        wanted |= {span.symbol for spans in names.spans(connection, ids).values() for span in spans}
        more = names.bearers(connection, wanted) - ids
        if not more:
            break
        ids |= more
    lives = names.lives(connection, ids)
    stand: dict[int, list[Told]] = {}
    for one, held in told.items():
        try:
            day = trading_day(calendars.plain(lives[one].mic), now)
        except InvalidRequestError:  # an exchange that has no calendar (any more)
            day = now.date()
        found = standing(held)
        begun = in_force([each.action for each in found], day)
        stand[one] = [each for each in found if each.action in begun]
    return _Work(connection, lives, names.listed(connection, ids), stand, names.spans(connection, ids))


def _end_lives(work: _Work) -> None:
    """Work out whose life ended, or did not after all."""
    for one, life in work.lives.items():
        ended = [each for each in work.told[one] if each.action.kind is Kind.DELISTING]
        if not ended or not _in_life(life, ended[-1].action.ex_date):
            if life.source == ACTIONS:
                work.ends[one] = None
            continue
        last = ended[-1]
        day = last.action.ex_date
        why = _contradicted(work, one, last)
        if why is not None:
            work.doubts.append(why)
            if life.source == ACTIONS and not why.ways:
                work.ends[one] = None
        elif life.delisted_on != day:
            work.ends[one] = day


def _in_life(life: Life, day: date) -> bool:
    """Whether a day can be of this instrument: before it was listed it is of one that bore its symbol before."""
    return life.listed_from is None or day > life.listed_from


def _contradicted(work: _Work, one: int, last: Told) -> Doubt | None:
    life, fact, day = work.lives[one], work.facts.get(one), last.action.ex_date
    if fact is not None and day <= fact.as_of and not FORMATS[fact.source].partial:
        said = f"the {fact.source} listing of {fact.as_of}, which holds, has it"
        return Doubt(one, day, f"delisted on {day} says {last.source}, but {said}")
    if life.source not in ("", ACTIONS) and life.delisted_on != day:
        newest = None if life.source == PERSON else listings.newest_day(work.connection, life.source)
        if life.delisted_on is not None or newest is None or day <= newest:
            said = "that it lives" if life.delisted_on is None else f"since {life.delisted_on}"
            return Doubt(one, day, f"delisted on {day} says {last.source}, but {life.source} {said}")
    if life.delisted_on != day and last.source != PERSON:
        return _trades_on(work, one, last, borne_on(work.spans[one], STILL))
    return None


def _trades_on(work: _Work, one: int, told: Told, now: Span | None) -> Doubt | None:
    """The doubt about an action of which the instrument's bars, under what it bears now, say that it was another's."""
    day = told.action.ex_date
    since = datetime(day.year, day.month, day.day, tzinfo=UTC) + _LINGERS
    last = names.last_bar(work.connection, one, since)
    return None if last is None else trades_on(one, told, now.symbol if now else f"instrument {one}", last)


def _bearers(work: _Work) -> dict[int, Bearer]:
    """The instruments with those renamings that nothing but another's name can stand in the way of."""
    found: dict[int, Bearer] = {}
    for one, life in work.lives.items():
        told = [each for each in work.told[one] if each.action.kind is Kind.RENAME and each.action.symbol]
        renames: list[tuple[date, str]] = []
        for each in told:
            symbol = each.action.symbol or ""
            if SYMBOL.fullmatch(symbol):
                renames.append((each.action.ex_date, symbol))
            else:
                work.doubts.append(no_symbol(one, each.action))
        delisted = work.ends.get(one, life.delisted_on)
        bearer = Bearer(one, work.spans[one], renames, life.listed_from, delisted)
        found[one] = _believed(work, bearer, {each.action.ex_date: each for each in told})
    return found


def _believed(work: _Work, bearer: Bearer, told: Mapping[date, Told]) -> Bearer:
    """The bearer without the renamings that the listing that holds contradicts, or its own bars."""
    while True:
        spans, fact = laid_over(bearer), work.facts.get(bearer.id)
        if fact is not None and not FORMATS[fact.source].partial:
            then = borne_on(spans, fact.as_of)
            if then is not None and then.source == ACTIONS and then.symbol != fact.symbol:
                said = f"the {fact.source} listing of {fact.as_of}, which holds, calls it {fact.symbol}"
                what = f"renamed to {then.symbol} on {then.since}, but {said}"
                work.doubts.append(Doubt(bearer.id, then.since, what))
                bearer = _without(bearer, then.since)
                continue
        new, old = borne_on(spans, STILL), borne_on(bearer.spans, STILL)
        if new is None or new.source != ACTIONS or (old is not None and old.symbol == new.symbol):
            return bearer
        last = told.get(new.since)
        why = None if last is None or last.source == PERSON else _trades_on(work, bearer.id, last, old)
        if why is None:
            return bearer
        work.doubts.append(why)
        bearer = _without(bearer, new.since)


def _without(bearer: Bearer, day: date) -> Bearer:
    return replace(bearer, renames=[each for each in bearer.renames if each[0] != day])


def _refused(plan: Plan, work: _Work, bearers: Mapping[int, Bearer], then: Mapping[int, Sequence[Span]]) -> None:
    for each in plan.refused:
        one, by, bearer = each.instrument, each.by, borne_on(then[each.by], STILL)
        if (each.since, each.symbol) in bearers[one].renames:
            doubt = taken(one, Action(Kind.RENAME, each.since, symbol=each.symbol), by, bearer)
        else:  # a renaming was withdrawn, and another one bears what it bore before
            now = borne_on(then[one], STILL)
            renamed = now if now is not None and now.source == ACTIONS else None
            doubt = not_back(one, Saying(each.since, each.symbol), renamed, by, bearer)
        work.doubts.append(doubt)


def _write(plan: Plan, work: _Work, bearers: Mapping[int, Bearer], actor: str) -> None:
    for one, day in work.ends.items():
        names.end_life(work.connection, one, day)
        ended = {"instrument": one, "from": work.lives[one].delisted_on, "to": day, "source": ACTIONS}
        evidence.audit(work.connection, actor, "universe.delist", ended)
    if not plan.changed:
        return
    names.rewrite(work.connection, plan.changed)
    for one, spans in plan.changed.items():
        old, new = borne_on(bearers[one].spans, STILL), borne_on(spans, STILL)
        details = {
            "instrument": one,
            "from": old and old.symbol,
            "to": new and new.symbol,
            "on": new and str(new.since),
            "source": ACTIONS,
            "names": [[span.symbol, str(span.since), str(span.until)] for span in spans],
        }
        evidence.audit(work.connection, actor, "universe.rename", details)
        log.info("instrument %d bears %s, after %s", one, details["to"], details["from"])

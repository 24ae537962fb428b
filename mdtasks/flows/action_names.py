"""Names and lives follow the renamings and delistings among the corporate actions, once their day has come.

What a listing or a person says comes first, and what is told is held against what is known: a symbol that another
living instrument bears, or an instrument that trades on, is left as it is, with a letter that says why. Whatever is
withdrawn is undone. Each round works out anew what shall hold, so it may be repeated, late, or cut off anywhere.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Final

from sqlalchemy import Connection

from mdtasks.connections import Database
from mdtasks.domain.actions import PERSON, Kind, Told, in_force, standing
from mdtasks.domain.adjustment import trading_day
from mdtasks.domain.errors import InvalidRequestError, NameUnclearError
from mdtasks.domain.names import ACTIONS, STILL, Bearer, Plan, borne_on, laid_over, planned
from mdtasks.domain.sessions import Calendars
from mdtasks.observe import metrics
from mdtasks.providers.listings import FORMATS, SYMBOL
from mdtasks.store import actions, evidence, letters, listings, names, reference
from mdtasks.store.letters import Letter
from mdtasks.store.names import Fact, Life

log = logging.getLogger(__name__)

_KINDS: Final = (Kind.RENAME, Kind.DELISTING)
#: Bars so long after a renaming or an end say that it was another one's: some vendors know the old symbol for a while.
_LINGERS: Final = timedelta(days=3)
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


@dataclass(frozen=True, slots=True)
class _Doubt:
    """Why something is not followed. ``settled``: by a rule that holds, so that nobody has to look."""

    instrument: int
    day: date
    what: str
    kind: Kind = Kind.RENAME
    settled: bool = False


@dataclass(slots=True)
class _Work:
    connection: Connection
    lives: Mapping[int, Life]
    facts: Mapping[int, Fact]
    told: Mapping[int, Sequence[Told]]
    doubts: list[_Doubt] = field(default_factory=list)
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

    Raises StoreUnavailableError.
    """
    with database.transaction() as connection:
        concerned = names.concerned(connection, ids)
        if not concerned:
            return Followed()
        actions.lock(connection)
        reference.lock(connection)
        work = _work(connection, concerned, calendars, now)
        _end_lives(work)
        bearers = _bearers(work)
        plan = planned(bearers)
        _refused(plan, work, bearers)
        done = Followed(len(plan.changed), len(work.ends))
        _write(plan, work, bearers, actor)
        done.unclear = _tell(work, bearers)
    return done


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
    return _Work(connection, lives, names.listed(connection, ids), stand)


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
            if life.source == ACTIONS and why.settled:
                work.ends[one] = None
        elif life.delisted_on != day:
            work.ends[one] = day


def _in_life(life: Life, day: date) -> bool:
    """Whether a day can be of this instrument: before it was listed it is of one that bore its symbol before."""
    return life.listed_from is None or day > life.listed_from


def _contradicted(work: _Work, one: int, last: Told) -> _Doubt | None:
    life, fact, day = work.lives[one], work.facts.get(one), last.action.ex_date
    if fact is not None and day <= fact.as_of and not FORMATS[fact.source].partial:
        said = f"the {fact.source} listing of {fact.as_of}, which holds, has it"
        return _Doubt(one, day, f"delisted on {day} says {last.source}, but {said}", Kind.DELISTING, settled=True)
    if life.source not in ("", ACTIONS) and life.delisted_on != day:
        newest = None if life.source == PERSON else listings.newest_day(work.connection, life.source)
        if life.delisted_on is not None or newest is None or day <= newest:
            said = "that it lives" if life.delisted_on is None else f"since {life.delisted_on}"
            return _Doubt(
                one,
                day,
                f"delisted on {day} says {last.source}, but {life.source} {said}",
                Kind.DELISTING,
                settled=True,
            )
    if life.delisted_on != day and last.source != PERSON and _trades_on(work, one, day):
        return _Doubt(one, day, f"delisted on {day} says {last.source}, but it has bars of later days", Kind.DELISTING)
    return None


def _trades_on(work: _Work, one: int, day: date) -> bool:
    since = datetime(day.year, day.month, day.day, tzinfo=UTC) + _LINGERS
    return bool(names.traded_since(work.connection, {one: since}))


def _bearers(work: _Work) -> dict[int, Bearer]:
    """The instruments with those renamings that nothing but another's name can stand in the way of."""
    held = names.spans(work.connection, work.lives)
    found: dict[int, Bearer] = {}
    for one, life in work.lives.items():
        told = [each for each in work.told[one] if each.action.kind is Kind.RENAME and each.action.symbol]
        renames: list[tuple[date, str]] = []
        for each in told:
            symbol = each.action.symbol or ""
            if SYMBOL.fullmatch(symbol):
                renames.append((each.action.ex_date, symbol))
            else:
                work.doubts.append(_Doubt(one, each.action.ex_date, f"renamed to {symbol!r}, which is no symbol here"))
        delisted = work.ends.get(one, life.delisted_on)
        bearer = Bearer(one, held[one], renames, life.listed_from, delisted)
        found[one] = _believed(work, bearer, {each.action.ex_date: each.source for each in told})
    return found


def _believed(work: _Work, bearer: Bearer, sources: Mapping[date, str]) -> Bearer:
    """The bearer without the renamings that the listing that holds contradicts, or its own bars."""
    while True:
        spans, fact = laid_over(bearer), work.facts.get(bearer.id)
        if fact is not None and not FORMATS[fact.source].partial:
            then = borne_on(spans, fact.as_of)
            if then is not None and then.source == ACTIONS and then.symbol != fact.symbol:
                said = f"the {fact.source} listing of {fact.as_of}, which holds, calls it {fact.symbol}"
                what = f"renamed to {then.symbol} on {then.since}, but {said}"
                work.doubts.append(_Doubt(bearer.id, then.since, what, settled=True))
                bearer = _without(bearer, then.since)
                continue
        new, old = borne_on(spans, STILL), borne_on(bearer.spans, STILL)
        if new is None or new.source != ACTIONS or (old is not None and old.symbol == new.symbol):
            return bearer
        if sources.get(new.since) == PERSON or not _trades_on(work, bearer.id, new.since):
            return bearer
        what = f"renamed to {new.symbol} on {new.since}, but it has bars of later days under {old and old.symbol}"
        work.doubts.append(_Doubt(bearer.id, new.since, what))
        bearer = _without(bearer, new.since)


def _without(bearer: Bearer, day: date) -> Bearer:
    return replace(bearer, renames=[each for each in bearer.renames if each[0] != day])


def _refused(plan: Plan, work: _Work, bearers: Mapping[int, Bearer]) -> None:
    for each in plan.refused:
        now = borne_on(bearers[each.by].spans, STILL)
        by = f"instrument {each.by}" + (f" ({now.symbol} now)" if now is not None and now.symbol != each.symbol else "")
        work.doubts.append(_Doubt(each.instrument, each.since, f"cannot bear {each.symbol}, which {by} bears then"))


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


def _tell(work: _Work, bearers: Mapping[int, Bearer]) -> list[str]:
    """Write a letter about each thing that a person should look at, and close those that are settled."""
    held: defaultdict[str, list[str]] = defaultdict(list)
    texts: list[str] = []
    for doubt in work.doubts:
        now = borne_on(bearers[doubt.instrument].spans, STILL)
        symbol = now.symbol if now is not None else f"instrument {doubt.instrument}"
        texts.append(f"{symbol}: {doubt.what}")
        if not doubt.settled:
            held[f"action:{doubt.instrument}:{doubt.day}:{NameUnclearError.code}"].append(texts[-1])
            _letter(work, doubt, symbol)
    actions.resolve(work.connection, bearers, date.min, list(held), names=True)
    return texts


def _letter(work: _Work, doubt: _Doubt, symbol: str) -> None:
    hint = f"`mdtasks actions withdraw {symbol} {doubt.day} {doubt.kind}`, or `mdtasks universe rename` or `delist`"
    message = f"{symbol} {doubt.what}; {hint}, settles it"
    letter = Letter(
        id=f"action:{doubt.instrument}:{doubt.day}:{NameUnclearError.code}",
        kind="action",
        envelope="",
        error_class=NameUnclearError.code,
        message=message,
        tier=work.lives[doubt.instrument].tier,
        symbol=symbol,
    )
    new = letters.record(work.connection, letter)
    if new or actions.reopen(work.connection, letter.id, message):
        metrics.DEAD_LETTERS.labels(kind=letter.kind, error_class=letter.error_class).inc()
        log.warning("%s", message)

"""Corporate actions as people and files tell them, and as they are shown. Nothing is ever overwritten."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import Connection

from mdtasks.connections import Database
from mdtasks.domain.action_news import News, news
from mdtasks.domain.actions import PERSON, Action, Key, Kind, Told, in_force, standing
from mdtasks.domain.adjustment import trading_day
from mdtasks.domain.errors import ActionWithoutJumpError, ConflictError, InvalidRequestError, NotFoundError
from mdtasks.domain.jumps import Suspicion, withdrawal
from mdtasks.domain.sessions import Calendars
from mdtasks.flows import action_checks
from mdtasks.flows.action_checks import Checked
from mdtasks.flows.as_of import await_changes, await_statements
from mdtasks.observe import metrics
from mdtasks.providers.base import Provider
from mdtasks.providers.registry import DEFAULT_ORDER
from mdtasks.store import actions, reference
from mdtasks.store.provenance import at_one_moment

_SOURCE: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")


@dataclass(frozen=True, slots=True)
class Change:
    """What was put on record, by what it is (added, corrected, withdrawn), and what the bars said to it. ``about``: the
    instruments, told before or not, whose names and lives follow (``flows.action_names``). ``doubts``: what the bars
    say against a person's word, and the commands that take it back or mend the bars.
    """

    told: Counter[str] = field(default_factory=Counter)
    checked: Checked = field(default_factory=Checked)
    about: Sequence[int] = ()
    doubts: Sequence[str] = ()

    def as_dict(self) -> dict[str, object]:
        counts = {name: self.told[name] for name in ("added", "corrected", "withdrawn")}
        checked = {"suspect": self.checked.suspect, "resolved": self.checked.resolved}
        return {**counts, **checked, "doubts": list(self.doubts)}


def own_of(told: Iterable[Told], source: str) -> list[Told]:
    """What one source told."""
    return [each for each in told if each.source == source]


def counted(made: Sequence[tuple[int, News]], source: str) -> Counter[str]:
    """How many statements of each sort were made; counted in the metrics too."""
    counts: Counter[str] = Counter()
    for _, each in made:
        what = "withdrawn" if each.withdrawn else "corrected" if each.corrects else "added"
        counts[what] += 1
        metrics.ACTIONS_TOLD.labels(provider=source, kind=each.action.kind.value, result=what).inc()
    return counts


def tell(
    database: Database,
    given: Sequence[tuple[str, Action]],
    source: str,
    actor: str,
    reason: str | None = None,
    *,
    providers: Sequence[Provider] = (),
) -> Change:
    """Put actions of symbols on record, all or none, as a file (``source``) or a person tells them.

    Idempotent: what its source told before is no news. A person has the last word, so what the bars say against it is
    no finding: it is told at once, in ``doubts``, and again where it is repeated. ``providers``: as ``check`` takes
    them. Raises UnknownSymbolError, InvalidRequestError.
    """
    with database.transaction() as connection:
        members = reference.resolve(connection, [symbol for symbol, _ in given])
        actions.lock(connection)
        told = actions.told(connection, [member.id for member in members.values()])
        made: list[tuple[int, News]] = []
        for symbol, member in members.items():
            mine = [action for name, action in given if name == symbol]
            fresh = news(own_of(told[member.id], source), mine)
            made += [(member.id, News(each.action, each.corrects, reason=reason)) for each in fresh]
        actions.tell(connection, made, source, actor)
    about = [member.id for member in members.values()]
    if not given or (not made and source != PERSON):
        return Change(about=about)
    first = min(action.ex_date for _, action in given)
    checked = action_checks.check(database, list(members.values()), first, providers)
    doubts = [
        f"{each.said.error.message}; {_taken_back(each.said, symbol, action)}"
        for each in checked.vouched
        for symbol, action in given
        if each.instrument == members[symbol].id and action.kind is each.said.kind
        if source == PERSON and each.after < action.ex_date <= each.day
    ]
    return Change(counted(made, source), checked, about, doubts)


def _taken_back(said: Suspicion, symbol: str, action: Action) -> str:
    """What to do about a person's word that the bars speak against: what is on record already is not to be added."""
    if isinstance(said.error, ActionWithoutJumpError):
        return said.error.hint
    return f"if the action is wrong: `{withdrawal(symbol, action)}`"


def withdraw(
    database: Database, symbol: str, key: Key, actor: str, reason: str, *, providers: Sequence[Provider] = ()
) -> Change:
    """Put on record that there was no such action, whoever tells of it; what was told stays history.

    A split that nobody told of may be withdrawn too: that settles a jump of the price that was none. Raises
    UnknownSymbolError, NotFoundError, ConflictError when it was withdrawn before.
    """
    day, kind, _ = key
    with database.transaction() as connection:
        member = reference.resolve(connection, [symbol])[symbol]
        actions.lock(connection)
        told = [each for each in actions.told(connection, [member.id])[member.id] if each.action.key == key]
        mine = own_of(told, PERSON)
        if mine and mine[-1].withdrawn:
            raise ConflictError(
                f"the {kind} of {symbol} on {day} was withdrawn on {mine[-1].known_at:%Y-%m-%d %H:%M} UTC: "
                f"{mine[-1].reason}",
                hint="`mdtasks actions add` tells of one again",
            )
        if not told and kind is not Kind.SPLIT:
            raise NotFoundError(
                f"nobody told of a {kind} of {symbol} on {day}",
                hint=f"`mdtasks actions list {symbol}` shows what is known",
            )
        # As it was told: the record says what was taken back. One for one is no split.
        taken = told[-1].action if told else Action(Kind.SPLIT, day, 1.0)
        made = [(member.id, News(taken, bool(mine), withdrawn=True, reason=reason))]
        actions.tell(connection, made, PERSON, actor)
    return Change(counted(made, PERSON), action_checks.check(database, [member], day, providers), [member.id])


def source_name(text: str) -> str:
    """The name under which a file's actions are kept. Raises InvalidRequestError for a provider's, or a person's."""
    if not _SOURCE.fullmatch(text) or text in (PERSON, *DEFAULT_ORDER) or text.startswith("simulator"):
        raise InvalidRequestError(
            f"source {text[:40]!r} cannot be taken",
            field="source",
            hint="small letters, digits and _; not a provider's name, whose own answers would correct it, nor person",
        )
    return text


@dataclass(frozen=True, slots=True)
class Listed:
    """What is known of one instrument's actions. ``stands``: by day, each with whether it is in force; ``history``:
    every statement, in the order told.
    """

    symbol: str
    as_of: datetime | None
    stands: Sequence[tuple[Told, bool]]
    history: Sequence[Told]
    answered: Sequence[actions.Answered]

    def as_dict(self, *, history: bool = False) -> dict[str, object]:
        """As JSON shows it; dates and times are texts."""
        stands = [{**_as_dict(each), "in_force": begun} for each, begun in self.stands]
        every = [{**_as_dict(each), "withdrawn": each.withdrawn, "reason": each.reason} for each in self.history]
        answered = [
            {
                "source": each.source,
                "first": each.days and str(each.days.first),
                "last": each.days and str(each.days.last),
                "at": _iso(each.asked_at),
                "error": each.error,
            }
            for each in self.answered
        ]
        return {
            "symbol": self.symbol,
            "as_of": self.as_of and _iso(self.as_of),
            "actions": stands,
            **({"history": every} if history else {}),
            "answered": answered,
        }


def _as_dict(told: Told) -> dict[str, object]:
    action = told.action
    days = {name: getattr(action, name) for name in ("ex_date", "declared_on", "record_on", "pay_on")}
    return {
        "kind": action.kind.value,
        **{name: day and str(day) for name, day in days.items()},
        "value": action.value,
        "currency": action.currency,
        "symbol": action.symbol,
        "reference": action.reference,
        "source": told.source,
        "known_at": _iso(told.known_at),
    }


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def listed(
    database: Database, symbol: str, calendars: Calendars, now: datetime, as_of: datetime | None = None
) -> Listed:
    """What stands of a symbol's actions, now or as of an instant.

    Raises UnknownSymbolError; InvalidRequestError for an ``as_of`` to come; StoreUnavailableError, BusyError.
    """
    if as_of is not None:
        await_changes(database, as_of)
        await_statements(database, as_of)
    with database.transaction() as connection:
        at_one_moment(connection)
        return _listed(connection, symbol, calendars, now, as_of)


def _listed(connection: Connection, symbol: str, calendars: Calendars, now: datetime, as_of: datetime | None) -> Listed:
    member = reference.resolve(connection, [symbol], as_of=as_of)[symbol]
    history = actions.told(connection, [member.id], as_of)[member.id]
    day = trading_day(calendars.plain(member.mic), as_of or now)
    found = standing(history)
    begun = {each.ex_date for each in in_force([one.action for one in found], day)}
    stands = [(each, each.action.ex_date in begun) for each in found]
    return Listed(symbol, as_of, stands, history, actions.answers(connection, [member.id]))

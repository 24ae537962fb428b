"""Learning of corporate actions from providers, day by day. Nothing is ever overwritten."""

from __future__ import annotations

import logging
import math
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from mdtasks.domain.action_news import News, news
from mdtasks.domain.actions import Action, Days
from mdtasks.domain.errors import (
    HeldBackError,
    InvalidRequestError,
    ProviderError,
    UnsupportedError,
)
from mdtasks.domain.jobs import Interval
from mdtasks.flows import action_checks
from mdtasks.flows.action_checks import LOOK_BACK, Checked
from mdtasks.flows.action_names import Followed, follow_due
from mdtasks.flows.action_records import counted, own_of
from mdtasks.flows.deps import Deps
from mdtasks.flows.fetch import called
from mdtasks.flows.routing import Turn, route
from mdtasks.providers.base import Provider
from mdtasks.store import actions, reference
from mdtasks.store.actions import Answered
from mdtasks.store.reference import Instrument

log = logging.getLogger(__name__)

#: An instrument is asked about again after this: once a day, whenever beat's round comes by.
_DUE_AFTER: Final = timedelta(hours=20)
#: So long a round of beat goes on: the worker of housekeeping has one process, and the dispatcher waits for it.
_SLICE_S: Final = 2.0
#: Announced actions are asked for so far ahead, and corrections of past ones so far back.
_AHEAD: Final = timedelta(days=60)
_BACK: Final = timedelta(days=30)
#: Histories that are looked at in one transaction.
_AT_ONCE: Final = 50
#: Of an instrument without bars, so much of its past.
_WITHOUT_BARS: Final = timedelta(days=365)


@dataclass(slots=True)
class Refreshed:
    """What a round brought: instruments answered for and not, statements by what they are, what the check found, and
    which names and lives followed.
    """

    answered: int = 0
    unanswered: int = 0
    told: Counter[str] = field(default_factory=Counter)
    errors: dict[str, str] = field(default_factory=dict)
    checked: Checked = field(default_factory=Checked)
    followed: Followed = field(default_factory=Followed)

    def as_dict(self) -> dict[str, object]:
        return {
            "answered": self.answered,
            "unanswered": self.unanswered,
            **{name: self.told[name] for name in ("added", "corrected", "withdrawn")},
            "suspect": self.checked.new,
            "resolved": self.checked.resolved,
            **self.followed.as_dict(),
            "errors": self.errors,
        }


@dataclass(frozen=True, slots=True)
class Which:
    """Whom to ask about: these symbols, or all that are due; ``source``: one provider alone."""

    symbols: Sequence[str] = ()
    source: str | None = None


def refresh(
    deps: Deps,
    now: datetime,
    which: Which = Which(),
    for_s: float = math.inf,
) -> Refreshed:
    """Ask providers about corporate actions, each in its turn for those that nobody before it answered for.

    No call begins after ``for_s`` seconds: those asked longest ago come first, the rest come with the next round.
    Idempotent: what is known already is no news. Raises UnsupportedError where no provider has actions,
    CircuitOpenError where nobody may be asked, UnknownSymbolError, UnknownProviderError.
    """
    members = _members(deps, now, which)
    done = Refreshed()
    if not members:
        done.followed = follow_due(deps.database, (), deps.calendars, now)
        return done
    turns = route(deps, "actions", {member.mic for member in members}, which.source).turns
    left, until = list(members), time.monotonic() + for_s
    for turn in turns:
        try:
            left = _ask(_Round(deps, turn, now, until, done, which), left)
        finally:
            turn.gate.give_up_probe()
        if not left:
            break
    done.unanswered = len(left)
    waiting = {member.id for member in left}
    looked_at = [member for member in members if member.id not in waiting]
    done.checked += action_checks.check(deps.database, looked_at, now.date() - LOOK_BACK, _of_days(deps))
    done.followed = follow_due(deps.database, [member.id for member in looked_at], deps.calendars, now)
    return done


def refresh_due(deps: Deps, now: datetime) -> Refreshed:
    """``refresh`` of some that are due; where nobody may be asked, bars are held against what files and people told."""
    try:
        return refresh(deps, now, for_s=_SLICE_S)
    except (UnsupportedError, HeldBackError) as error:
        log.info("corporate actions: %s", error)
    members = _members(deps, now, Which())
    checked = action_checks.check(deps.database, members, now.date() - LOOK_BACK, _of_days(deps))
    return Refreshed(
        checked=checked, followed=follow_due(deps.database, [one.id for one in members], deps.calendars, now)
    )


def _of_days(deps: Deps) -> list[Provider]:
    return deps.registry.order(Interval.D1)


def _members(deps: Deps, now: datetime, which: Which) -> list[Instrument]:
    """The instruments to ask about, those asked longest ago first. Only equities have actions."""
    with deps.database.transaction() as connection:
        if which.symbols:
            return list(reference.resolve(connection, which.symbols).values())
        alive = [
            member
            for member in reference.instruments(connection)
            if member.kind == "equity" and (member.delisted_on is None or member.delisted_on > now.date() - _BACK)
        ]
        asked: dict[int, datetime] = {}
        for each in actions.answers(connection, [member.id for member in alive]):
            if each.error is None and which.source in (None, each.source):
                asked[each.instrument_id] = max(each.asked_at, asked.get(each.instrument_id, each.asked_at))
    never = datetime.min.replace(tzinfo=UTC)
    due = [member for member in alive if which.source or asked.get(member.id, never) < now - _DUE_AFTER]
    return sorted(due, key=lambda member: (asked.get(member.id, never), member.tier, member.symbol))


@dataclass(slots=True)
class _Round:
    """One provider's turn of a round."""

    deps: Deps
    turn: Turn
    now: datetime
    until: float
    done: Refreshed
    which: Which

    @property
    def insists(self) -> bool:
        """Whether a person asks: also about what was refused today."""
        return bool(self.which.symbols or self.which.source)


def _ask(round_: _Round, members: Sequence[Instrument]) -> list[Instrument]:
    """Ask one provider about those it serves; returns those not answered for."""
    provider = round_.turn.provider
    known = _answers(round_, members)
    refused = {
        each.instrument_id
        for each in known.values()
        if each.error is not None and each.asked_at > round_.now - _DUE_AFTER and not round_.insists
    }
    asked: list[Instrument] = []
    left: list[Instrument] = []
    for member in members:
        served = member.id not in refused and provider.capabilities.serves(member.listing)
        (asked if served else left).append(member)
    for days, packet in _packets(round_, asked, known):
        if time.monotonic() > round_.until:
            left += packet
            continue
        try:
            with called(round_.turn, "actions", "actions"):
                answer = provider.fetch_actions([member.listing for member in packet], days, round_.now)
        except ProviderError as error:
            round_.done.errors[provider.name] = str(error)
            left += packet
            _remember_refusals(round_, dict.fromkeys(packet, error))
            if isinstance(error, HeldBackError):  # the others would be held back too, each after a wait
                round_.until = 0.0
            continue
        failed = {member: answer.errors[member.symbol] for member in packet if member.symbol in answer.errors}
        round_.done.errors |= {member.symbol: str(error) for member, error in failed.items()}
        _remember_refusals(round_, failed)
        left += failed
        brought = {member: answer.actions[member.symbol] for member in packet if member.symbol in answer.actions}
        _keep(round_, brought, days)
    return left


def _answers(round_: _Round, members: Sequence[Instrument]) -> Mapping[int, Answered]:
    """What the round's provider answered about these instruments until now."""
    with round_.deps.database.transaction() as connection:
        found = actions.answers(connection, [member.id for member in members])
    return {each.instrument_id: each for each in found if each.source == round_.turn.provider.name}


def _remember_refusals(round_: _Round, failed: Mapping[Instrument, ProviderError]) -> None:
    """Remember for a day who has no answer about whom, where asking again would not help."""
    by_error: defaultdict[str, list[int]] = defaultdict(list)
    for member, error in failed.items():
        if not error.retryable:
            by_error[str(error)].append(member.id)
    if by_error:
        with round_.deps.database.transaction() as connection:
            for error_text, ids in by_error.items():
                actions.remember_refusal(connection, ids, round_.turn.provider.name, error_text)


def _packets(
    round_: _Round, members: Sequence[Instrument], known: Mapping[int, Answered]
) -> Iterable[tuple[Days, list[Instrument]]]:
    """The calls to make: those that want the same days together, as far as the provider takes them."""
    today, size = round_.now.date(), round_.turn.provider.capabilities.max_symbols
    with round_.deps.database.transaction() as connection:
        since = actions.bars_since(connection, [member.id for member in members])
    together: defaultdict[Days, list[Instrument]] = defaultdict(list)
    for member in members:
        first = min(since.get(member.id, today - _WITHOUT_BARS), today - _BACK)
        held = known[member.id].days if member.id in known else None
        if held is not None and held.first <= first:
            first = min(held.last - _AHEAD, today) - _BACK
        together[Days(first, today + _AHEAD)].append(member)
    for days, wanting in together.items():
        for start in range(0, len(wanting), size):
            yield days, wanting[start : start + size]


def _keep(round_: _Round, brought: Mapping[Instrument, Sequence[Action]], days: Days) -> None:
    """Put what is new of an answer on record, and look at the bars of its days where those lie far back."""
    source, today = round_.turn.provider.name, round_.now.date()
    made: list[tuple[int, News]] = []
    with round_.deps.database.transaction() as connection:
        actions.lock(connection)
        told = actions.told(connection, [member.id for member in brought])
        kept = []
        for member, found in brought.items():
            try:
                fresh = news(own_of(told[member.id], source), found, days, today)
            except InvalidRequestError as error:
                round_.done.errors[member.symbol] = f"{source}: {error}"
                continue
            made += [(member.id, each) for each in fresh]
            kept.append(member.id)
        actions.tell(connection, made, source)
        actions.remember_answer(connection, kept, source, days)
    round_.done.answered += len(kept)
    round_.done.told += counted(made, source)
    oldest = min((each.action.ex_date for _, each in made), default=today)
    if oldest < today - LOOK_BACK:
        touched = {instrument for instrument, _ in made}
        about = [member for member in brought if member.id in touched]
        for start in range(0, len(about), _AT_ONCE):
            some, deps = about[start : start + _AT_ONCE], round_.deps
            round_.done.checked += action_checks.check(deps.database, some, oldest, _of_days(deps))

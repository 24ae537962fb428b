"""How providers stood as of an instant, out of the record alone: the same instant has the same answer for ever.

What was not on record by then is left out or null, never told from now: nobody knows today what a provider declared or
what its account allowed then. Statements are dated under a lock that whoever reads waits for (``store.providers``).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from mdtasks.connections import Database
from mdtasks.domain.errors import InvalidRequestError, NotFoundError
from mdtasks.domain.health import Circuit, Parts, Pause
from mdtasks.flows.as_of import refuse_future
from mdtasks.store import providers
from mdtasks.store.providers import TOLD, Entry, Look

#: A look from longer ago than this tells nothing of an instant: nobody looked then. As long as a row of looks is.
REACH: Final = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Stood:
    """How one provider stood. ``looks``: those of REACH before the instant, the oldest first. ``changed``: its last
    demotion or promotion by then, ``paused``: its last pause or resumption.
    """

    name: str
    looks: Sequence[Look] = ()
    changed: Entry | None = None
    paused: Entry | None = None

    @property
    def pause(self) -> Pause | None:
        """Who had paused it; None: nobody."""
        last = self.paused
        return Pause(last.case["by"], last.case["reason"], last.at) if last and last.kind == "paused" else None

    @property
    def measured(self) -> tuple[datetime, float, Circuit, Parts] | None:
        """The newest of what was measured: when, score, breaker, parts; None: nobody looked within REACH."""
        if not self.looks:
            return None
        last, change = self.looks[-1], self.changed
        if change is not None and change.at > last.at and change.score is not None and "parts" in change.case:
            after = Circuit.OPEN if change.kind == "demoted" else Circuit.CLOSED
            return change.at, change.score, after, Parts(**change.case["parts"])
        return last.at, last.score, _circuit(last), last.parts

    @property
    def state(self) -> str | None:
        """``paused``, else the breaker's; None: not on record."""
        if self.pause is not None:
            return "paused"
        return None if self.measured is None else str(self.measured[2])

    @property
    def since(self) -> datetime | None:
        """Since when its breaker was as it was; None: since ever, or not on record."""
        if self.measured is None or self.changed is None:
            return None
        was_closed = self.measured[2] is Circuit.CLOSED
        return self.changed.at if was_closed == (self.changed.kind == "promoted") else None

    @property
    def why_aside(self) -> str | None:
        """Why it was not asked in its turn; None: it was, or that is not on record."""
        if self.pause is not None:
            return f"paused by {self.pause.by}: {self.pause.reason}"
        if self.measured is None or self.measured[2] is Circuit.CLOSED:
            return None
        since = f" since {self.since:%Y-%m-%d %H:%M:%S}Z" if self.since else ""
        return f"demoted{since}, evidence then {self.measured[3].evidence:.2f}"

    @property
    def transitions(self) -> list[Entry]:
        """Its last demotion or promotion and its last pause or resumption, the newer first."""
        return sorted((each for each in (self.changed, self.paused) if each), key=lambda one: one.at, reverse=True)

    def as_dict(self) -> dict[str, Any]:
        """As answers show it; times are datetimes."""
        looked_at, score, circuit, parts = self.measured or (None, None, None, None)
        return {
            "name": self.name,
            "health_score": score,
            "state": self.state,
            "why_aside": self.why_aside,
            "since": self.since,
            "measured_at": looked_at,
            "parts": {"breaker": circuit.value_of, **asdict(parts)} if circuit and parts else None,
            "evidence": parts and parts.evidence,
            "requests": self.looks[-1].requests if self.looks else None,
            "policy_version": self.looks[-1].policy_version if self.looks else None,
            "pause": asdict(self.pause) if self.pause else None,
            "transitions": [each.as_dict() for each in self.transitions],
            "history": [each.as_dict() for each in self.looks],
        }


def _circuit(look: Look) -> Circuit:
    """What the breaker was. The look at a paused one says so only by its score."""
    if look.state != "paused":
        return Circuit(look.state)
    return min(Circuit, key=lambda each: abs(look.parts.score(each) - look.score))


@dataclass(frozen=True, slots=True)
class Past:
    """How providers stood as of an instant, by name."""

    as_of: datetime
    providers: Sequence[Stood]

    def as_dict(self) -> dict[str, Any]:
        """As answers show it; times are datetimes."""
        return {"as_of": self.as_of, "providers": [each.as_dict() for each in self.providers]}


def stood(database: Database, as_of: datetime) -> Past:
    """How the providers stood that were looked at then or were paused. Needs no Redis.

    Raises InvalidRequestError for an instant to come, and for one of which looks are thinned out;
    StoreUnavailableError.
    """
    found = _read(database, as_of)
    return Past(as_of, [each for each in found.values() if each.looks or each.pause])


def stood_one(database: Database, as_of: datetime, name: str) -> Stood:
    """How one stood. Raises NotFoundError when nothing of it is on record by then, and as ``stood`` does."""
    found = _read(database, as_of, name).get(name)
    if found is None:
        raise NotFoundError(
            f"nothing of provider {name!r} was on record as of {as_of.isoformat()}",
            hint="`mdtasks providers --as-of TIME` lists those that were looked at then",
        )
    return found


def _read(database: Database, as_of: datetime, name: str | None = None) -> Mapping[str, Stood]:
    with database.transaction() as connection:
        until = providers.settled_until(connection)
        _refuse(as_of, until)
        looks: defaultdict[str, list[Look]] = defaultdict(list)
        for look in providers.looks_by(connection, as_of, REACH, name):
            looks[look.provider].append(look)
        changed: dict[str, Entry] = {}
        paused: dict[str, Entry] = {}
        for entry in providers.last_by(connection, as_of, name):
            (paused if entry.kind in ("paused", "resumed") else changed)[entry.provider] = entry
    names = sorted(looks.keys() | changed.keys() | paused.keys())
    return {each: Stood(each, looks.get(each, ()), changed.get(each), paused.get(each)) for each in names}


def _refuse(as_of: datetime, until: datetime) -> None:
    refuse_future(as_of, until)
    if as_of < until - TOLD:
        raise InvalidRequestError(
            f"how providers stood as of {as_of:%Y-%m-%d %H:%M:%S} UTC cannot be told any more:"
            f" looks are kept whole for {TOLD.days} days",
            field="as_of",
            hint=f"give {until - TOLD + timedelta(minutes=1):%Y-%m-%dT%H:%M}Z or later; the console's chart shows the"
            " worst of each ten minutes for longer, `mdtasks providers NAME` the last transitions",
        )

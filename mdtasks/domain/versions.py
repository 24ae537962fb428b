"""A universe version as bytes: what it is made of and who is in it, written in one way only; what differs between two.

Its hash is that of its header: the inputs by their hashes, the rules by their version, and their parameters. It needs
no database and no clock, so whoever has the bytes of the inputs can make the version again and compare.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

from mdtasks.domain.jobs import Tier
from mdtasks.domain.listings import Keys, Traded
from mdtasks.domain.universe import RULES, Member, Terms

_COLUMNS: Final = "instrument,symbol,tier,rank,score"


@dataclass(frozen=True, slots=True)
class Input:
    """Kept bytes that a version is made of, by their SHA-256."""

    source: str
    as_of: date
    sha256: str
    rows: int

    def as_dict(self) -> dict[str, Any]:
        return {"source": self.source, "as_of": self.as_of.isoformat(), "sha256": self.sha256, "rows": self.rows}

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Input:
        return cls(told["source"], date.fromisoformat(told["as_of"]), told["sha256"], told["rows"])


@dataclass(frozen=True, slots=True)
class Header:
    """What a version is made of. ``listings``: of one source, the oldest day first, all of them on or before ``as_of``.

    ``keys``: whom the rows mean; ``traded``: what the store's bars say, where the listings do not. ``parent``: the hash
    of the version that held, whose tiers have a say, and the hash of its members.
    """

    source: str
    as_of: date
    listings: Sequence[Input]
    keys: Input
    traded: Input | None
    terms: Terms
    parent: tuple[str, str] | None
    rules: int = RULES

    @property
    def inputs(self) -> list[Input]:
        """All kept bytes that it is made of."""
        return [*self.listings, self.keys, *([self.traded] if self.traded else [])]

    def text(self) -> str:
        """As canonical JSON."""
        parent = None if self.parent is None else {"hash": self.parent[0], "members_sha256": self.parent[1]}
        return _canonical(
            {
                "rules": self.rules,
                "source": self.source,
                "as_of": self.as_of.isoformat(),
                "listings": [each.as_dict() for each in self.listings],
                "keys": self.keys.as_dict(),
                "traded": None if self.traded is None else self.traded.as_dict(),
                "terms": self.terms.as_dict(),
                "parent": parent,
            }
        )

    @classmethod
    def of(cls, text: str) -> Header:
        """The header that a text is."""
        told = json.loads(text)
        parent = told["parent"]
        return cls(
            source=told["source"],
            as_of=date.fromisoformat(told["as_of"]),
            listings=[Input.of(each) for each in told["listings"]],
            keys=Input.of(told["keys"]),
            traded=None if told["traded"] is None else Input.of(told["traded"]),
            terms=Terms.of(told["terms"]),
            parent=None if parent is None else (parent["hash"], parent["members_sha256"]),
            rules=told["rules"],
        )

    @property
    def hash(self) -> str:
        """The version's hash."""
        return sha256(self.text().encode())

    @property
    def tag(self) -> str:
        """What a version is called that nobody names."""
        return f"{self.as_of.isoformat()}-{self.hash[:8]}"


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def sha256(data: bytes) -> str:
    """In hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def members_bytes(members: Iterable[Member]) -> bytes:
    """Members as canonical lines, by rank."""
    lines = (
        f"{m.instrument},{m.symbol},{m.tier.value},{m.rank},{m.score}"
        for m in sorted(members, key=lambda m: (m.rank, m.instrument))
    )
    return "\n".join([_COLUMNS, *lines, ""]).encode("ascii")


def members_of(data: bytes) -> list[Member]:
    """The members that canonical lines are. Raises ValueError."""
    head, *lines = data.decode("ascii").splitlines()
    if head != _COLUMNS:
        raise ValueError(f"members begin with {_COLUMNS}")
    rows = (line.split(",") for line in lines)
    return [Member(int(row[0]), row[1], Tier(row[2]), int(row[3]), int(row[4])) for row in rows]


def keys_bytes(keys: Keys) -> bytes:
    """Whom keys mean, as canonical lines: ``["key","2026-11-02",17]``."""
    lines = [
        _canonical([key, since.isoformat(), instrument]) for key in sorted(keys) for since, instrument in keys[key]
    ]
    return "\n".join([*lines, ""]).encode("ascii")


def keys_of(data: bytes) -> dict[str, list[tuple[date, int]]]:
    """Whom keys mean, read back."""
    found: dict[str, list[tuple[date, int]]] = {}
    for line in data.decode("ascii").splitlines():
        key, since, instrument = json.loads(line)
        found.setdefault(key, []).append((date.fromisoformat(since), instrument))
    return found


def traded_bytes(traded: Mapping[int, Traded]) -> bytes:
    """What the store's bars say, as canonical lines: ``instrument,days,dollars``."""
    lines = (f"{one},{traded[one].days},{traded[one].dollars}" for one in sorted(traded))
    return "\n".join([*lines, ""]).encode("ascii")


def traded_of(data: bytes) -> dict[int, Traded]:
    """What the store's bars say, read back."""
    rows = (line.split(",") for line in data.decode("ascii").splitlines() if line)
    return {int(one): Traded(int(days), int(dollars)) for one, days, dollars in rows}


@dataclass(frozen=True, slots=True)
class Moved:
    """A member that is another one than before: ``before`` None: it came, ``after`` None: it left."""

    before: Member | None
    after: Member | None

    @property
    def one(self) -> Member:
        """Whichever there is, the later one first."""
        found = self.after or self.before
        assert found is not None
        return found

    @property
    def decides(self) -> bool:
        """Whether more than rank and score differ."""
        before, after = self.before, self.after
        return before is None or after is None or (before.tier, before.symbol) != (after.tier, after.symbol)

    def as_dict(self) -> dict[str, Any]:
        """As HTTP and ``--json`` show it."""
        sides = {"before": self.before, "after": self.after}
        told = {
            name: None
            if each is None
            else {"symbol": each.symbol, "tier": each.tier.value, "rank": each.rank, "score": each.score}
            for name, each in sides.items()
        }
        return {"instrument": self.one.instrument, "symbol": self.one.symbol, **told}


def difference(old: Iterable[Member], new: Iterable[Member]) -> list[Moved]:
    """What differs, by instrument: those that came, left, or have another tier, symbol, rank or score."""
    before, after = ({each.instrument: each for each in members} for members in (old, new))
    found = (Moved(before.get(one), after.get(one)) for one in sorted(before.keys() | after.keys()))
    return [each for each in found if each.before != each.after]


def leavers(old: Iterable[Member], new: Iterable[Member]) -> list[Member]:
    """Who is in the first and not in the second, by rank."""
    stay = {each.instrument for each in new}
    return sorted((each for each in old if each.instrument not in stay), key=lambda each: each.rank)


def descents(old: Iterable[Member], new: Iterable[Member]) -> dict[Tier, list[Member]]:
    """Who is in both and in a lower tier in the second, by the tier of the first, the highest first, and by rank."""
    place, after = {tier: number for number, tier in enumerate(Tier)}, {each.instrument: each.tier for each in new}
    found: dict[Tier, list[Member]] = {tier: [] for tier in Tier}
    for each in sorted(old, key=lambda each: each.rank):
        if each.instrument in after and place[after[each.instrument]] > place[each.tier]:
            found[each.tier].append(each)
    return {tier: members for tier, members in found.items() if members}


def applied(old: Iterable[Member], moves: Iterable[Moved]) -> list[Member]:
    """The members with a difference applied, by rank."""
    found = {each.instrument: each for each in old}
    for move in moves:
        if move.after is None:
            found.pop(move.one.instrument, None)
        else:
            found[move.one.instrument] = move.after
    return sorted(found.values(), key=lambda each: each.rank)

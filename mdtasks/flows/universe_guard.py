"""Whom an activation would move for the worse, and whether a person must say so: a bad listing looks like that."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import Connection

from mdtasks.domain.errors import TooManyGoDownError, TooManyLeaveError, TooManyMoveError
from mdtasks.domain.jobs import Tier
from mdtasks.domain.universe import Member
from mdtasks.domain.versions import Header, descents, leavers
from mdtasks.store import universe as store
from mdtasks.store.universe import Version

#: Members that a refusal names.
_SOME: Final = 3
#: So few may always go down from a tier: in a small one they change places from day to day.
_FEW: Final = 10


@dataclass(frozen=True, slots=True)
class Fall:
    """Who of the ``held`` members of a tier would go down from it, by rank. ``wanted``: how many the new sizes put
    out, which whoever set them wanted.
    """

    members: Sequence[Member]
    held: int
    wanted: int

    def is_too_many(self, most: float) -> bool:
        return len(self.members) > max(most * self.held, _FEW) + self.wanted


@dataclass(frozen=True, slots=True)
class Moves:
    """Who of the ``held`` members of the version that holds would leave with another, or go down a tier, by rank.
    Nobody does where none held.
    """

    most: float = 1.0
    held: int = 0
    gone: Sequence[Member] = ()
    falls: Mapping[Tier, Fall] = field(default_factory=dict)

    @property
    def too_many_leave(self) -> bool:
        """Whether more would leave than may unseen."""
        return len(self.gone) > self.most * self.held

    @property
    def too_low(self) -> dict[Tier, Fall]:
        """The tiers from which more would go down than may unseen."""
        return {tier: fall for tier, fall in self.falls.items() if fall.is_too_many(self.most)}

    def refusal(self, tag: str) -> TooManyMoveError | None:
        """Why the other may not hold unseen; None: it may."""
        if self.too_many_leave:
            some = [each.symbol for each in self.gone[:_SOME]]
            return TooManyLeaveError(tag, leaving=len(self.gone), held=self.held, most=self.most, some=some)
        if not (low := self.too_low):
            return None
        down = {tier.value: (len(fall.members), fall.held) for tier, fall in low.items()}
        some = [each.symbol for each in next(iter(low.values())).members[:_SOME]]
        return TooManyGoDownError(tag, down=down, most=self.most, some=some)


def moves_to(connection: Connection, version: Version, most: float) -> Moves:
    """What letting a version hold would do to the members of the one that holds. ``most``: the policy's share."""
    held = store.active(connection)
    if held is None or held.version == version.version:
        return Moves(most, 0 if held is None else held.members)
    before, after = (store.members(connection, each.version) for each in (held, version))
    were, sizes = Counter(each.tier for each in before), Header.of(version.header).terms.sizes
    down = descents(before, after)
    falls: dict[Tier, Fall] = {}
    over: int | None = 0  # by how many this tier and those above it are smaller: one who goes down puts out another
    for tier in Tier:
        size = sizes[tier]
        over = None if over is None or size is None else over + were[tier] - size
        if tier in down:
            falls[tier] = Fall(down[tier], were[tier], max(over or 0, 0))
    return Moves(most, len(before), leavers(before, after), falls)

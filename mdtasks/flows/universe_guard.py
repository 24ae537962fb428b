"""Whom an activation would move for the worse, and whether a person must say so: a bad listing looks like that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import Connection

from mdtasks.domain.errors import Down, TooManyGoDownError, TooManyLeaveError, TooManyMoveError
from mdtasks.domain.jobs import Tier
from mdtasks.domain.universe import Member, Terms
from mdtasks.domain.versions import Header, descents, leavers
from mdtasks.store import universe as store
from mdtasks.store.universe import Version

#: Members that a refusal names.
_SOME: Final = 3
#: So few may always go down from a tier: in a small one they change places from day to day.
_FEW: Final = 10


@dataclass(frozen=True, slots=True)
class Fall:
    """Who of the ``held`` members of a tier would go down from it, by rank. ``kept``: how many of those a smaller size
    leaves in it, all but its lowest; ``unwanted``: who of these goes down, which whoever set the size did not ask for.
    """

    members: Sequence[Member]
    held: int
    kept: int
    unwanted: Sequence[Member]

    def is_too_many(self, most: float) -> bool:
        return len(self.unwanted) > max(most * self.kept, _FEW)


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
        down = {tier.value: Down(len(fall.unwanted), fall.kept, fall.held) for tier, fall in low.items()}
        some = [each.symbol for each in next(iter(low.values())).unwanted[:_SOME]]
        return TooManyGoDownError(tag, down=down, most=self.most, some=some)


def moves_to(connection: Connection, version: Version, most: float) -> Moves:
    """What letting a version hold would do to the members of the one that holds. ``most``: the policy's share."""
    held = store.active(connection)
    if held is None or held.version == version.version:
        return Moves(most, 0 if held is None else held.members)
    before, after = (store.members(connection, each.version) for each in (held, version))
    return Moves(most, len(before), leavers(before, after), _falls(before, after, Header.of(version.header).terms))


def _falls(before: Sequence[Member], after: Sequence[Member], terms: Terms) -> dict[Tier, Fall]:
    falls: dict[Tier, Fall] = {}
    down = descents(before, after)
    over: int | None = 0  # by how many this tier and those above it are smaller: one who goes down puts out another
    for tier in Tier:
        there, size = [each for each in before if each.tier is tier], terms.sizes[tier]
        loose = [each.instrument for each in there if each.symbol not in terms.pins]
        pinned = len(there) - len(loose)  # they hold against any size
        over = None if over is None or size is None else over + len(there) - max(size, pinned)
        if tier not in down:
            continue
        # A size puts out the lowest. By who they are, not how many: else as many others, the best among them, might go.
        out = set(loose[-over:]) if over is not None and over > 0 else set()
        unwanted = [each for each in down[tier] if each.instrument not in out]
        falls[tier] = Fall(down[tier], len(there), len(there) - len(out), unwanted)
    return falls

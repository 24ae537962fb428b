"""Making and changing the universe: a listing is kept, what it tells is learnt, a version is made of it, one holds.

What a listing tells of the world (who came to be, bears another symbol, has died) takes effect when it is taken. Which
tier an instrument is in is a decision: it takes effect when a version that says so is activated.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Final

from pydantic import StringConstraints
from sqlalchemy import Connection

from mdtasks.domain.errors import ConflictError, InvalidRequestError, TooManyMoveError
from mdtasks.domain.jobs import Tier
from mdtasks.domain.listings import NOBODY, Kept, has_dollars
from mdtasks.domain.policy import Policy
from mdtasks.domain.universe import Terms
from mdtasks.domain.versions import (
    Header,
    Input,
    Moved,
    difference,
    keys_bytes,
    members_bytes,
    traded_bytes,
)
from mdtasks.flows.deps import Deps
from mdtasks.flows.universe_bundle import built
from mdtasks.flows.universe_guard import Moves, moves_to
from mdtasks.flows.universe_listings import Told, read_rows, take
from mdtasks.observe import metrics
from mdtasks.providers.listings import doubt, format_of
from mdtasks.store import listings, reference
from mdtasks.store import universe as store
from mdtasks.store.listings import KEYS, TRADED
from mdtasks.store.universe import Activation, NewVersion, Version

log = logging.getLogger(__name__)

#: What a version may be called.
TAG: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
Reason = Annotated[str, StringConstraints(strip_whitespace=True, max_length=1000)]


@dataclass(frozen=True, slots=True)
class Asked:
    """Who asks, and what the version shall be called; "": by its day and hash."""

    actor: str
    tag: str = ""


@dataclass(frozen=True, slots=True)
class Made:
    """A version that was made, or was there already (``changed`` False). What the listings told: ``births``,
    ``renames``; ``skipped``: rows that mean nobody, by why; ``doubts``: what looks cut off.

    ``moves``: whom of the members of the version that holds it would move for the worse.
    """

    version: Version
    changed: bool
    tiers: Mapping[str, int]
    births: int = 0
    renames: int = 0
    skipped: Mapping[str, int] = field(default_factory=dict)
    doubts: Sequence[str] = ()
    moves: Moves = field(default_factory=Moves)

    @property
    def refusal(self) -> TooManyMoveError | None:
        """Why it may not hold unseen."""
        return self.moves.refusal(self.version.version_tag)

    def as_dict(self) -> dict[str, Any]:
        told = {"births": self.births, "renames": self.renames, "skipped": dict(self.skipped)}
        down = {tier.value: len(fall.members) for tier, fall in self.moves.falls.items()}
        moves = {"leaving": len(self.moves.gone), "held": self.moves.held, "down": down}
        return {
            "ok": True,
            "changed": self.changed,
            **told,
            **moves,
            "too_many": self.refusal is not None,
            "doubts": list(self.doubts),
            "tiers": dict(self.tiers),
            **self.version.as_dict(),
        }


def terms_of(policy: Policy) -> Terms:
    """The parameters of the rules that a policy tells."""
    told = policy.universe
    sizes = {tier: policy.tiers[tier].size for tier in Tier}
    return Terms(sizes, told.days, float(told.margin), dict(told.pins), tuple(sorted(told.bans)))


def refresh(source: str, kept: Sequence[Kept], asked: Asked, deps: Deps) -> Made:
    """Take listings of a source, the oldest day first, and make a version by the policy that holds. Nothing is
    activated. Safe to repeat: the same bytes make the same version, which is then told of again.

    Raises InvalidRequestError for a listing that cannot be read, is empty or of an older day than one that was taken,
    and for a wrong tag; ConflictError for a tag that another version has; StoreUnavailableError. Then nothing is kept.
    """
    if asked.tag and not TAG.fullmatch(asked.tag):
        raise InvalidRequestError(
            f"tag {asked.tag[:80]!r} is no name of a version", field="tag", hint="up to 64 letters, digits and . _ -"
        )
    rows = {each.as_of: read_rows(source, each) for each in kept}
    try:
        with deps.database.transaction() as connection:
            reference.lock(connection)
            told = take(connection, source, kept, rows, (asked.actor, deps.calendars))
            made = _make(connection, source, told, asked, deps)
            moves = _moves(connection, made.version, deps)
    except Exception:
        metrics.UNIVERSE_REFRESHES.labels(source=source, outcome="failed").inc()
        raise
    metrics.UNIVERSE_REFRESHES.labels(source=source, outcome="made" if made.changed else "same").inc()
    doubts = [f"the listing of {each.as_of}: {said}" for each in kept if (said := doubt(source, each.body))]
    return replace(made, doubts=doubts, moves=moves)


def _make(connection: Connection, source: str, told: Told, asked: Asked, deps: Deps) -> Made:
    held = store.active(connection)
    terms = terms_of(deps.running.policy)
    newest = listings.newest_day(connection, source)
    assert newest is not None
    inputs = listings.window(connection, source, newest, terms.days)
    parent = None if held is None else (held.hash, held.members_sha256)
    header, blobs = _header(connection, inputs, terms, parent, told.unplaced)
    there = store.by_hash(connection, header.hash)
    if there is None and held is not None and _made_of_the_same(Header.of(held.header), header):
        there = held  # a version is not made anew for being its own parent
    if there is not None:
        tiers = store.tier_counts(connection, there.version)
        _refuse_other_tag(connection, asked.tag, there)
        return Made(there, False, tiers, told.births, told.renames, told.skipped)
    _refuse_other_tag(connection, asked.tag, None)
    blobs |= {each.sha256: listings.body_of(connection, each) for each in inputs}
    before = b"" if held is None else members_bytes(store.members(connection, held.version))
    new = NewVersion(
        tag=asked.tag or header.tag,
        header=header,
        members=built(header, blobs, before),
        source_meta={"source": source, "skipped": told.skipped, "births": told.births, "renames": told.renames},
        parent=None if held is None else held.version,
        policy_version=deps.running.version,
        created_by=asked.actor,
    )
    version = store.add(connection, new)
    tiers = store.tier_counts(connection, version.version)
    log.info("universe %s: %s, %d members", version.version_tag, tiers, version.members)
    return Made(version, True, tiers, told.births, told.renames, told.skipped)


def _header(
    connection: Connection,
    inputs: Sequence[Input],
    terms: Terms,
    parent: tuple[str, str] | None,
    unplaced: Set[str],
) -> tuple[Header, dict[str, bytes]]:
    """The header of a version that these listings make, and the bytes of the inputs that are made here and kept."""
    source, day = inputs[-1].source, inputs[-1].as_of
    keys = listings.keys(connection, source, day)
    for key in unplaced & keys.keys():  # of this version alone: who is back on an exchange is the same one
        keys[key] = [each for each in keys[key] if each[0] < day] + [(day, NOBODY)]
    blobs = {KEYS: keys_bytes(keys)}
    count = {KEYS: sum(map(len, keys.values()))}
    if not has_dollars(format_of(source).read(listings.body_of(connection, inputs[-1]))):
        traded = listings.traded(connection, day, terms.days)
        blobs[TRADED], count[TRADED] = traded_bytes(traded), len(traded)
    kept = {name: listings.keep(connection, name, day, body, count[name]) for name, body in blobs.items()}
    header = Header(source, day, inputs, kept[KEYS], kept.get(TRADED), terms, parent)
    return header, {kept[name].sha256: body for name, body in blobs.items()}


def _made_of_the_same(one: Header, other: Header) -> bool:
    return [*one.inputs, one.terms, one.rules] == [*other.inputs, other.terms, other.rules]


def _refuse_other_tag(connection: Connection, tag: str, there: Version | None) -> None:
    """Raise ConflictError for a tag that is another version's, or where the version that is there has another."""
    if not tag or (there is not None and there.version_tag == tag):
        return
    if there is not None:
        raise ConflictError(
            f"this version is there already, as {there.version_tag}",
            hint=f"`mdtasks universe show {there.version_tag}`",
        )
    if store.by_tag(connection, tag) is not None:
        raise ConflictError(f"another version is called {tag}", hint="choose another tag, or leave it out")


def _moves(connection: Connection, version: Version, deps: Deps) -> Moves:
    return moves_to(connection, version, float(deps.running.policy.universe.most_leave))


def activate(
    tag: str, actor: str, reason: str, deps: Deps, *, force: bool = False
) -> tuple[Activation | None, Version]:
    """Let a version hold; None where it does already. One transaction: tiers, waiting jobs and the ledger of gaps
    follow together, and whoever reads them next sees all of it.

    Raises NotFoundError, StoreUnavailableError; TooManyMoveError where more of the members would leave, or of a tier's
    go down from it, than the policy lets, which ``force`` lets all the same.
    """
    with deps.database.transaction() as connection:
        reference.lock(connection)
        version = store.one(connection, tag)
        if version.active:
            return None, version
        refusal = None if force else _moves(connection, version, deps).refusal(tag)
        if refusal is not None:
            raise refusal
        activation = store.activate(connection, version, actor, reason)
    log.info("universe %s holds: %s", tag, dict(activation.counts))
    return activation, version


def compared(old: str, new: str, deps: Deps) -> list[Moved]:
    """What differs between two versions, by instrument. Raises NotFoundError."""
    with deps.database.transaction() as connection:
        members = [store.members(connection, store.one(connection, tag).version) for tag in (old, new)]
    return difference(*members)

"""Changing the policy: judge a candidate, make it the next version, tell everybody; bring an earlier one back.

PostgreSQL is the truth. A change is one transaction there; only then is it told of in Redis, and it is safe to tell
late, twice or not at all: whoever looks into PostgreSQL next puts the key right (``PolicyWatch``). A candidate that is
refused changes nothing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import StringConstraints, ValidationError

from mdtasks.connections import Database
from mdtasks.domain.errors import InvalidPolicyError, MdtasksError, NotFoundError, StackNotRunningError
from mdtasks.domain.jobs import Tier
from mdtasks.domain.policy import (
    Effects,
    Facts,
    Plan,
    Policy,
    Wrong,
    effective,
    effects,
    examine,
    plan,
)
from mdtasks.flows.policy_facts import FILE, Desk, gather, policy_file, read_file, shipped_file
from mdtasks.flows.policy_watch import Running, followed
from mdtasks.store import canaries, policies
from mdtasks.store.canaries import Canary
from mdtasks.store.policies import Change, Version

Reason = Annotated[str, StringConstraints(strip_whitespace=True, max_length=1000)]


#: Seconds that a canary is watched where nobody says otherwise, and at least and at most.
WATCH_S: Final = 300.0
LEAST_WATCH_S, MOST_WATCH_S = 1.0, 86_400.0


@dataclass(frozen=True, slots=True)
class Asked:
    """Who changes the policy, why, and which version they expect to hold; None: the one that they were told of.

    ``canary``: let the workers of this tier try it first, for ``watch_s`` seconds.
    """

    author: str
    reason: str = ""
    expect: int | None = None
    canary: Tier | None = None
    watch_s: float = WATCH_S


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a candidate. ``base``: the version that it was judged against. ``unseen``: what could not be looked
    at and why. With ``wrongs`` there is no policy and nothing that it would do.
    """

    base: Version
    policy: Policy | None
    wrongs: tuple[Wrong, ...]
    effects: Effects
    plan: Plan
    unseen: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """As ``POST /ops/validate`` answers it; raises InvalidPolicyError where the candidate is refused."""
        self.require()
        return {"ok": True, "policy_version": self.base.version, **self.effects.as_dict(), "unseen": list(self.unseen)}

    def require(self) -> Policy:
        """The policy. Raises InvalidPolicyError with every error where there is none."""
        if self.policy is None:
            raise InvalidPolicyError([wrong.as_dict() for wrong in self.wrongs], [str(wrong) for wrong in self.wrongs])
        return self.policy


@dataclass(frozen=True, slots=True)
class Outcome:
    """A change that was made, or was none: ``changed`` is False when the newest version has the same content.

    ``announced``: Redis was told; where not, every process finds the version when it next looks into PostgreSQL.
    ``canary``: only the workers of this tier follow it yet.
    """

    version: Version
    changed: bool
    announced: bool
    effects: Effects
    unseen: tuple[str, ...] = ()
    canary: Tier | None = None

    def as_dict(self) -> dict[str, Any]:
        about = {
            "changed": self.changed,
            "announced": self.announced,
            "canary": self.canary,
            "unseen": list(self.unseen),
        }
        return {"ok": True, **self.version.as_dict(), **about, **self.effects.as_dict()}


def newest(desk: Desk) -> Version:
    """The version that holds; the defaults where no store is known. Raises StoreUnavailableError."""
    if desk.database is None:
        return policies.defaults()
    with desk.database.transaction() as connection:
        return policies.newest(connection)


def one(desk: Desk, version: int) -> Version:
    """A version on record. Raises NotFoundError, StackNotRunningError, StoreUnavailableError."""
    with _store(desk).transaction() as connection:
        return policies.one(connection, version)


def history(desk: Desk, limit: int = 50) -> list[Version]:
    """The newest versions, newest first. Raises as ``one``."""
    with _store(desk).transaction() as connection:
        return policies.history(connection, limit)


def show(desk: Desk, version: Version) -> Running:
    """A version as a process with this environment follows it. Raises InvalidPolicyError when it cannot be followed."""
    running, why = followed(version, desk.environ)
    if running is None:
        wrong = Wrong("", "", f"version {version.version} cannot be followed here: {why}")
        raise InvalidPolicyError([wrong.as_dict()], [str(wrong)])
    return running


def read_own_file(desk: Desk) -> tuple[bytes, Path]:
    """The candidate where none is given: the policy's file, and where it is.

    The shipped defaults stand in for a file that nobody wrote only while nothing was ever applied: a reload must not
    silently take back what somebody made the policy. Raises NotFoundError then, InvalidRequestError when the file
    cannot be read, StoreUnavailableError.
    """
    path = policy_file(desk.settings)
    if path == shipped_file() and (holds := newest(desk).version):
        own = desk.settings.home / FILE
        raise NotFoundError(
            f"there is no policy file: neither MDTASKS_POLICY_FILE nor {own}, and version {holds} was applied",
            hint=f"give a file; `mdtasks policy show --stored > {own}` writes one, `mdtasks policy rollback 0` brings"
            " back the defaults",
        )
    return read_file(path), path


def validate(desk: Desk, data: bytes | str, now: datetime) -> Verdict:
    """Judge a candidate against the version that holds: what is wrong with it, or what would change and what that would
    do. Changes nothing. Raises StoreUnavailableError.
    """
    base = newest(desk)
    facts, unseen = gather(desk, now)
    before = policy_of(base)
    found = examine(data, facts, before, desk.environ)
    if found.policy is None:
        return Verdict(base, None, found.wrongs, Effects(), Plan(), tuple(unseen))
    did = effects(_here(before, desk), _here(found.policy, desk), facts)
    changes = effects(before, found.policy, facts).changes
    here = effective(found.policy, desk.environ)
    hidden = tuple((change.path, name) for change in changes if (name := here.variable_of(change.path)))
    done = replace(did, changes=changes, hidden=hidden)
    return Verdict(base, found.policy, (), done, planned(found.policy, desk, facts), tuple(unseen))


def apply(desk: Desk, data: bytes | str, asked: Asked, now: datetime) -> Outcome:
    """Make a candidate the policy. Safe to repeat: the same content makes no new version.

    Raises InvalidPolicyError; PolicyChangedError when another version holds than was expected, or where nothing was
    said, than the one that the candidate was judged against; CanaryError while a tier tries another one;
    StackNotRunningError, StoreUnavailableError. Then nothing was changed.
    """
    _store(desk)
    return _made(desk, validate(desk, data, now), asked)


def rollback(desk: Desk, version: int, asked: Asked, now: datetime) -> Outcome:
    """Make an earlier version, or with 0 the defaults, the newest again, by a version of its own.

    It is judged as every candidate: a provider may have gone since. Raises as ``apply``, and NotFoundError.
    """
    old = one(desk, version)
    return _made(desk, validate(desk, json.dumps(old.body), now), asked, restores=version)


def _made(desk: Desk, verdict: Verdict, asked: Asked, restores: int | None = None) -> Outcome:
    policy = verdict.require()
    expected = verdict.base.version if asked.expect is None else asked.expect
    with _store(desk).transaction() as connection:
        tried = None if asked.canary is None else (asked.canary, asked.watch_s)
        version, changed = policies.apply(
            connection, policy, Change(asked.author, asked.reason, expected, restores, tried)
        )
        canary = canaries.being_tried(connection)
    # Judged against an older version, it says what differs from that one: nothing that is true where nothing changed.
    did = verdict.effects if changed else Effects()
    told = _announced(desk, version, canary)
    return Outcome(version, changed, told, did, verdict.unseen, None if canary is None else canary.tier)


def compare(desk: Desk, old: Version, new: Version, now: datetime) -> Effects:
    """What differs between two versions, and what going from one to the other would do."""
    facts, _ = gather(desk, now)
    return effects(policy_of(old), policy_of(new), facts)


def planned(policy: Policy, desk: Desk, facts: Facts) -> Plan:
    """The quotas under a policy, with what the environment sets in its place."""
    return plan(_here(policy, desk), facts)


def plan_of(desk: Desk, data: bytes | str | None, now: datetime) -> Plan:
    """The quotas under a candidate, or where none is given under the version that holds.

    A candidate whose only fault is that it does not fit is planned too: that is what the plan is for. Raises
    InvalidPolicyError for any other, StoreUnavailableError.
    """
    facts, _ = gather(desk, now)
    if data is None:
        return planned(policy_of(newest(desk)), desk, facts)
    without = Facts(known=facts.known, default_order=facts.default_order)
    found = examine(data, without, None, desk.environ)
    if found.policy is None:
        raise InvalidPolicyError([each.as_dict() for each in found.wrongs], [str(each) for each in found.wrongs])
    return planned(found.policy, desk, facts)


def policy_of(version: Version) -> Policy:
    """The content of a version; the defaults where this mdtasks cannot read it, having come after or before it."""
    try:
        return Policy.model_validate(version.body)
    except ValidationError:
        return Policy()


def _here(policy: Policy, desk: Desk) -> Policy:
    return effective(policy, desk.environ).policy


def _announced(desk: Desk, version: Version, canary: Canary | None) -> bool:
    """Tell of the version; not being able to is no failure, for PostgreSQL has it."""
    if desk.state is None:
        return False
    try:
        if canary is not None:
            canaries.announce(desk.state, canary)
        else:
            policies.announce(desk.state, version.version)
    except MdtasksError:
        return False
    return True


def _store(desk: Desk) -> Database:
    if desk.database is None:
        raise StackNotRunningError(str(desk.settings.home))
    return desk.database

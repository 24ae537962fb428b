"""Whether a candidate may become the policy: every error of it at once, each with its place, its value and its rule."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from pydantic import ValidationError

from mdtasks.domain.jobs import Interval, Tier
from mdtasks.domain.policy.documents import Document, UnreadableError
from mdtasks.domain.policy.facts import Facts
from mdtasks.domain.policy.keeping import keeping
from mdtasks.domain.policy.model import Policy
from mdtasks.domain.policy.quotas import plan
from mdtasks.domain.policy.reading import read
from mdtasks.domain.policy.variables import effective
from mdtasks.domain.policy.wrongs import MOST, Wrong, nearest, shown, wrongs_of

#: What one waiting backfill takes of the broker's memory, measured on Valkey with its list's own share.
MESSAGE_BYTES: Final = 2_000
#: Share of the broker's memory that full queues may take: the rest is for what workers hold, letters, replay, health.
QUEUES_SHARE: Final = 0.6

_NOTHING: Final = Facts()


@dataclass(frozen=True, slots=True)
class Examined:
    """What came of a candidate: the policy that it is, or None and why not."""

    policy: Policy | None
    wrongs: tuple[Wrong, ...] = ()


def examine(
    data: bytes | str, facts: Facts = _NOTHING, running: Policy | None = None, environ: Mapping[str, str] | None = None
) -> Examined:
    """Read and check a candidate, YAML or JSON. Never raises for what is in it.

    ``running``: the policy that it would replace; what does not fit a provider's quota now is no reason to refuse a
    change that makes it no worse. ``environ``: the variables that will override it; with them too it must be right.
    """
    try:
        document = read(data)
    except UnreadableError as error:
        return Examined(None, (error.wrong,))
    try:
        policy = Policy.model_validate(document.content)
    except ValidationError as exc:
        found = wrongs_of(exc, document.content, Policy, document.lines)
        return Examined(None, tuple([*found, *_beside(found, document, facts)][:MOST]))
    wrongs = _placed(check(policy, facts, running), document)
    if not wrongs and environ:
        wrongs = _under(policy, facts, running, environ)
    return Examined(None if wrongs else policy, tuple(wrongs[:MOST]))


def _under(policy: Policy, facts: Facts, running: Policy | None, environ: Mapping[str, str]) -> list[Wrong]:
    """What is wrong once the environment has had its say."""
    found = effective(policy, environ)
    if found.wrongs:
        return list(found.wrongs)
    wrongs = []
    for wrong in check(found.policy, facts, None if running is None else effective(running, environ).policy):
        names = dict.fromkeys(name for path in wrong.about if (name := found.variable_of(path)))
        wrongs.append(replace(wrong, rule=f"{wrong.rule}; {', '.join(names)} is set" if names else wrong.rule))
    return wrongs


def _beside(found: list[Wrong], document: Document, facts: Facts) -> list[Wrong]:
    """What else is wrong, beside the fields that cannot be read at all: their defaults stand for them."""
    try:
        policy = Policy.model_validate(_repaired(document.content, found))
    except ValidationError:
        return []
    bad = {wrong.path for wrong in found}
    others = _rules(policy, facts)
    more = [wrong for wrong in others if not any(_within(path, bad) for path in (wrong.path, *wrong.about))]
    return _placed(more, document)


def _within(path: str, bad: set[str]) -> bool:
    return any(path == one or path.startswith((f"{one}.", f"{one}[")) or one.startswith(f"{path}.") for one in bad)


def _repaired(content: dict[str, Any], found: list[Wrong]) -> dict[str, Any]:
    """The document with its defaults in the place of what is wrong."""
    repaired, default = copy.deepcopy(content), Policy().model_dump(mode="json")
    for wrong in found:
        names = wrong.path.partition("[")[0].split(".")
        at: Any = repaired
        usual: Any = default
        for depth, name in enumerate(names):
            usual = usual.get(name) if isinstance(usual, dict) else None
            if not isinstance(at, dict):
                break
            if depth == len(names) - 1 or not isinstance(at.get(name), dict):
                at.pop(name, None)
                if usual is not None:
                    at[name] = usual
                break
            at = at[name]
    return repaired


def _placed(wrongs: list[Wrong], document: Document) -> list[Wrong]:
    """The errors with the lines of their places; what the candidate leaves out has the line of what would hold it."""
    lines = {tuple(map(str, path)): line for path, line in document.lines.items()}

    def line_of(path: str) -> int | None:
        parts = tuple(path.replace("]", "").replace("[", ".").split("."))
        return next((lines[parts[:n]] for n in range(len(parts), -1, -1) if parts[:n] in lines), None)

    return [replace(wrong, line=line_of(wrong.path)) for wrong in wrongs]


def check(policy: Policy, facts: Facts = _NOTHING, running: Policy | None = None) -> list[Wrong]:
    """What is wrong with a policy although each field of it is right by itself."""
    return _rules(policy, facts) or list(_quotas(policy, facts, running))


def _rules(policy: Policy, facts: Facts) -> list[Wrong]:
    """All but the quotas, which mean nothing while the orders are wrong."""
    found = [*_compared(policy), *keeping(policy), *(wrong for tier in Tier for wrong in _tier(tier, policy))]
    found += [wrong for field in ("bars_1m", "eod", "quotes_l1") for wrong in _order(field, policy, facts)]
    return [*found, *_universe(policy, facts), *_limits(policy, facts), *_memory(policy, facts)]


def _compared(policy: Policy) -> Iterator[Wrong]:
    breaker, retry, retention = policy.breaker, policy.retry, policy.retention
    if breaker.demote >= breaker.promote:
        yield _pair("breaker.demote", breaker.demote, "must be below", "breaker.promote", breaker.promote)
    if retry.base_s > retry.max_s:
        yield _pair("retry.base_s", retry.base_s, "must be at most", "retry.max_s", retry.max_s)
    if retention.slo_whole_days > retention.slo_days:
        yield _pair(
            "retention.slo_whole_days",
            retention.slo_whole_days,
            "must be at most",
            "retention.slo_days",
            retention.slo_days,
        )


def _pair(path: str, value: object, rule: str, other: str, bound: object) -> Wrong:
    return Wrong(path, shown(value), f"{rule} {other} ({shown(bound)})", None, (path, other))


def _tier(tier: Tier, policy: Policy) -> Iterator[Wrong]:
    at, wanted = f"tiers.{tier}", policy.tiers[tier]
    cadence, keeps = wanted.cadence, Interval.D1 in wanted.keep
    if cadence.bars_1m is None and cadence.quotes_l1 is None and cadence.eod is None:
        yield Wrong(f"{at}.cadence", "nothing", "must have at least one of bars_1m, quotes_l1, eod", None, (at,))
    elif keeps != (cadence.eod is not None):
        rule = "must be 1, for 1d is in" if keeps else "must be null, for 1d is not in"
        path = f"{at}.cadence.eod"
        yield Wrong(path, shown(cadence.eod), f"{rule} {at}.keep", None, (path, f"{at}.keep"))


def _order(field: str, policy: Policy, facts: Facts) -> Iterator[Wrong]:
    names = getattr(policy.orders, field) or ()
    for number, name in enumerate(names):
        path = f"orders.{field}[{number}]"
        if facts.known and name not in facts.known:
            near = nearest(name, facts.known)
            yield Wrong(path, shown(name), "is no provider" + _meant(near, facts.known), None, (path,))
        elif facts.offers and name not in facts.offers:
            configured = ", ".join(facts.offers)
            yield Wrong(path, shown(name), f"is not configured here; configured: {configured}", None, (path,))
        elif facts.offers and not any(facts.offers[name].serves(each) for each in _CAPABILITIES[field]):
            yield Wrong(path, shown(name), f"does not serve {_SERVED[field]}", None, (path,))


def _universe(policy: Policy, facts: Facts) -> Iterator[Wrong]:
    wanted, path = policy.universe, "universe.source"
    for symbol in wanted.bans:
        if symbol in wanted.pins:
            at = "universe.bans"
            yield Wrong(at, shown(symbol), "is pinned to a tier too", None, (at, f"universe.pins.{symbol}"))
    name = wanted.source
    if name is None:
        return
    if facts.known and name not in facts.known:
        yield Wrong(
            path, shown(name), "is no provider" + _meant(nearest(name, facts.known), facts.known), None, (path,)
        )
    elif facts.offers and name not in facts.offers:
        configured = ", ".join(facts.offers)
        yield Wrong(path, shown(name), f"is not configured here; configured: {configured}", None, (path,))
    elif facts.offers and not facts.offers[name].listing:
        yield Wrong(path, shown(name), "does not list its instruments", None, (path,))


_CAPABILITIES: Final = {"bars_1m": ("1m", "5m", "15m", "1h"), "eod": ("1d",), "quotes_l1": ("quotes",)}
_SERVED: Final = {"bars_1m": "intraday bars", "eod": "daily bars", "quotes_l1": "quotes"}


def _meant(near: str, known: tuple[str, ...]) -> str:
    return f"; did you mean {near}?" if near else f"; there are {', '.join(known)}"


def _limits(policy: Policy, facts: Facts) -> Iterator[Wrong]:
    for name, rate in policy.limits.items():
        if facts.known and name not in facts.known:
            path = f"limits.{name}"
            yield Wrong(
                path, shown(rate), "is of no provider" + _meant(nearest(name, facts.known), facts.known), None, (path,)
            )


def _memory(policy: Policy, facts: Facts) -> Iterator[Wrong]:
    """Full queues must leave the broker room: out of memory it refuses everything, letters too."""
    if facts.broker_bytes is None:
        return
    caps = {tier: policy.tiers[tier].max_queue for tier in Tier}
    room = int(facts.broker_bytes * QUEUES_SHARE / MESSAGE_BYTES)
    if (total := sum(caps.values())) > room:
        largest = max(caps, key=lambda tier: caps[tier])
        paths = tuple(f"tiers.{tier}.max_queue" for tier in Tier)
        rule = (
            f"is too many: the caps of all tiers, {total:,}, must be at most {room:,}, for the broker has"
            f" {facts.broker_bytes / 1e6:,.0f} MB and full queues may take {QUEUES_SHARE:.0%} of it"
        )
        yield Wrong(f"tiers.{largest}.max_queue", shown(caps[largest]), rule, None, paths)


def _quotas(policy: Policy, facts: Facts, running: Policy | None) -> Iterator[Wrong]:
    if not facts.offers:
        return
    before = {} if running is None else {each.provider: each.over_per_min for each in plan(running, facts).quotas}
    for quota in plan(policy, facts).quotas:
        if quota.over_per_min > before.get(quota.provider, 0.0) + 1e-9:
            *above, name = quota.path.split(".")
            value = getattr(policy.tiers[Tier(above[1])].cadence, name)
            rule = (
                f"asks too much of {quota.provider}: {quota.live_per_min:,.4g} calls per minute in all, of which its"
                f" account allows {quota.limit_per_min:,.4g}; {quota.advice[0]}"
            )
            yield Wrong(quota.path, shown(value), rule, None, (quota.path, f"limits.{quota.provider}"))

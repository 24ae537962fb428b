"""How the policy, what is wrong with one, what it would do, and the quotas look on a terminal."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mdtasks.cli.frame import say
from mdtasks.cli.output import plural, show_table

if TYPE_CHECKING:
    from mdtasks.domain.policy import Effects, Plan
    from mdtasks.flows.policy_watch import Running


def yaml_with_notes(running: Running) -> str:
    """The policy as YAML; beside a value that is not the default, what that is, and who set it."""
    from mdtasks.domain.policy import Policy, leaves
    from mdtasks.domain.policy.pages import yaml_of

    usual = {leaf.path: leaf.value for leaf in leaves(Policy())}
    stored = {leaf.path: leaf.value for leaf in leaves(running.stored)} | {"limits": dict(running.stored.limits)}
    lines, names = [], list[str]()
    for line in yaml_of(running.policy, comments=False).splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        name, _, value = line.strip().partition(":")
        names = [*names[:depth], name]
        path = ".".join(names)
        notes = []
        if path in running.overridden:
            notes.append(f"{running.overridden[path]} sets it; applied: {json.dumps(stored[path])}")
        if value and path in usual and json.loads(value) != usual[path]:
            notes.append(f"default: {json.dumps(usual[path])}")
        lines.append(f"{line:<34}  # {'; '.join(notes)}" if notes else line)
    return "\n".join(lines) + "\n"


def say_overridden(running: Running) -> None:
    """Say which variables win over what was applied."""
    names = dict.fromkeys(running.overridden.values())
    if names:
        say(f"the environment sets {', '.join(names)} in its place; --stored shows the policy as applied")


def show_errors(errors: Iterable[Mapping[str, Any]]) -> None:
    """A row an error: where, with which value, against which rule."""
    rows = [(each["path"] or "(document)", each["line"], each["value"], each["rule"]) for each in errors]
    lines = any(line is not None for _, line, _, _ in rows)
    headers = ("field", "line", "value", "rule") if lines else ("field", "value", "rule")
    show_table(headers, rows if lines else [(path, value, rule) for path, _, value, rule in rows])


def show_effects(did: Effects, unseen: Sequence[str], *, done: bool = False) -> None:
    """What changes, and what that does (``done``: has done) to what runs."""
    if did.changes:
        rows = [(c.path, _text(c.before), _text(c.after), "restart" if c.restart else None) for c in did.changes]
        needs = any(change.restart for change in did.changes)
        headers = ("field", "before", "after", "needs") if needs else ("field", "before", "after")
        show_table(headers, rows if needs else [row[:3] for row in rows])
    for name, was, now in did.beat:
        say(f"beat: {name} {_every(was)} -> {_every(now)}")
    for tier, cap, depth in did.over_cap:
        say(f"queue {tier} holds {depth:,}, over the new cap of {cap:,}: all stay, and none is added until it drained")
    for order, name in did.leave:
        say(f"provider {name} {'left' if done else 'leaves'} {order}")
    for order, name in did.come:
        say(f"provider {name} {'joined' if done else 'joins'} {order}")
    for path in did.deletes:
        say(f"{path}: what is older {'goes' if done else 'would go'} for good; `mdtasks retention --dry-run` counts it")
    if did.restart:
        say(f"{plural(len(did.restart), 'change')} of these hold only in processes that are started afterwards")
    for path, variable in did.hidden:
        say(f"{path} stays as it is where {variable} is set, as it is here")
    for what in unseen:
        say(f"not looked at: {what}")


def show_plan(plan: Plan) -> None:
    """What each provider must serve, what asks for it, and what does not fit."""
    headers = ("provider", "state", "live/min", "limit/min", "over by", "limit", "one session lost", "drained in")
    rows = []
    for quota in plan.quotas:
        limit = None if quota.limit_per_min is None else _number(quota.limit_per_min)
        over = _number(quota.over_per_min) if quota.over_per_min else None
        state = "TOO MUCH" if quota.over_per_min else "ok"
        rates = "+".join(map(str, quota.rates)) or "none"
        backlog = plural(quota.fill_calls, "call") if quota.fill_calls else None
        row = (quota.provider, state, _number(quota.live_per_min), limit, over, rates, backlog, _drained(quota))
        rows.append(row)
    if not rows:
        say("no provider has anything to serve" + ("" if plan.counted else ": no symbols, or no provider"))
        return
    show_table(headers, rows)
    print()
    feeds = ("tier", "what", "provider", "symbols", "every", "calls", "calls/min")
    show_table(
        feeds,
        [
            (d.tier.value, d.feed, d.provider or "nobody", d.symbols, _every(d.every_s), d.calls, _number(d.per_min))
            for d in plan.demands
        ],
    )
    for quota in plan.quotas:
        if quota.advice:
            print(f"\n{quota.provider} cannot serve that. One of these makes it fit:")
            for advice in quota.advice:
                print(f"  {advice}")
    counted = "counted" if plan.counted else "taken as large as they may be, for no symbols are known"
    say(f"tiers are {counted}: {', '.join(f'{tier} {size:,}' for tier, size in plan.symbols.items())}")


def _drained(quota: Any) -> str | None:
    if not quota.fill_calls:
        return None
    if quota.drain_min is None:
        return "never"
    if quota.limit_per_min is None:
        return "no limit"
    return f"{quota.drain_min / 60:,.1f} h" if quota.drain_min >= 120 else f"{quota.drain_min:,.1f} min"


def _number(value: float) -> int | float:
    """Calls a minute, as many figures as matter."""
    rounded = round(value, 3 if value < 10 else 1)
    return int(rounded) if rounded == int(rounded) or value >= 1000 else rounded


def _every(seconds: float | None) -> str:
    return "never" if seconds is None else f"{seconds:g} s"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)

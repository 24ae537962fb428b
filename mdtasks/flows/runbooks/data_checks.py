"""Checks of the data: letters, calendars, refused bars, gaps, load."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from functools import partial
from typing import Any, Final

from mdtasks.domain.errors import InvalidRequestError
from mdtasks.flows import letters
from mdtasks.flows.deps import Deps
from mdtasks.flows.runbooks.findings import Finding, Repair
from mdtasks.flows.runbooks.process_checks import spoken
from mdtasks.flows.runbooks.provider_checks import fails_now, pause_words
from mdtasks.flows.runbooks.view import View
from mdtasks.flows.scan import OUTAGES
from mdtasks.queue.app import backfill_queue
from mdtasks.store.letters import LetterFilter

_KILLED: Final = frozenset({"worker_lost", "time_limit"})
#: An exchange that opened this long ago and has no bar of any series since did not trade.
_QUIET: Final = timedelta(minutes=30)
_LEAST_SERIES: Final = 3


def letters_by_cause(view: View) -> Iterator[Finding]:
    """Dead letters are open: the groups, the largest and latest first."""
    total = sum(group["letters"] for group in view.letters)
    for group in view.letters[:3]:
        fresh = view.now - group["last_seen"] < timedelta(hours=1)
        likelihood = (0.45 if fresh else 0.25) + 0.35 * group["letters"] / total
        where = f" of {group['provider']}" if group["provider"] else ""
        evidence = (
            f"{group['letters']:,} letters, {group['symbols']:,} symbols, newest {_ago(view, group['last_seen'])} ago",
            str(group["example"]).partition("\n")[0][:160],
        )
        what = "what is stored does not fit" if group["findings"] else "jobs failed for good"
        cause = f"{what}: {group['error_class']}{where}"
        yield Finding(cause, likelihood, _requeue(group, view), evidence)


def _ago(view: View, at: Any) -> str:
    return spoken(max((view.now - at).total_seconds(), 0.0))


def _requeue(group: Mapping[str, Any], view: View) -> Repair:
    error_class, provider = str(group["error_class"]), str(group["provider"]) or None
    if group["findings"]:  # about what is stored
        return Repair(f"each says what settles it, and closes then: mdtasks dlq list --error {error_class}")
    if not group["task"].startswith("mdtasks."):  # poison: no job could be read out of it
        return Repair("look at one, and stop whoever sends it: mdtasks dlq list --kind others")
    words = f"when the cause is gone: mdtasks dlq requeue --error {error_class}"
    words += f" --provider {provider}" if provider else ""
    if provider and fails_now(provider, view):
        return Repair(f"{provider} fails now: wait for it; {words}")
    if error_class in OUTAGES:
        words = f"the gap scan revives them by itself, twice a job, once their provider has answered somebody; {words}"
    if error_class in _KILLED:
        words = f"give workers more memory, or lower MDTASKS_CONCURRENCY or BACKFILL_CHUNK_MINUTES; {words}"
    return Repair(words, partial(_requeue_now, LetterFilter(error_class=error_class, provider=provider)))


def _requeue_now(which: LetterFilter, deps: Deps, actor: str) -> Mapping[str, Any]:
    frozen = letters.plan(which, actor, deps)
    return letters.carry_out(frozen.plan_id, actor, deps)


def exchange_shut(view: View) -> Iterator[Finding]:
    """An exchange should trade, and no series of it has a bar of this session: it may be shut."""
    for row in view.freshness:
        if row["interval"] != "1m" or row["series"] < _LEAST_SERIES:
            continue
        try:
            session = view.deps.calendars.get(row["mic"]).session_of(view.now)
        except InvalidRequestError:  # past its horizon, which has a finding of its own
            continue
        if session is not None and view.now - session.open > _QUIET and row["newest"] <= session.open:
            evidence = (
                f"it opened {_ago(view, session.open)} ago, and none of its {row['series']:,} series has a bar since",
                *_others(view, row["mic"]),
            )
            words = f"if it did not trade: mdtasks calendar close {row['mic']} {session.label} --reason '...'"
            yield Finding(f"{row['mic']} may be shut today", 0.7, Repair(words), evidence)


def _others(view: View, mic: str) -> Iterator[str]:
    fresh = [row["mic"] for row in view.freshness if row["mic"] != mic and view.now - row["newest"] < _QUIET]
    if fresh:
        yield f"others have bars: {', '.join(dict.fromkeys(fresh))}"


def calendar_ends(view: View) -> Iterator[Finding]:
    """A calendar in use ends soon."""
    if view.horizons.state != "ok":
        words = (
            "pip install --upgrade exchange_calendars where mdtasks runs, mdtasks migrate, then start the stack again"
        )
        yield Finding("a calendar ends soon", 0.95, Repair(words), (view.horizons.found,))


def quarantine(view: View) -> Iterator[Finding]:
    """Bars were refused within the hour."""
    for row in view.quarantined[:3]:
        evidence = (f"{row['bars']:,} bars of {row['instruments']:,} instruments within an hour",)
        others = [each for each in view.deps.registry.names() if each != row["provider"]]
        order = (
            f"POLICY_BARS_1M={','.join([*others, row['provider']])} for the stack" if others else "a second provider"
        )
        cause = f"{row['provider']} sends bars that break a rule: {row['reason']}"
        words = f"look at one: mdtasks dlq list --error bad_bars; ask others first: {order}"
        words += f"; or nobody asks it until it is resumed: {pause_words(row['provider'])}" if others else ""
        yield Finding(cause, 0.75, Repair(words), evidence)


def queue_full(view: View) -> Iterator[Finding]:
    """A tier's queue is at its cap, and more waits in PostgreSQL."""
    used, most = view.memory
    for tier, work in view.work.items():
        cap, depth = view.deps.settings.cap(tier), view.depths[backfill_queue(tier)]
        if work.due and depth >= 0.95 * cap:
            each = max(used // max(sum(view.depths.values()), 1), 1)  # all of Redis, shared out: rather too much
            fits = (most * 8 // 10 - used) // each if most else work.due
            evidence = (
                f"{depth:,} of {cap:,} queued, {work.due:,} deferred",
                f"Redis uses {used / 1e6:,.0f} MB" + (f" of {most / 1e6:,.0f}" if most else ", without a limit"),
            )
            words = f"nothing is lost and it drains by itself; a higher cap: BACKFILL_MAX_QUEUE_{tier}={cap + fits}"
            if fits <= 0:
                words = "Redis has no memory for a higher cap: it drains by itself, nothing is lost"
            yield Finding(f"the queue {tier} is at its cap", 0.6, Repair(words), evidence)


def overloaded(view: View) -> Iterator[Finding]:
    """Workers are at work and do not keep up."""
    done = sum(each.attempts for each in view.outcomes if not each.error_class)
    for tier, work in view.work.items():
        if work.running and work.queued > 10 * work.running:
            pace = f"{done / 30:,.0f} attempts ended well a minute" if done else "none ended well within 30 min"
            evidence = (f"{work.running:,} run, {work.queued:,} queued, {work.due + work.put_off:,} deferred", pace)
            more = 2 * view.deps.settings.concurrency
            words = f"more processes: MDTASKS_CONCURRENCY={more} for the stack; or wait: mdtasks jobs --tier {tier}"
            yield Finding(f"{tier} is asked for more than its workers do", 0.5, Repair(words), evidence)


def retries_wait(view: View) -> Iterator[Finding]:
    """Jobs failed and wait for their next attempt."""
    for tier, work in view.work.items():
        if work.put_off:
            evidence = (f"{work.put_off:,} wait for their next attempt",)
            words = "see why: mdtasks jobs --status deferred"
            yield Finding(f"jobs of {tier} failed and are tried again", 0.35, Repair(words), evidence)


def gaps_open(view: View) -> Iterator[Finding]:
    """What is missing, and since when."""
    for row in view.gaps[:3]:
        symbols = ", ".join(filter(None, row["symbols"]))
        evidence = (f"{row['open']:,} open, the oldest for {spoken(float(row['oldest_age_s']))}: {symbols}",)
        words = f"mdtasks gaps {next(filter(None, row['symbols']), 'SYMBOL')} says what is missing and who was asked"
        yield Finding(f"gaps of {row['tier']} {row['interval']} are open", 0.3, Repair(words), evidence)


def stalest(view: View) -> Iterator[Finding]:
    """Which series reach least far."""
    for row in view.freshness[:3]:
        symbols = ", ".join(filter(None, row["stalest"]))
        evidence = (f"the stalest reaches to {row['oldest']:%Y-%m-%d %H:%M}Z, the freshest to {row['newest']:%H:%M}Z",)
        words = f"mdtasks gaps {next(filter(None, row['stalest']), 'SYMBOL')}"
        yield Finding(f"{row['mic']} {row['interval']}: {symbols} reach least far", 0.15, Repair(words), evidence)

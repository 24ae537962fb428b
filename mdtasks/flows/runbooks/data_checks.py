"""Checks of the data and of those who bring it: providers, letters, calendars, gaps, load."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import timedelta
from functools import partial
from typing import Any, Final

from mdtasks.domain.errors import InvalidRequestError
from mdtasks.flows import letters
from mdtasks.flows.deps import Deps
from mdtasks.flows.runbooks.findings import Finding, Repair
from mdtasks.flows.runbooks.process_checks import spoken
from mdtasks.flows.runbooks.view import NOW_MINUTES, View
from mdtasks.flows.scan import OUTAGES
from mdtasks.queue.app import backfill_queue
from mdtasks.store.evidence import Outcome
from mdtasks.store.letters import LetterFilter

#: Errors that are a provider's own, not the load's (429), nor the question's.
_ACCESS: Final = frozenset({"auth", "not_entitled"})
_ILL: Final = _ACCESS | {"vendor_error", "timeout", "bad_payload", "bad_bars", "provider_error"}
#: What becomes of the letters of an outage when it ends.
_REVIVED: Final = "once it has answered somebody, the gap scan revives by itself what the outage killed, twice a job"
_KILLED: Final = frozenset({"worker_lost", "time_limit"})
_LEAST_ATTEMPTS: Final = 3
#: An exchange that opened this long ago and has no bar of any series since did not trade.
_QUIET: Final = timedelta(minutes=30)
_LEAST_SERIES: Final = 3


def provider_failing(view: View) -> Iterator[Finding]:
    """Of a provider's attempts within five minutes, many failed by its own fault. Ranks above the letters it causes."""
    for provider, outcomes in _by_provider(view).items():
        total, failed, ill = _illness(outcomes)
        if failed >= _LEAST_ATTEMPTS and failed * 2 > total:
            evidence = (
                f"{failed:,} of {total:,} attempts within {NOW_MINUTES} min",
                *(_told(each) for each in ill[:3]),
            )
            words = _without(provider, ill[0], view)
            yield Finding(f"the provider {provider} fails", 0.7 + 0.25 * failed / total, Repair(words), evidence)


def _by_provider(view: View) -> Mapping[str, list[Outcome]]:
    by_provider: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in view.outcomes_now:
        if outcome.provider:
            by_provider[outcome.provider].append(outcome)
    return by_provider


def _illness(outcomes: list[Outcome]) -> tuple[int, int, list[Outcome]]:
    """Attempts, how many of them failed by the provider's fault, and those."""
    ill = [each for each in outcomes if each.error_class in _ILL]
    return sum(each.attempts for each in outcomes), sum(each.attempts for each in ill), ill


def _fails_now(provider: str, view: View) -> bool:
    """Whether what is sent to it now would most likely die again; a single attempt is enough to doubt."""
    names = set(provider.split(","))
    seen = [_illness(outcomes) for name, outcomes in _by_provider(view).items() if names & set(name.split(","))]
    return any(failed * 2 > total for total, failed, _ in seen)


def _told(outcome: Outcome) -> str:
    example = (outcome.example or "").partition("\n")[0][:160]
    return f"{outcome.attempts:,} {outcome.error_class}: {example}"


def _without(provider: str, worst: Outcome, view: View) -> str:
    if worst.error_class in _ACCESS:
        return f"renew its key for the stack, then: mdtasks dlq requeue --provider {provider}"
    others = [each for each in view.deps.registry.names() if each not in provider.split(",")]
    if not others:
        return f"there is no other provider: wait for it; {_REVIVED}"
    order = ",".join(others)
    until = f"POLICY_BARS_1M={order} POLICY_EOD={order} for the stack, and start it again"
    return f"wait for it; {_REVIVED}. If that takes long, leave it out until it is well: {until}"


def rate_limited(view: View) -> Iterator[Finding]:
    """A provider says that it is asked too often."""
    for outcome in view.outcomes:
        if outcome.error_class == "rate_limited" and outcome.attempts >= _LEAST_ATTEMPTS:
            words = "fewer at once: lower MDTASKS_CONCURRENCY for the stack; or more of its quota"
            cause = f"{outcome.provider or 'a provider'} limits the rate"
            yield Finding(cause, 0.55, Repair(words), (_told(outcome),))


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
        cause = f"jobs failed for good: {group['error_class']}{where}"
        yield Finding(cause, likelihood, _requeue(group, view), evidence)


def _ago(view: View, at: Any) -> str:
    return spoken(max((view.now - at).total_seconds(), 0.0))


def _requeue(group: Mapping[str, Any], view: View) -> Repair:
    error_class, provider = str(group["error_class"]), str(group["provider"]) or None
    if not group["task"].startswith("mdtasks."):  # poison: no job could be read out of it
        return Repair("look at one, and stop whoever sends it: mdtasks dlq list --kind others")
    words = f"when the cause is gone: mdtasks dlq requeue --error {error_class}"
    words += f" --provider {provider}" if provider else ""
    if provider and _fails_now(provider, view):
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

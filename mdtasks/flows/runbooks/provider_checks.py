"""Checks of those who bring the data: who fails, who is left aside and on what evidence, whom somebody forgot."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any, Final

from mdtasks.domain.health import ANSWERED, JUDGED, Circuit, Standing
from mdtasks.flows.runbooks.findings import Finding, Repair
from mdtasks.flows.runbooks.process_checks import spoken
from mdtasks.flows.runbooks.view import NOW_MINUTES, View
from mdtasks.store.evidence import Outcome

#: Errors that are a provider's own, not the load's (429), nor the question's.
_ACCESS: Final = frozenset({"auth", "not_entitled"})
_ILL: Final = _ACCESS | {"vendor_error", "timeout", "bad_payload", "bad_bars", "provider_error"}
#: What becomes of the letters of an outage when it ends.
_REVIVED: Final = "once it has answered somebody, the gap scan revives by itself what the outage killed, twice a job"
_LEAST_ATTEMPTS: Final = 3
#: A pause that is older was perhaps forgotten.
_FORGOTTEN: Final = timedelta(hours=24)
#: A demotion that is over is told of for so long.
_RECENT: Final = timedelta(hours=6)


def pause_words(provider: str) -> str:
    """What to type so that nobody asks a provider."""
    return f"mdtasks providers pause {provider} --reason '...'"


def provider_failing(view: View) -> Iterator[Finding]:
    """Of a provider's attempts within five minutes, many failed by its own fault. Ranks above the letters it causes."""
    for provider, outcomes in _by_provider(view).items():
        total, failed, ill = _illness(outcomes)
        if failed >= _LEAST_ATTEMPTS and failed * 2 > total:
            evidence = (
                f"{failed:,} of {total:,} attempts within {NOW_MINUTES} min",
                *(_outcome_line(each) for each in ill[:3]),
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


def fails_now(provider: str, view: View) -> bool:
    """Whether what is sent to it now would most likely die again; a single attempt is enough to doubt."""
    names = set(provider.split(","))
    seen = [_illness(outcomes) for name, outcomes in _by_provider(view).items() if names & set(name.split(","))]
    return any(failed * 2 > total for total, failed, _ in seen)


def _outcome_line(outcome: Outcome) -> str:
    example = (outcome.example or "").partition("\n")[0][:160]
    return f"{outcome.attempts:,} {outcome.error_class}: {example}"


def _without(provider: str, worst: Outcome, view: View) -> str:
    if worst.error_class in _ACCESS:
        return f"renew its key for the stack, then: mdtasks dlq requeue --provider {provider}"
    others = [each for each in view.deps.registry.names() if each not in provider.split(",")]
    if not others:
        return f"there is no other provider: wait for it; {_REVIVED}"
    until = pause_words(provider.split(",", maxsplit=1)[0])
    return f"wait for it; {_REVIVED}. If it lies, or each call is paid for, leave it aside: {until}"


def rate_limited(view: View) -> Iterator[Finding]:
    """A provider says that it is asked too often."""
    for outcome in view.outcomes:
        if outcome.error_class == "rate_limited" and outcome.attempts >= _LEAST_ATTEMPTS:
            words = "fewer at once: lower MDTASKS_CONCURRENCY for the stack; or more of its quota"
            cause = f"{outcome.provider or 'a provider'} limits the rate"
            yield Finding(cause, 0.55, Repair(words), (_outcome_line(outcome),))


def provider_demoted(view: View) -> Iterator[Finding]:
    """The breaker of a provider is not closed: since when, and by what the case file says it was decided."""
    for standing in view.standings:
        if standing.circuit is Circuit.CLOSED or standing.pause is not None:
            continue
        wait = f"in {standing.retry_in_s:.0f} s" if standing.retry_in_s else "now"
        words = f"wait: it may be probed {wait} and is promoted when it answers; see mdtasks providers {standing.name}"
        words += f". If it lies, or each call is paid for: {pause_words(standing.name)}"
        evidence = (standing.why_aside, *_case_lines(view, standing))
        yield Finding(f"{standing.name} is demoted", _weight(view), Repair(words), evidence)


def _weight(view: View) -> float:
    """How likely one that is aside is the cause: more when no other is left."""
    return 0.65 if any(not each.why_aside for each in view.standings) else 0.85


def _case_lines(view: View, standing: Standing) -> Iterator[str]:
    case = view.case_of(standing)
    if case is None:
        yield "its case is not on record yet"
    else:
        yield from _told_by(case)


def _told_by(case: Mapping[str, Any]) -> Iterator[str]:
    yield from case["arithmetic"][:-1]  # the last line is about the score
    samples = case["samples"]
    requests = [each["code"] for each in samples if each["code"] != JUDGED]
    codes = Counter(code for code in requests if code != ANSWERED)
    told = ", ".join(f"{count} {code}" for code, count in codes.most_common())
    yield f"of its {len(requests)} requests: {told or 'no error: it was slow, or its answers lacked much'}"
    doubted = max((each.get("disagreement", 0.0) for each in samples), default=0.0)
    if doubted > 0:
        yield f"it lies: another had bars in up to {doubted:.0%} of the time that it called silent"


def provider_promoted(view: View) -> Iterator[Finding]:
    """A provider that is well again was demoted within the last hours: perhaps what the alert was about."""
    for standing in view.standings:
        if standing.circuit is not Circuit.CLOSED or standing.pause is not None:
            continue
        newest = [each for each in view.transitions_of(standing.name) if each.kind in ("demoted", "promoted")]
        demoted = next((each for each in newest if each.kind == "demoted"), None)
        back = next((each for each in newest if each.kind == "promoted"), None)
        if demoted is None or back is None or back.at < demoted.at or back.at < view.now - _RECENT:
            continue
        times = f"from {demoted.at:%Y-%m-%d %H:%M:%S} to {back.at:%H:%M:%S} UTC"
        opened = back.case["opened"]
        words = f"nothing now; see mdtasks providers {standing.name}. If it comes back to this, tell the provider"
        evidence = (
            f"demoted {times}",
            *_told_by(demoted.case),
            f"left alone {opened} {'time' if opened == 1 else 'times'}",
        )
        yield Finding(f"{standing.name} was demoted and is well again", 0.2, Repair(words), evidence)


def provider_paused(view: View) -> Iterator[Finding]:
    """Somebody paused a provider; after a day, perhaps forgot it."""
    for standing in view.standings:
        pause = standing.pause
        if pause is None:
            continue
        age = view.now - pause.at
        evidence = (f"paused {spoken(age.total_seconds())} ago by {pause.by}: {pause.reason}",)
        repair = Repair(f"when its reason is gone: mdtasks providers resume {standing.name}")
        forgotten = age > _FORGOTTEN
        cause = f"{standing.name} is paused" + (", perhaps forgotten" if forgotten else "")
        yield Finding(cause, max(_weight(view), 0.8 if forgotten else 0.0), repair, evidence)

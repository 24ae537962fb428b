"""Checks of what runs: servers, workers, beat, the messages between them. Each yields what it finds, or nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from mdtasks.flows import dispatch
from mdtasks.flows.deps import Deps
from mdtasks.flows.policy_status import GRACE_S, Standing
from mdtasks.flows.runbooks.findings import Finding, Repair
from mdtasks.flows.runbooks.view import View
from mdtasks.queue.app import backfill_queue
from mdtasks.queue.letters import DLQ

_CONTROL: Final = "control"
_START_CONTROL: Final = "celery -A mdtasks worker -Q control,dlq -n control@%h --concurrency 1"
_START_ALL: Final = "mdtasks up, or on each machine: celery -A mdtasks worker -Q T0.live,T0 -n t0@%h, and so on"
#: Beat sends one message a second, each of which expires: more than so many wait only when nobody takes them.
_CONTROL_DEEP: Final = 20
#: Processes that are named one by one.
_SHOWN: Final = 5


def server_bad(view: View) -> Iterator[Finding]:
    """PostgreSQL or Redis is away, full, of another shape, or set so that it loses things."""
    for check in view.servers:
        if check.state == "bad":
            repair = Repair(check.todo or "mdtasks doctor")
            yield Finding(f"{check.part} cannot be used", 1.0, repair, (check.found,))


def workers_silent(view: View) -> Iterator[Finding]:
    """No worker lives, or a tier has work that nobody does."""
    if not view.heard:
        waiting = tuple(f"{queue} holds {depth:,}" for queue, depth in view.depths.items() if depth)
        yield Finding("no worker is alive", 0.95, Repair(_START_ALL), ("none was heard within 2.5 s", *waiting))
        return
    for tier, work in view.work.items():
        depth = view.depths[backfill_queue(tier)]
        if depth and not work.running:
            start = f"celery -A mdtasks worker -Q {tier}.live,{tier} -n {tier.lower()}@%h"
            seen = (f"{depth:,} wait and none runs", f"the oldest waits for {spoken(work.oldest_age_s)}")
            heard = f"heard: {', '.join(sorted(view.heard))}"
            yield Finding(f"no worker takes from the queue {tier}", 0.9, Repair(start), (*seen, heard))


def beat_silent(view: View) -> Iterator[Finding]:
    """The reconciler has not run: beat does not tick, or nobody serves its queue."""
    if view.proof_age_s <= dispatch.PROOF_LATE_S:
        return
    never = view.proof is None
    seen = "the reconciler has never run" if never else f"its last proof is {spoken(view.proof_age_s)} old"
    depth = view.depths[_CONTROL]
    if depth > _CONTROL_DEEP or (depth and not any(each.startswith(_CONTROL) for each in view.heard)):
        words = f"start a worker for it: {_START_CONTROL}"
        cause, evidence = "no worker serves the queue control", (seen, f"{depth:,} messages of beat wait in it")
    else:
        words = "start beat: mdtasks up, or celery -A mdtasks beat"
        cause, evidence = "beat does not tick", (seen, "no message of its waits in the queue control")
    yield Finding(cause, 0.85, Repair(f"{words}; a round of its work can be done here and now", _round), evidence)


def messages_lost(view: View) -> Iterator[Finding]:
    """Rows that count as queued have no message: the broker lost them."""
    if view.lost:
        evidence = (f"{view.lost:,} jobs count as queued, and the broker has no message of them",)
        words = "reconcile: what was lost is sent again"
        yield Finding("the broker lost messages", 0.9, Repair(words, _round), evidence)


def room_unused(view: View) -> Iterator[Finding]:
    """Deferred jobs are due and their queue has room: nobody dispatches."""
    places = {str(tier): view.deps.settings.cap(tier) - view.depths[backfill_queue(tier)] for tier in view.work}
    idle = {tier: work.due for tier, work in view.work.items() if work.due and places[tier] > 0}
    # A round a second sends them: they are stuck when the proof is late too, which the same beat asks for.
    if idle and view.proof_age_s > dispatch.PROOF_LATE_S:
        evidence = tuple(f"{tier}: {due:,} are due, room for {places[tier]:,}" for tier, due in idle.items())
        yield Finding("what is deferred is not sent", 0.8, Repair("dispatch: send what has room", _round), evidence)


def letters_stuck(view: View) -> Iterator[Finding]:
    """Letters wait on their way to the record."""
    depth = view.depths[DLQ]
    if depth:
        alive = [each for each in view.heard if each.startswith(_CONTROL)]
        seen = f"heard: {', '.join(sorted(view.heard)) or 'nobody'}"
        likelihood = 0.5 if alive else 0.9
        repair = Repair(f"start a worker for it: {_START_CONTROL}")
        yield Finding("nobody consumes the queue dlq", likelihood, repair, (f"{depth:,} letters wait", seen))


def monitor_silent(view: View) -> Iterator[Finding]:
    """The monitor of the objectives does not look, or was told not to."""
    every_s = view.deps.settings.slo_every_s
    if not every_s:
        yield Finding("the monitor is turned off", 1.0, Repair("SLO_EVERY_S=30 for the stack"), ("SLO_EVERY_S is 0",))
        return
    last = view.last_look
    age_s = float("inf") if last is None else (view.now - last).total_seconds()
    if age_s > 4 * every_s:
        seen = "no look within a week" if last is None else f"it last looked {spoken(age_s)} ago"
        repair = Repair("see why its task fails: mdtasks logs control")
        yield Finding("the monitor does not look", 0.6, repair, (seen, f"it should every {every_s:.0f} s"))


def web_silent(view: View) -> Iterator[Finding]:
    """The parts answer, so what cannot be read are the web app's metrics."""
    if all(check.state != "bad" for check in view.servers):
        words = "start it: mdtasks up, or uvicorn mdtasks.web.app:app; where it listens: mdtasks status"
        yield Finding("the web app cannot be reached", 0.7, Repair(words), ("PostgreSQL and Redis answer",))


def locks_held(view: View) -> Iterator[Finding]:
    """A session of PostgreSQL holds others up."""
    by_blocker: dict[int, list[Mapping[str, Any]]] = {}
    for row in view.blocked:
        by_blocker.setdefault(row["blocker"], []).append(row)
    for pid, rows in by_blocker.items():
        first = rows[0]
        held = f"{first['application'] or 'a session'} (pid {pid}, {first['state']}): {first['query']}"
        waits = f"{len(rows)} sessions wait for it, {spoken(max(float(row['waits_s'] or 0) for row in rows))} at most"
        repair = Repair(f"end it: select pg_terminate_backend({pid})")
        yield Finding("a session holds locks that others wait for", 0.95, repair, (held, waits))


def policy_refused(view: View) -> Iterator[Finding]:
    """Processes cannot follow the newest policy; those that say the same are one finding."""
    newest = view.policy.version.version
    by_reason: dict[str, list[Standing]] = {}
    for each in view.policy.behind:
        if each.state == "refuses":
            by_reason.setdefault(each.why, []).append(each)
    for why, standings in by_reason.items():
        kept = max(each.word.version for each in standings)
        words = (
            f"set right what it says where they run and start them again, or bring the version that they run back: "
            f'mdtasks policy rollback {kept} --reason "..."'
        )
        evidence = (f"they say: {why}", *_running(standings, view))
        yield Finding(f"{_counted(standings)} policy {newest}", 0.95, Repair(words), evidence)


def policy_lags(view: View) -> Iterator[Finding]:
    """Processes have looked since the newest policy was made, and run another one without a word of why."""
    standings = [each for each in view.policy.behind if each.state == "lags"]
    if standings:
        words = "compare its machine's clock with PostgreSQL's, see what it logs (mdtasks logs), and start it again"
        cause = f"{_counted(standings)} policy {view.policy.version.version}"
        yield Finding(cause, 0.8, Repair(words), _running(standings, view))


def _counted(standings: Sequence[Standing]) -> str:
    verb = {"refuses": ("refuses", "refuse"), "lags": ("lags behind", "lag behind")}[standings[0].state]
    if len(standings) == 1:
        return f"{standings[0].word.process} {verb[0]}"
    return f"{len(standings)} processes {verb[1]}"


def _running(standings: Sequence[Standing], view: View) -> tuple[str, ...]:
    """A line for each process, of the first few."""
    lines = []
    for word in (each.word for each in standings[:_SHOWN]):
        age_s = (view.now - word.seen).total_seconds()
        heard = (
            f"last heard {spoken(max(age_s, 0))} ago" if age_s > -GRACE_S else f"its clock is {spoken(-age_s)} ahead"
        )
        lines.append(f"{word.process} runs version {word.version}, {heard}")
    rest = len(standings) - len(lines)
    return (*lines, f"and {rest} more: mdtasks policy status") if rest else tuple(lines)


def _round(deps: Deps, actor: str) -> Mapping[str, Any]:
    """What beat asks for every few seconds: reconcile, then dispatch."""
    del actor
    proof = dispatch.reconcile_once(deps, datetime.now(UTC))
    return {"reconciled": proof.as_dict(), "dispatched": dispatch.dispatch_once(deps)}


def spoken(seconds: float) -> str:
    """A length of time in words: ``45 s``, ``12 min``, ``3 h``."""
    for unit, length_s in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length_s:
            return f"{seconds / length_s:.0f} {unit}"
    return f"{seconds:.0f} s"

"""What a scrape reads: the state as Redis and PostgreSQL tell it now, each asked once, cheaply and not for long."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from mdtasks.domain.errors import InvalidRequestError
from mdtasks.domain.health import Standing
from mdtasks.domain.jobs import Interval, Tier
from mdtasks.flows import monitor, policy_watch, presence, providers
from mdtasks.flows.deps import Deps
from mdtasks.flows.dispatch import Proof, last_proof
from mdtasks.flows.policy_status import standing
from mdtasks.observe import metrics
from mdtasks.observe.metrics import Reading
from mdtasks.queue.app import backfill_queue
from mdtasks.queue.letters import DLQ
from mdtasks.store import canaries, gaps, outbox, policies, reference, snapshots
from mdtasks.store.canaries import Canary
from mdtasks.store.policies import Version
from mdtasks.store.snapshots import Snapshot
from mdtasks.web.calendars import read_horizons
from mdtasks.web.looks import PARTS, Look, Waiting, look, proof_age_s, read_depths, read_intake, read_waiting


@dataclass(frozen=True, slots=True)
class Word:
    """What is left in Redis by those who work: times are seconds since 1970, None: never."""

    proof: Proof | None
    monitored_at: float | None
    ticked_at: float | None
    workers: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Rows:
    """What PostgreSQL tells of the backlog, of the newest looks at the objectives, of gaps, and of the policy.

    ``members``: how many series of each tier there are per exchange. ``policy``: the version that holds; ``canary``:
    the one that a tier tries.
    """

    waiting: Mapping[Tier, Waiting]
    newest: Sequence[Snapshot]
    gaps: Mapping[tuple[Tier, Interval], int]
    members: Mapping[Tier, Mapping[str, int]]
    policy: Version
    canary: Canary | None
    replay: outbox.Pending


async def look_for_scrape(deps: Deps, now: datetime) -> Look:
    """All that a scrape needs."""
    return await look(
        deps,
        broker=read_depths,
        redis=partial(read_word, now=now),
        providers=providers.standings,
        postgresql=partial(read_rows, now=now),
        following=partial(read_following, now=now),
        calendars=partial(read_markets, now=now),
        horizons=read_horizons,
        intake=read_intake,
    )


def read_word(deps: Deps, now: datetime) -> Word:
    """What workers, beat and housekeeping left. Raises BrokerUnavailableError."""
    return Word(
        proof=last_proof(deps),
        monitored_at=monitor.last_run(deps),
        ticked_at=presence.last_tick(deps.state),
        workers=presence.workers_seen(deps.state, now),
    )


def read_rows(deps: Deps, now: datetime) -> Rows:
    """What PostgreSQL tells. Raises UnavailableError as ``read_waiting`` does."""
    waiting = read_waiting(deps)
    with deps.database.transaction() as connection:
        newest = monitor.newest(connection, deps.settings, now)
        kept = dict.fromkeys(((tier, interval) for tier in Tier for interval in deps.settings.kept(tier)), 0)
        return Rows(
            waiting,
            newest,
            kept | gaps.open_count(connection),
            snapshots.population(connection, now),
            policies.newest(connection),
            canaries.being_tried(connection),
            outbox.pending(connection),
        )


def read_following(deps: Deps, now: datetime) -> list[policy_watch.Word]:
    """Which process runs which version of the policy. Raises BrokerUnavailableError."""
    return policy_watch.words(deps.state, now)


def read_markets(deps: Deps, now: datetime) -> dict[str, bool]:
    """Which exchanges of the universe trade; one whose calendar has ended is absent. Raises StoreUnavailableError."""
    deps.watch.refresh(now)
    with deps.database.transaction() as connection:
        mics = reference.exchanges(connection, day=now.date())
    found: dict[str, bool] = {}
    for mic in mics:
        try:
            found[mic] = deps.calendars.get(mic).is_open(now)
        except InvalidRequestError:
            continue  # doctor and the horizon's gauge tell of it
    return found


def readings(found: Look, now: datetime) -> Iterator[Reading]:
    """The gauges of a look: what a part did not say is left out, never shown as 0."""
    for part in (part for part in (*found.answers, *found.errors) if part in PARTS):
        yield Reading(metrics.UP, float(part in found.answers), {"part": part})
    depths: dict[str, int] | None = found.of("broker")
    if depths is not None:
        for tier in Tier:
            yield Reading(metrics.BACKFILL_QUEUE_DEPTH, depths[backfill_queue(tier)], {"tier": tier})
        yield Reading(metrics.DLQ_DEPTH, depths[DLQ], {})
    if found.of("redis") is not None:
        yield from _of_word(found.of("redis"), now)
    rows: Rows | None = found.of("postgresql")
    if rows is not None:
        yield from _of_rows(rows, found.of("calendars"))
    yield from _of_policy(found.of("following"), rows)
    yield from _of_providers(found.of("providers") or ())
    for name, depth in (found.of("intake") or {}).items():
        yield Reading(metrics.INTAKE_DEPTH, depth, {"list": name})
    for mic, trades in (found.of("calendars") or {}).items():
        yield Reading(metrics.MARKET_OPEN, float(trades), {"mic": mic})
    for mic, days in (found.of("horizons") or {}).items():
        yield Reading(metrics.CALENDAR_HORIZON, days, {"mic": mic})


def _of_word(word: Word, now: datetime) -> Iterator[Reading]:
    if word.proof is not None:
        yield Reading(metrics.RECONCILER_PROOF_AGE, proof_age_s(word.proof, now), {})
    if word.monitored_at is not None:
        yield Reading(metrics.SLO_MONITOR_LAST_RUN, word.monitored_at, {})
    if word.ticked_at is not None:
        yield Reading(metrics.BEAT_LAST_TICK, word.ticked_at, {})
    for node, seen_at in word.workers.items():
        yield Reading(metrics.WORKERS_LAST_SEEN, seen_at, {"node": node})


def _of_policy(words: Sequence[policy_watch.Word] | None, rows: Rows | None) -> Iterator[Reading]:
    for word in words or ():
        yield Reading(metrics.POLICY_VERSION, word.version, {"process": word.process})
    if rows is None:
        return
    newest, canary = rows.policy, rows.canary
    if canary is not None:
        yield Reading(metrics.POLICY_CANARY, canary.version, {"tier": canary.tier})
    yield Reading(metrics.POLICY_NEWEST_VERSION, newest.version, {})
    if newest.created_at is not None:
        yield Reading(metrics.POLICY_LAST_RELOAD, newest.created_at.timestamp(), {})
    if words is not None:
        behind = any(standing(word, newest, canary).is_behind for word in words)
        yield Reading(metrics.POLICY_RELOAD_SUCCESS, float(not behind), {})


def _of_providers(standings: Sequence[Standing]) -> Iterator[Reading]:
    for each in standings:
        labels = {"provider": each.name}
        yield Reading(metrics.PROVIDER_HEALTH, each.score, labels)
        yield Reading(metrics.CIRCUIT_STATE, each.circuit_gauge, labels)
        if each.budget is not None:
            yield Reading(metrics.PROVIDER_BUDGET, each.budget, labels)


def _of_rows(rows: Rows, trades: Mapping[str, bool] | None) -> Iterator[Reading]:
    yield Reading(metrics.REPLAY_PENDING, rows.replay.rows, {})
    yield Reading(metrics.REPLAY_OLDEST_AGE, rows.replay.oldest_age_s, {})
    for tier, waiting in rows.waiting.items():
        yield Reading(metrics.BACKFILL_DEFERRED, waiting.deferred, {"tier": tier})
        yield Reading(metrics.BACKFILL_OLDEST_AGE, waiting.oldest_age_s, {"tier": tier})
    for (tier, interval), count in rows.gaps.items():
        yield Reading(metrics.GAPS_OPEN, count, {"tier": tier, "interval": interval})
    for snapshot in rows.newest:
        labels = {"tier": snapshot.series.tier, "interval": snapshot.series.interval}
        if snapshot.series.objective == "coverage":
            yield Reading(metrics.SLO_COVERAGE, 1 - snapshot.rate, labels)
            continue
        # The last look before the close is still new: it is not told once all exchanges of the tier are shut.
        if trades is not None and not any(trades.get(mic) for mic in rows.members[snapshot.series.tier]):
            continue
        yield Reading(metrics.SLO_GAP_RATE, snapshot.rate, labels)
        if snapshot.lag_s is not None:
            yield Reading(metrics.INGESTION_LAG, snapshot.lag_s, labels)

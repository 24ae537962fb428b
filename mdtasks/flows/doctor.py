"""The examination behind `mdtasks doctor`: each part of the system, what was found, and what to do when it is bad.

Every check answers, also when its part is broken: a doctor who faints helps nobody.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, Literal

import orjson
from sqlalchemy import text

from mdtasks.connections import translated_redis_errors
from mdtasks.domain.errors import PROVIDER_SETTINGS, MdtasksError, UnavailableError
from mdtasks.domain.known_sessions import verify
from mdtasks.flows.deps import Deps
from mdtasks.flows.dispatch import PROOF_LATE_S, last_proof
from mdtasks.flows.provider_reports import why_aside
from mdtasks.queue import backlog
from mdtasks.store import evidence, job_reports, letters
from mdtasks.store.reference import Instrument, instruments
from mdtasks.store.schema import current_revision, head_revision

#: Celery's workers say that they are alive every 2 seconds, on this channel of the broker's database.
_HEARTBEATS: Final = "/{db}.celeryev/worker.heartbeat"
_HEARTBEAT_EVERY_S: Final = 2.0
_SKEW_S: Final = 2.0
#: Longer than any of ours keeps others waiting, but for one who makes a universe of ten thousand hold.
_WAITS_S: Final = 5.0
#: A calendar that ends within this is to be renewed: vendors of calendars publish the next year in its last months.
_HORIZON_NEAR: Final = timedelta(days=60)
_AWAY: Final = "does it run, and is its URL right? `mdtasks status`, `mdtasks logs postgres`, `mdtasks logs redis`"

State = Literal["ok", "warn", "bad"]


@dataclass(frozen=True, slots=True)
class Check:
    """What was found of one part; ``todo`` says what to do when it is not ok."""

    part: str
    state: State
    found: str
    todo: str = ""

    def as_dict(self) -> dict[str, str]:
        return dict(asdict(self))


def examine_calendars(deps: Deps) -> Check:
    """Whether the calendar library still knows the sessions it should."""

    def verified() -> tuple[State, str, str]:
        verify(deps.calendars)
        return "ok", "known sessions are as they were", ""

    return checked("calendars", verified)


def examine_services(deps: Deps, now: datetime) -> Iterator[Check]:
    """PostgreSQL, Redis, workers, beat, providers. Takes about 2.5 s, in which it hears the workers.

    What leans on a server that is away is not looked at: its finding would be the same.
    """
    servers = examine_servers(deps)
    yield from servers
    store_answers, broker_answers = (_answers(server) for server in servers)
    if store_answers and broker_answers:
        yield checked("clocks", lambda: _clocks(deps))
    if broker_answers:
        yield checked("workers", lambda: _workers(deps))
        yield checked("beat", lambda: _beat(deps, now))
    if store_answers:
        yield checked("locks", lambda: _locks(deps))
        yield checked("jobs", lambda: _jobs(deps))
        yield checked("dead letters", lambda: _letters(deps))
        yield examine_horizons(deps, now)
    yield from _providers(deps)


def examine_servers(deps: Deps) -> list[Check]:
    """PostgreSQL and Redis, in this order."""
    return [checked("postgres", lambda: _postgres(deps)), checked("redis", lambda: _redis(deps))]


def _answers(server: Check) -> bool:
    return server.todo != _AWAY


def checked(part: str, examine: Callable[[], tuple[State, str, str]]) -> Check:
    """One check: whatever goes wrong in it is its finding."""
    try:
        return Check(part, *examine())
    except UnavailableError as error:
        return Check(part, "bad", error.message, _AWAY)
    except MdtasksError as error:
        return Check(part, "bad", error.message, error.hint)
    except Exception as error:
        said = str(error).partition("\n")[0]
        return Check(part, "bad", f"{type(error).__name__}: {said}", "this was not foreseen: see `mdtasks logs`")


def _postgres(deps: Deps) -> tuple[State, str, str]:
    with deps.database.transaction() as connection:
        version = str(connection.execute(text("SHOW server_version")).scalar_one()).split()[0]
        size = int(connection.execute(text("SELECT pg_database_size(current_database())")).scalar_one())
    revision, head = current_revision(deps.database), head_revision()
    found = f"PostgreSQL {version}, {size / 1e6:,.0f} MB, revision {revision or 'none'}"
    if revision != head:
        return "bad", f"{found}, this version needs {head}", "run `mdtasks migrate`"
    if int(version.split(".")[0]) < 14:
        return "bad", found, "multiranges need PostgreSQL 14 or newer"
    return "ok", found, ""


def _redis(deps: Deps) -> tuple[State, str, str]:
    with translated_redis_errors():
        about: dict[str, Any] = deps.broker.info()
    policy, used, most = about.get("maxmemory_policy"), int(about["used_memory"]), int(about.get("maxmemory") or 0)
    limit = f" of {most / 1e6:,.0f}" if most else ""
    name = f"Valkey {about['valkey_version']}" if "valkey_version" in about else f"Redis {about['redis_version']}"
    on_disk = bool(int(about.get("aof_enabled", 0)))
    found = f"{name}, {used / 1e6:,.0f}{limit} MB, {policy}, append-only file {'on' if on_disk else 'off'}"
    if policy != "noeviction":
        return "bad", found, "set maxmemory-policy noeviction: any other drops queues when memory is short"
    if most and used > most * 0.9:
        return "bad", found, "give it more memory, or lower the caps (BACKFILL_MAX_QUEUE_T0 ...)"
    if about.get("aof_last_write_status", "ok") != "ok":
        return "bad", f"{found}, which cannot be written", "is its disk full? see `mdtasks logs redis`"
    if not on_disk:
        return "warn", found, "set appendonly yes: after a crash the reconciler must send everything again"
    return "ok", found, ""


def _clocks(deps: Deps) -> tuple[State, str, str]:
    before = time.time()
    with translated_redis_errors():
        seconds, micros = deps.broker.time()
    with deps.database.transaction() as connection:
        theirs = connection.execute(text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one()
    here = (before + time.time()) / 2
    skews = {"Redis": seconds + micros / 1e6 - here, "PostgreSQL": float(theirs) - here}
    found = ", ".join(f"{name} {skew:+.2f} s" for name, skew in skews.items()) + " from here"
    late = max(map(abs, skews.values())) > _SKEW_S
    return "warn" if late else "ok", found, "set the clocks by NTP: leases and settle delays go by them" if late else ""


def _workers(deps: Deps) -> tuple[State, str, str]:
    heard = heard_workers(deps)
    depths = backlog.depths(deps.broker)
    waiting = ", ".join(f"{queue} {depth:,}" for queue, depth in depths.items() if depth)
    found = (", ".join(sorted(heard)) or "none") + (f"; waiting: {waiting}" if waiting else "; no queue holds anything")
    if not heard:
        return "bad", found, "start them: `mdtasks up`, or `celery -A mdtasks worker -Q T0.live,T0 -n t0@%h` and so on"
    return "ok", found, ""


def heard_workers(deps: Deps) -> set[str]:
    """The workers that say within 2.5 s, more than a heartbeat, that they are alive. Raises BrokerUnavailableError."""
    heard: set[str] = set()
    with translated_redis_errors():
        database = deps.broker.connection_pool.connection_kwargs.get("db", 0)
        with deps.broker.pubsub(ignore_subscribe_messages=True) as channel:  # type: ignore[no-untyped-call]
            channel.subscribe(_HEARTBEATS.format(db=database))
            until = time.monotonic() + 1.25 * _HEARTBEAT_EVERY_S
            while (left_s := until - time.monotonic()) > 0:
                message = channel.get_message(timeout=left_s)
                if message is not None:
                    heard.add(str(orjson.loads(message["data"])["headers"]["hostname"]))
    return heard


def _beat(deps: Deps, now: datetime) -> tuple[State, str, str]:
    todo = "is beat alive, and a worker on the queue `control`? `mdtasks status`, `mdtasks logs beat`"
    proof = last_proof(deps)
    if proof is None:
        return "bad", "the reconciler has never run", todo
    age_s = max((now - datetime.fromisoformat(proof.at)).total_seconds(), 0.0)
    found = f"reconciled {age_s:.0f} s ago: {proof.lost} lost, {proof.doubled} doubled, {proof.orphans} orphans"
    return ("bad", found, todo) if age_s > PROOF_LATE_S else ("ok", found, "")


def _jobs(deps: Deps) -> tuple[State, str, str]:
    with deps.database.transaction() as connection:
        waiting = job_reports.backlog(connection)
        failed = len(job_reports.list_jobs(connection, status="failed", limit=10_000))
    shown = [f"{each.tier} {each.jobs:,} {each.status}" for each in waiting]
    if failed:
        todo = "`mdtasks dlq groups` says why they failed, `mdtasks dlq requeue` sends them again"
        return "warn", ", ".join([*shown, f"{failed:,}{'+' if failed == 10_000 else ''} failed"]), todo
    return "ok", ", ".join(shown) or "nothing waits, nothing failed", ""


def _locks(deps: Deps) -> tuple[State, str, str]:
    """Whoever waits for a lock for so long waits for somebody who forgot a transaction, or whose host is gone."""
    with deps.database.transaction() as connection:
        long = [each for each in evidence.blocked(connection) if (each["waits_s"] or 0) > _WAITS_S]
    if not long:
        return "ok", "nobody waits for one", ""
    by = long[0]
    found = (
        f"{len(long):,} waiting in PostgreSQL for up to {max(each['waits_s'] for each in long):,.0f} s, for process"
        f" {by['blocker']} ({by['application'] or 'of no name'}, {by['state']} for {by['holds_s'] or 0:,.0f} s)"
    )
    return "warn", found, f"where it is forgotten, `select pg_terminate_backend({by['blocker']})` undoes what it did"


def _letters(deps: Deps) -> tuple[State, str, str]:
    """Findings about what is stored are among them, of which no job says anything."""
    with deps.database.transaction() as connection:
        kinds = letters.kinds(connection)
    if not kinds:
        return "ok", "none is open", ""
    named = {kind: f"{count:,} {kind}" for kind, count in kinds.items()}
    if (findings := kinds.get(letters.FINDING)) is not None:  # the console's word for what no job died of
        named[letters.FINDING] = f"{findings:,} finding" + ("s" if findings > 1 else "")
    found = f"{sum(kinds.values()):,} open: {', '.join(named.values())}"
    return "warn", found, "`mdtasks dlq list` shows them, `mdtasks dlq groups` counts them by cause"


def examine_horizons(deps: Deps, now: datetime) -> Check:
    """Whether the calendars of the instruments in the universe reach far enough: past their end nothing is fetched."""

    def reach() -> tuple[State, str, str]:
        with deps.database.transaction() as connection:
            known = list(instruments(connection))
        traded = [each for each in known if not _delisted(each, now)]
        ends = {mic: deps.calendars.get(mic).horizon for mic in sorted({each.mic for each in traded})}
        if not ends:
            why = "every instrument of the universe is delisted" if known else "the universe is empty"
            return "ok", f"{why}: no exchange's sessions are needed", ""
        near = [f"{mic} until {end:%Y-%m-%d}" for mic, end in ends.items() if end < now + _HORIZON_NEAR]
        if near:
            todo = "install a newer exchange_calendars before then: past it these exchanges' sessions are not known"
            return "warn", f"sessions are known of {', '.join(near)}", todo
        return "ok", f"of {len(ends)} exchanges sessions are known for {_HORIZON_NEAR.days} days and more", ""

    return checked("horizons", reach)


def _delisted(instrument: Instrument, now: datetime) -> bool:
    return instrument.delisted_on is not None and instrument.delisted_on <= now.date()


def _providers(deps: Deps) -> Iterator[Check]:
    if not (names := deps.registry.names()):
        todo = f"set {PROVIDER_SETTINGS} for the stack, and start it again"
        yield Check("providers", "bad", "none is configured: nothing can be fetched", todo)
    aside = why_aside(deps)
    for name in names:
        yield checked(f"provider {name}", partial(_provider, deps, name, aside.get(name, "")))


def _provider(deps: Deps, name: str, aside: str) -> tuple[State, str, str]:
    words = "; ".join(filter(None, (deps.registry.get(name).check(), aside)))
    return ("warn", words, f"`mdtasks providers {name}` shows the case") if aside else ("ok", words, "")

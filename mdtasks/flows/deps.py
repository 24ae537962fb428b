"""What the flows work with: one frozen value per process, built after the fork, never at import."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from mdtasks.connections import Database, Redis, open_redis
from mdtasks.domain.errors import UnavailableError
from mdtasks.domain.health import Rules
from mdtasks.domain.jobs import Tier
from mdtasks.domain.sessions import Calendars
from mdtasks.domain.slowness import SlowRule
from mdtasks.flows.calendars import CalendarWatch
from mdtasks.flows.policy_watch import PolicyWatch, Running, process_name
from mdtasks.observe.metrics import use_multiprocess_dir
from mdtasks.observe.traces import Recorder
from mdtasks.providers.registry import Registry
from mdtasks.queue.app import current_app, make_app
from mdtasks.queue.coordinator import Coordinator, open_coordinator
from mdtasks.queue.enqueue import Enqueuer
from mdtasks.settings import Settings, load_settings, policy_variables, under
from mdtasks.store.calendars import KeptCalendars
from mdtasks.store.gates import SharedGate
from mdtasks.store.health import PROBE_S, HealthBook
from mdtasks.store.replay import ReplayBuffer

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Deps:
    """The adapters of one process. ``broker`` is the Redis of the queues, ``state`` that of shared state; ``watch``
    keeps ``calendars`` current and ``policy`` itself: ask them to where a piece of work begins.
    """

    settings: Settings
    database: Database
    broker: Redis
    state: Redis
    registry: Registry
    calendars: Calendars
    enqueuer: Enqueuer
    watch: CalendarWatch
    health: HealthBook
    #: Watches for a newer policy; ``running`` is the one that these Deps were made under.
    policy: PolicyWatch
    running: Running
    replay: ReplayBuffer
    #: The outside coordinator's lists; None where there is none.
    coordinator: Coordinator | None = None
    #: Of slow provider calls; None where it is switched off.
    recorder: Recorder | None = None

    def close(self) -> None:
        """Close the pools. Whatever is used again opens a new connection."""
        self.policy.close()
        self.database.close()
        self.broker.close()
        self.state.close()
        if self.coordinator is not None:
            self.coordinator.close()


def open_deps(settings: Settings | None = None, *, application: str = "mdtasks", serves: Tier | None = None) -> Deps:
    """Deps for these settings (default: this process's own) of a process that runs the jobs of one tier, or (None) not
    only of one. Connects at first use, not here.

    A process that works by its own settings counts its metrics for the stack from now on.
    """
    app = current_app() if settings is None else make_app(settings)
    if settings is None:
        settings = load_settings()
        use_multiprocess_dir(settings.metrics_dir)
    calendars = Calendars(KeptCalendars(settings.calendars_dir))
    broker = open_redis(settings.require_broker_url())
    database = Database(settings.require_database_url(), application=application)
    state = open_redis(settings.require_redis_url())
    policy = PolicyWatch(database, state, policy_variables(settings), process=process_name(application), serves=serves)
    health, registry = _asking(settings, calendars, state)
    return Deps(
        settings=settings,
        database=database,
        broker=broker,
        state=state,
        health=health,
        registry=registry,
        calendars=calendars,
        enqueuer=Enqueuer(app, broker, settings),
        watch=CalendarWatch(database, calendars, settings),
        policy=policy,
        running=policy.current,
        replay=_buffer(settings, state),
        coordinator=open_coordinator(settings) if settings.use_rlc else None,
        recorder=open_recorder(settings),
    )


def _asking(settings: Settings, calendars: Calendars, state: Redis) -> tuple[HealthBook, Registry]:
    """The providers, and their health, under these settings."""
    health = HealthBook(state, rules(settings), max(PROBE_S, 2 * settings.vendor_timeout_s))
    return health, Registry(settings, calendars, lambda name, rates: SharedGate(name, rates, health))


def _buffer(settings: Settings, state: Redis) -> ReplayBuffer:
    return ReplayBuffer(state, settings.replay_max_bars, settings.replay_ttl_s)


def equipped(deps: Deps, running: Running) -> dict[str, Any]:
    """The fields of Deps that are others under another policy. Raises ConfigurationError where this process cannot work
    by it; the caps of the broker's transport are set when nothing else can fail.
    """
    settings = under(deps.settings, running.policy)
    health, registry = _asking(settings, deps.calendars, deps.state)
    traced = [getattr(each, name) for each in (deps.settings, settings) for name in _TRACING]
    same = traced[: len(_TRACING)] == traced[len(_TRACING) :]
    return {
        "settings": settings,
        "health": health,
        "registry": registry,
        "recorder": deps.recorder if same else open_recorder(settings),
        "enqueuer": deps.enqueuer.under(settings),
        "running": running,
        "replay": _buffer(settings, deps.state),
    }


#: Settings by which the recorder of slow calls is made.
_TRACING: Final = tuple(name for name in Settings.model_fields if name.startswith("viztracer"))


def open_recorder(settings: Settings) -> Recorder | None:
    """The recorder of a process with these settings; None where it is switched off. VizTracer is not imported yet."""
    if not settings.viztracer_enabled:
        return None
    # Without room for a single trace none is made.
    sample = settings.viztracer_sample if settings.viztracer_keep else 0.0
    return Recorder(SlowRule(settings.viztracer_slow_s, settings.viztracer_slow_p95), sample)


def rules(settings: Settings) -> Rules:
    """By which providers are demoted and promoted."""
    return Rules(
        settings.demote_threshold, settings.promote_threshold, settings.promote_min_samples, settings.breaker_cooldown_s
    )


#: A server that restarts is usually back within this; a worker waits for it rather than burn through its queue.
PATIENCE_S: Final = 45.0
#: What a task keeps of its time limit, seconds, to end by itself after it has waited.
_RESERVE_S: Final = 2.0


def work_until(settings: Settings) -> float:
    """Until when, by ``time.monotonic()``, a task that begins now may go on to its next call: half of its time limit.

    A call may take the other half, with waits for its provider's rate.
    """
    return time.monotonic() + settings.time_limit_s / 2


def patience_s(began: float, settings: Settings) -> float:
    """Seconds that a task which began at ``began`` (``time.monotonic()``) may go on waiting for a server.

    It gives up before its hard limit: killed there, it would seem to be at fault itself.
    """
    return min(PATIENCE_S, began + settings.time_limit_s - _RESERVE_S - time.monotonic())


def patiently(work: Callable[[], T], *, for_s: float = PATIENCE_S) -> T:
    """Do ``work``; while a server is away, do it again with growing pauses, up to ``for_s`` seconds in all.

    ``work`` must be safe to repeat. Raises the last UnavailableError when the server did not come back.
    """
    deadline = time.monotonic() + for_s
    pause_s = 0.2
    while True:
        try:
            return work()
        except UnavailableError:
            if time.monotonic() + pause_s > deadline:
                raise
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, 3.0)

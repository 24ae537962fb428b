"""The Celery app and its queue table. Imports no task code: Celery loads ``mdtasks.worker`` by name.

``mdtasks.app`` (what ``celery -A mdtasks`` finds) is ``app`` here, made from this process's settings at first use.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import kombu
from celery import Celery
from celery.app import amqp
from kombu import Exchange, Queue

from mdtasks.domain.jobs import Tier
from mdtasks.queue.letters import DLQ
from mdtasks.settings import Settings, load_settings

#: The queue of beat's housekeeping.
CONTROL: Final = "control"


def live_queue(tier: Tier) -> str:
    """The queue of a tier's live fetches, served before its backfills."""
    return f"{tier}.live"


def backfill_queue(tier: Tier) -> str:
    """The queue of a tier's backfills, capped."""
    return str(tier)


#: Every queue there is; the transport caps the backfill ones.
QUEUES: Final = (*(name for tier in Tier for name in (live_queue(tier), backfill_queue(tier))), CONTROL, DLQ)


class Connection(kombu.Connection):
    """A broker connection that names itself by the URL it was given, not by its transport's class: Flower chooses by
    the scheme how to read the lengths of queues.
    """

    def as_uri(self, *args: Any, **kwargs: Any) -> str:
        _, _, rest = super().as_uri(*args, **kwargs).partition("://")
        return f"{'rediss' if self.ssl else 'redis'}://{rest}"


class AMQP(amqp.AMQP):
    """Celery's messaging with our connection."""

    Connection = Connection


def make_app(settings: Settings) -> Celery:
    """A Celery app for these settings. It connects at its first message, not here."""
    app = Celery("mdtasks", set_as_current=True, amqp=AMQP)
    app.config_from_object("mdtasks.celeryconfig")
    app.conf.update(
        broker_url=settings.require_broker_url(),
        broker_transport="mdtasks.queue.transport:Transport",
        broker_transport_options=_transport_options(settings),
        redbeat_redis_url=settings.require_redis_url(),
        task_queues=[Queue(name, Exchange(""), routing_key=name) for name in QUEUES],
        task_time_limit=settings.time_limit_s,
    )
    return app


def _transport_options(settings: Settings) -> dict[str, Any]:
    return {
        "caps": _caps(settings),
        # Past the lease: a message comes back only after its claim has ended, and then finds nothing to claim.
        "visibility_timeout": settings.lease_s * 1.5,
        # kombu's own sweep is every ~100 s; work of a lost worker should be back within seconds.
        "unacked_restore_interval": 5,
        "unacked_restore_throttle": 1,
        # A frozen Redis is noticed: answers are awaited for 15 s (BRPOP itself waits 1 s), connects for 3 s.
        "socket_timeout": 15,
        "socket_connect_timeout": 3,
        "socket_keepalive": True,
        "health_check_interval": 10,
        # Queues in the order of -Q: a tier's live queue before its backfills.
        "queue_order_strategy": "priority",
    }


def served_tier(app: Celery) -> Tier | None:
    """The tier whose queues a worker was started with (``-Q T0.live,T0``); None where there are others among them."""
    taken = set(app.amqp.queues.consume_from)
    served = [tier for tier in Tier if taken & {live_queue(tier), backfill_queue(tier)}]
    return served[0] if len(served) == 1 and taken <= {live_queue(served[0]), backfill_queue(served[0])} else None


def cap_queues(app: Celery, settings: Settings) -> None:
    """Set the caps that the app's channels hold, those that are open too: they share one mapping."""
    app.conf.broker_transport_options["caps"].update(_caps(settings))


def _caps(settings: Settings) -> dict[str, int]:
    return {backfill_queue(tier): settings.cap(tier) for tier in Tier}


@cache
def current_app() -> Celery:
    """The app of this process's own settings."""
    return make_app(load_settings())


def __getattr__(name: str) -> Celery:
    if name == "app":
        return current_app()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

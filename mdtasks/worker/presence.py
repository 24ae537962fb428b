"""The word that a worker leaves of itself: with its heartbeats, but not too often, and never at a cost."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

from mdtasks.connections import Redis
from mdtasks.domain.errors import MdtasksError
from mdtasks.flows import presence

log = logging.getLogger(__name__)

#: Celery's heart beats every 2 s; word is left this often, seconds.
EVERY_S: Final = 10.0


class Presence:
    """One process' word. ``connect`` is called at the first heartbeat, in the process that sends it.

    Heartbeats come from the loop that also takes messages: a Redis that does not answer holds it up for a second at
    most every EVERY_S.
    """

    def __init__(self, connect: Callable[[], Redis]) -> None:
        self._connect = connect
        self._state: Redis | None = None
        self._again_at = 0.0

    def alive(self, node: str) -> None:
        """Leave word of the node, unless that was done a moment ago."""
        if time.monotonic() < self._again_at:
            return
        self._again_at = time.monotonic() + EVERY_S
        try:
            self._state = self._state or self._connect()
            presence.worker_seen(self._state, node, datetime.now(UTC))
        except MdtasksError as error:
            log.warning("%s could not leave word that it lives: %s", node, error)

    def left(self, node: str) -> None:
        """Take the node off the list. When that fails it is missed for a day, which is no reason to stay."""
        with suppress(MdtasksError):
            self._state = self._state or self._connect()
            presence.worker_left(self._state, node)
            self._state.close()

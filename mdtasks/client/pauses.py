"""How long a client waits before it connects again."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from typing import Final

from mdtasks.domain.jobs import pause_after

log = logging.getLogger(__name__)

#: Who is told that a connection is lost, with why and the seconds until the next attempt.
OnLost = Callable[[Exception, float], None]
#: The first pause, and the longest, seconds.
_PAUSES_S: Final = (0.2, 10.0)


class Pauses:
    """Growing pauses, each between half and the whole of what it might be: clients that were cut off together do not
    come back together.
    """

    def __init__(self, draw: Callable[[], float] | None = None) -> None:
        # Numbers of its own: those of a program that has seeded `random` must not depend on its connections.
        self._draw = random.Random().random if draw is None else draw  # noqa: S311 - spreads load, protects nothing
        self._failures = 0

    def next_s(self) -> float:
        """Seconds to wait now, after a connection that was lost or not had."""
        self._failures += 1
        base_s, max_s = _PAUSES_S
        return pause_after(self._failures, base_s=base_s, max_s=max_s, jitter=self._draw())

    def after(self, lost: Exception, url: str, on_lost: OnLost | None) -> float:
        """Seconds to wait now, as ``next_s``, once ``on_lost`` was told; without it a warning tells of the loss."""
        pause_s = self.next_s()
        level = logging.WARNING if on_lost is None else logging.INFO
        log.log(level, "the stream of %s is lost: %s; again in %.1f s", url, lost, pause_s)
        if on_lost is not None:
            on_lost(lost, pause_s)
        return pause_s

    def reset(self) -> None:
        """The server has spoken: begin with the shortest again."""
        self._failures = 0

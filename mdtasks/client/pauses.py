"""How long a client waits before it connects again."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from mdtasks.domain.jobs import pause_after

#: The first pause, and the longest, seconds.
_PAUSES_S: Final = (0.2, 10.0)


class Pauses:
    """Growing pauses, each between half and the whole of what it might be: clients that were cut off together do not
    come back together.
    """

    def __init__(self, draw: Callable[[], float] = random.random) -> None:
        self._draw = draw
        self._failures = 0

    def next_s(self) -> float:
        """Seconds to wait now, after a connection that was lost or not had."""
        self._failures += 1
        base_s, max_s = _PAUSES_S
        return pause_after(self._failures, base_s=base_s, max_s=max_s, jitter=self._draw())

    def reset(self) -> None:
        """The server has spoken: begin with the shortest again."""
        self._failures = 0

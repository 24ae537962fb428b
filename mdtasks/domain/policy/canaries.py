"""When a policy that one tier's workers try holds everywhere, and when it is taken back. Pure.

A canary is judged by the attempts that were made under it, beside those under the policy that held meanwhile and just
before: a vendor's outage makes both fail, a bad policy only its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

#: Attempts from which on anything is concluded; so many must have ended well, for it to hold.
LEAST: Final = 5
#: How much larger than elsewhere the share of attempts that fail may be.
TOLERANCE: Final = 0.05
#: Of a normal distribution: 97.5 % lie below.
_Z: Final = 1.96


class Decision(StrEnum):
    """What becomes of a canary."""

    WAIT = "wait"
    PROMOTED = "promoted"
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True, slots=True)
class Tally:
    """Attempts that ended, and how many of them did not end well: failed, to be tried again, lost or held back."""

    attempts: int = 0
    errors: int = 0

    @property
    def share(self) -> float:
        """Of attempts that did not end well; 0 without any."""
        return self.errors / self.attempts if self.attempts else 0.0

    def at_least(self) -> float:
        """The share that is at least behind what was seen: Wilson's lower bound at 97.5 %.

        Wilson, E. B. (1927), "Probable inference, the law of succession, and statistical inference".
        """
        if not self.errors:
            return 0.0
        n, p, z2 = self.attempts, self.share, _Z * _Z
        spread = _Z * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
        return max((p + z2 / (2 * n) - spread) / (1 + z2 / n), 0.0)

    def __str__(self) -> str:
        return f"{self.errors} of {self.attempts} attempts did not end well"


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen of a canary so far. ``beside``: under the policy that holds. ``refused``: processes that cannot
    follow it, each with why.
    """

    elapsed_s: float
    watch_s: float
    under: Tally
    beside: Tally
    refused: Sequence[str] = ()


def decide(seen: Seen) -> tuple[Decision, str]:
    """What becomes of a canary now, and why.

    It is withdrawn as soon as it is clearly worse, or cannot be followed; it holds everywhere when its time is over and
    it is not. One under which too little happened gets its time once more, and is then withdrawn: it has shown nothing.
    """
    if seen.refused:
        return Decision.WITHDRAWN, f"it cannot be followed: {seen.refused[0]}"
    if seen.under.attempts >= LEAST and seen.under.at_least() > seen.beside.share + TOLERANCE:
        return Decision.WITHDRAWN, f"{seen.under} under it, {seen.beside} beside it"
    if seen.elapsed_s < seen.watch_s:
        return Decision.WAIT, f"{seen.under} so far"
    well = seen.under.attempts - seen.under.errors
    if well >= LEAST:
        return Decision.PROMOTED, f"{seen.under} under it, {seen.beside} beside it"
    if seen.elapsed_s < 2 * seen.watch_s:
        return Decision.WAIT, f"only {well} attempts ended well under it: it is watched for longer"
    return Decision.WITHDRAWN, f"only {well} attempts ended well under it: it has shown nothing"

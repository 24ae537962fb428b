"""What a vendor's account allows: so many calls in so much time, several such limits at once, and data of what age."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_UNITS_S: Final = {"s": 1.0, "min": 60.0, "h": 3600.0, "day": 86_400.0}
_RATE: Final = re.compile(r"(\d+)/(\d*)(s|min|h|day)")
_AGE: Final = re.compile(r"(\d+)(s|min|h|day|y)")
_YEAR_S: Final = 366 * 86_400.0


@dataclass(frozen=True, slots=True)
class Rate:
    """At most ``calls`` in any ``per_s`` seconds."""

    calls: int
    per_s: float

    def __str__(self) -> str:
        """As it is written: ``200/min``, ``5/10s``."""
        unit, unit_s = next(((u, s) for u, s in reversed(_UNITS_S.items()) if self.per_s % s == 0), ("s", 1.0))
        count = int(self.per_s / unit_s)
        return f"{self.calls}/{'' if count == 1 else count}{unit}"


@dataclass(slots=True)
class Waits:
    """What a call of a provider spent on our own account. ``waited_s``: until its requests were let through, seconds;
    it grows while the call lasts.
    """

    waited_s: float = 0.0


def parse_rates(text: str) -> tuple[Rate, ...]:
    """Limits that hold at once, as written: ``200/min``, or ``10000/min+30/s``; ``none``: no limit.

    Raises ValueError saying what is wrong.
    """
    return () if text.strip() == "none" else tuple(_rate(part.strip()) for part in text.split("+"))


def _rate(text: str) -> Rate:
    found = _RATE.fullmatch(text)
    if not found or int(found[1]) == 0 or found[2] == "0":
        raise ValueError(f"{text!r} is not a rate such as 200/min, 30/s or 5/10s")
    return Rate(int(found[1]), int(found[2] or 1) * _UNITS_S[found[3]])


def parse_age(text: str) -> float | None:
    """Seconds of an age as written: ``15min``, ``1day``, ``2y`` (years of 366 days), ``0``; ``none``: None.

    Raises ValueError saying what is wrong.
    """
    if text == "none":
        return None
    found = _AGE.fullmatch("0s" if text == "0" else text)
    if not found:
        raise ValueError(f"{text!r} is not an age such as 15min, 1day or 2y")
    return int(found[1]) * {**_UNITS_S, "y": _YEAR_S}[found[2]]

"""How the console writes numbers and times. ``static/ages.js`` says ages in the same words."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

from markupsafe import Markup

_CODE: Final = re.compile(r"`([^`]+)`")
#: What is not known.
UNKNOWN: Final = "\N{EN DASH}"


def count(number: float | None) -> str:
    """A whole number with its thousands apart."""
    return UNKNOWN if number is None else f"{number:,.0f}"


def percent(share: float | None) -> str:
    """A share of 1, as fine as it is small: ``0.50 %``, ``12 %``."""
    if share is None:
        return UNKNOWN
    hundredths = abs(share) * 100
    decimals = 0 if hundredths >= 10 or hundredths == 0 else 1 if hundredths >= 1 else 2
    return f"{share * 100:.{decimals}f} %"


def score(value: float | None) -> str:
    """A score from 0 to 1."""
    return UNKNOWN if value is None else f"{value:.2f}"


def span(seconds: float | None) -> str:
    """A length of time in its largest whole unit: ``4 s``, ``3 min``, ``2 h``, ``5 d``."""
    if seconds is None:
        return UNKNOWN
    for unit, length_s in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length_s:
            return f"{seconds / length_s:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def seconds(value: float | None) -> str:
    """A short time: ``12 ms``, ``1.25 s``."""
    if value is None:
        return UNKNOWN
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.2f} s"


def most_decimals(values: Iterable[float]) -> int:
    """Decimals that suffice to write each of these numbers, 6 at most, so that their points are one below another."""
    ends = (f"{value:.6f}".rstrip("0").partition(".")[2] for value in values)
    return max(map(len, ends), default=0)


def minute(at: datetime | None) -> str:
    """A moment, to the minute, UTC."""
    return UNKNOWN if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M}"


def moment(at: datetime | None) -> str | Markup:
    """A moment to the second, UTC, which a machine can read too."""
    if at is None:
        return UNKNOWN
    at = at.astimezone(UTC)
    return Markup('<time datetime="{}">{}</time>').format(at.isoformat(timespec="seconds"), f"{at:%Y-%m-%d %H:%M:%S}")


def age(at: datetime | None) -> str | Markup:
    """How long ago a moment was; a script keeps it true while the page stands."""
    if at is None:
        return UNKNOWN
    at = at.astimezone(UTC)
    told = span((datetime.now(UTC) - at).total_seconds())
    return Markup('<time class="age" datetime="{}" title="{} UTC">{}</time>').format(
        at.isoformat(timespec="seconds"), f"{at:%Y-%m-%d %H:%M:%S}", told
    )


def coded(words: str) -> Markup:
    """Words in which `what is between backticks` is code."""
    parts = _CODE.split(words)  # every second one is code
    return Markup("").join(Markup("<code>{}</code>").format(each) if at % 2 else each for at, each in enumerate(parts))


#: By these names templates use them.
FILTERS: Final[dict[str, Any]] = {
    each.__name__: each for each in (count, percent, score, span, seconds, minute, moment, age, coded)
}

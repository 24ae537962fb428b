"""Jobs: the validated units of work, one shape for both ways in.

Jobs that this system's own beat makes (local mode) and jobs that an outside rate-limit coordinator pushes as JSON
(RLC mode) are the same three models. They are frozen, refuse unknown fields and parse from JSON by ``type``.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Final, Literal
from uuid import uuid4

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from mdtasks.domain.errors import InvalidRequestError
from mdtasks.domain.hints import hint_for


class Tier(StrEnum):
    """How much a symbol matters: decides cadence, cap and SLO."""

    T0 = "T0"
    T1 = "T1"
    T2 = "T2"


class Interval(StrEnum):
    """The length of a bar."""

    M1 = "1m"
    M5 = "5m"
    M15 = "15m"
    H1 = "1h"
    D1 = "1d"

    @property
    def seconds(self) -> int:
        """Nominal length in seconds; a session's last intraday bar may be shorter, a daily bar is its session."""
        return _SECONDS[self]


_SECONDS: Final = {
    Interval.M1: 60,
    Interval.M5: 300,
    Interval.M15: 900,
    Interval.H1: 3600,
    Interval.D1: 86400,
}


_NUMBER: Final = re.compile(r"\s*[+-]?\d+(\.\d*)?\s*")


def _refuse_naive(value: object) -> object:
    """Say that a time is naive or a number before pydantic says so in its words, or guesses what the number counts.

    A date alone is its 00:00 UTC.
    """
    if isinstance(value, str) and len(value) == 10 and value[4] == value[7] == "-":
        return f"{value}T00:00:00Z"
    if isinstance(value, int | float) or (isinstance(value, str) and _NUMBER.fullmatch(value)):
        raise ValueError(f"{value} is a number, not a time: write ISO 8601, such as {_as_iso(float(value))}")
    if isinstance(value, datetime) and value.tzinfo is None:
        raise ValueError(f"{value.isoformat()} is naive: add a time zone, such as {value.isoformat()}Z for UTC")
    return value


def _as_iso(number: float) -> str:
    """The time that a number means as seconds since 1970, where it likely counts those; else an example."""
    if 1e9 <= number < 1e10:
        return f"{datetime.fromtimestamp(number, UTC):%Y-%m-%dT%H:%M:%SZ}"
    return "2026-11-02T14:30:00Z"


def _to_utc(value: datetime) -> datetime:
    _refuse_naive(value)
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{value.isoformat()} is before the year 1 or after 9999 in UTC") from None


UtcDatetime = Annotated[datetime, BeforeValidator(_refuse_naive), AfterValidator(_to_utc)]
Symbol = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9^][A-Za-z0-9._/^=:-]{0,31}$")]
JobId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}$")]
ProviderName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,31}$")]


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TimeWindow(_Value):
    """A half-open range of time ``[start, end)``, aware, held in UTC."""

    start: UtcDatetime
    end: UtcDatetime

    @model_validator(mode="after")
    def _starts_before_it_ends(self) -> TimeWindow:
        if self.start >= self.end:
            raise ValueError(f"start {self.start.isoformat()} must be before end {self.end.isoformat()}")
        return self


class _Job(_Value):
    job_id: JobId = Field(default_factory=lambda: str(uuid4()))
    priority: Tier = Tier.T1
    provider_hint: ProviderName | None = None


class BarsFetchJob(_Job):
    """Fetch recent bars of many symbols now; short-lived. Without a window: the latest ended intervals."""

    type: Literal["bars_fetch"] = "bars_fetch"
    symbols: Annotated[tuple[Symbol, ...], Field(min_length=1, max_length=1000)]
    interval: Interval = Interval.M1
    time_window: TimeWindow | None = None


class QuotesFetchJob(_Job):
    """Fetch the latest L1 quote of many symbols now; short-lived."""

    type: Literal["quotes_fetch"] = "quotes_fetch"
    symbols: Annotated[tuple[Symbol, ...], Field(min_length=1, max_length=1000)]


class BackfillJob(_Job):
    """Fetch one window of one symbol; durable: PostgreSQL holds it until it is done or dead."""

    type: Literal["backfill"] = "backfill"
    symbol: Symbol
    interval: Interval = Interval.M1
    time_window: TimeWindow


Job = Annotated[BarsFetchJob | QuotesFetchJob | BackfillJob, Field(discriminator="type")]

_ADAPTER: Final[TypeAdapter[BarsFetchJob | QuotesFetchJob | BackfillJob]] = TypeAdapter(Job)


def parse_job(data: str | bytes | dict[str, object]) -> BarsFetchJob | QuotesFetchJob | BackfillJob:
    """The job that JSON text or its decoded object describes.

    Raises InvalidRequestError with ``field`` set to the path of the first wrong value.
    """
    try:
        return _ADAPTER.validate_json(data) if isinstance(data, str | bytes) else _ADAPTER.validate_python(data)
    except ValidationError as exc:
        raise invalid_request(exc) from exc


#: Pydantic names no place where a job's type is wrong: it is what tells the kinds of jobs apart.
_FIELDS: Final = {"union_tag_invalid": "type", "union_tag_not_found": "type"}


def invalid_request(exc: ValidationError) -> InvalidRequestError:
    """Pydantic's findings as one line: the path of each wrong value and the rule it broke; what to write instead."""
    kinds = {"bars_fetch", "quotes_fetch", "backfill"}
    errors = exc.errors(include_url=False, include_input=False)
    found = [
        (
            ".".join(str(part) for part in error["loc"] if part not in kinds) or _FIELDS.get(error["type"], "job"),
            error["msg"].removeprefix("Value error, "),
        )
        for error in errors
    ]
    return InvalidRequestError(
        "; ".join(f"{field}: {rule}" for field, rule in found), field=found[0][0], hint=hint_for(errors[0])
    )


def pause_after(attempt: int, *, base_s: float, max_s: float, jitter: float) -> float:
    """Seconds to wait after the ``attempt``-th failed attempt: doubling from ``base_s``, at most ``max_s``, jittered.

    ``jitter`` in [0, 1) is drawn by the caller; the pause is between half and the whole of the doubled one ("equal
    jitter", as AWS' and Finagle's backoff), so that jobs that failed together do not come back together.

    >>> pause_after(3, base_s=2, max_s=300, jitter=0.5)
    6.0
    """
    whole = min(base_s * 2.0 ** min(attempt - 1, 60), max_s)
    return float(whole * (0.5 + jitter / 2))

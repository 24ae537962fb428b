"""Where schedules come from: exchange_calendars, held at arm's length, and what is kept of its answers.

The library is asked for whole years, always with an explicit start and end (its default end is the import time plus one
year), its classes are built directly (its own cache rebuilds whenever the arguments change), and what it answers is
copied into arrays. Holding more or fewer years never changes an answer.
"""

from __future__ import annotations

import difflib
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import numpy as np

from mdtasks.domain.bars import from_us, to_us
from mdtasks.domain.errors import ConfigurationError, InvalidRequestError
from mdtasks.domain.schedules import ALWAYS_OPEN, DAY_US, PAD_US, AlwaysOpen, Schedule, Source

#: Years that calendars without bounds of their own are believed for.
FIRST_YEAR: Final = 1900
LAST_YEAR: Final = 2100


@dataclass(frozen=True, slots=True, eq=False)
class Years:
    """What is held of a calendar: its sessions of some years, and the bounds of what its library knows."""

    first_us: int
    horizon_us: int
    zone: str
    schedule: Schedule


class Keeper(Protocol):
    """Keeps years between processes, so that not each of them has to load the library."""

    def load(self, mic: str) -> Years | None:
        """The years kept of a calendar; None when there are none that this installation may use."""

    def keep(self, mic: str, years: Years) -> None:
        """Keep the years of a calendar in place of those kept so far."""


class Library:
    """One calendar of exchange_calendars, held in blocks of whole years that grow on demand. Thread-safe.

    With a ``keeper`` the library itself is loaded only for years that nobody has kept yet.
    """

    def __init__(self, mic: str, factory: Any = None, *, keeper: Keeper | None = None) -> None:
        self.mic = mic
        self._keeper = keeper
        self._loading = threading.Lock()
        kept = keeper.load(mic) if keeper is not None else None
        self._held: Schedule | None = kept.schedule if kept is not None else None
        self._zone = kept.zone if kept is not None else ""
        if kept is not None:
            self._factory = factory
            self.first_us, self.horizon_us = kept.first_us, kept.horizon_us
            return
        self._factory = factory or _factory_of(mic)[1]
        low, high = self._factory.bound_min(), self._factory.bound_max()
        self.first_us = _midnight_us(low) if low is not None else _year_us(FIRST_YEAR)
        self.horizon_us = _midnight_us(high) + DAY_US if high is not None else _year_us(LAST_YEAR + 1)

    @property
    def zone(self) -> str:
        """The exchange's time zone, kept with its years."""
        if not self._zone:
            self._factory = self._factory or _factory_of(self.mic)[1]
            self._zone = str(self._factory.tz.key)
        return self._zone

    def covering(self, start_us: int, end_us: int) -> Schedule:
        """All years held, which reach at least a PAD beyond the window, or as far as the library knows."""
        since = min(max(start_us - PAD_US, self.first_us), self.horizon_us - 1)
        until = max(min(end_us + PAD_US, self.horizon_us), self.first_us + 1)
        held = self._held
        if held is None or since < held.since_us or until > held.until_us:
            with self._loading:
                held = self._held = self._kept(since, until) or self._grown(self._held, since, until)
        return held

    def _kept(self, since_us: int, until_us: int) -> Schedule | None:
        """What another process has kept meanwhile, where it reaches."""
        kept = self._keeper.load(self.mic) if self._keeper is not None else None
        reaches = kept is not None and kept.schedule.since_us <= since_us and until_us <= kept.schedule.until_us
        return kept.schedule if kept is not None and reaches else None

    def _grown(self, held: Schedule | None, since_us: int, until_us: int) -> Schedule:
        first, last = from_us(since_us).year, from_us(until_us - 1).year
        if held is None:
            held = self._years(first - 1, last + 1)
        if since_us < held.since_us:
            held = self._block(_year_us(first - 1), held.since_us).joined(held)
        if until_us > held.until_us:
            held = held.joined(self._block(held.until_us, _year_us(last + 2)))
        if self._keeper is not None:
            self._keeper.keep(self.mic, Years(self.first_us, self.horizon_us, self.zone, held))
        return held

    def _years(self, first: int, last: int) -> Schedule:
        return self._block(_year_us(first), _year_us(last + 1))

    def _block(self, since_us: int, until_us: int) -> Schedule:
        """The sessions of whole years ``[since_us, until_us)``, cut to what the library knows."""
        since_us, until_us = max(since_us, self.first_us), min(until_us, self.horizon_us)
        start, end = from_us(since_us).date().isoformat(), from_us(until_us - DAY_US).date().isoformat()
        try:
            self._factory = self._factory or _factory_of(self.mic)[1]
            table = self._factory(start=start, end=end).schedule
        except Exception as exc:
            raise ConfigurationError(
                f"exchange_calendars cannot say when {self.mic} trades from {start} to {end}: {exc}",
                hint="check the installed versions: exchange_calendars 4.13 needs pandas below 3.1",
            ) from exc
        labels = table.index.to_numpy("datetime64[us]").astype(np.int64)
        names = ("open", "close", "break_start", "break_end")
        columns = np.stack([table[name].to_numpy("datetime64[us]").astype(np.int64) for name in names])
        return Schedule.of_table((since_us, until_us), labels, columns)


_libraries: dict[str, Library] = {}
_libraries_lock = threading.Lock()


def source_of(mic: str, keeper: Keeper | None = None) -> tuple[str, Source]:
    """The calendar's own name and its source; what was read from the library is shared by the whole process.

    ``mic``: a MIC or one of the library's other names (XNAS and NYSE are XNYS), in any case, or ``24/7``.
    Raises InvalidRequestError with field ``mic`` and the nearest names when there is none.
    """
    if mic == ALWAYS_OPEN:
        return mic, AlwaysOpen()
    with _libraries_lock:
        held = _libraries.get(mic)
        if held is None:
            name = mic if keeper is not None and keeper.load(mic) is not None else _factory_of(mic)[0]
            held = _libraries.setdefault(name, Library(name, keeper=keeper))
        return held.mic, held


def _factory_of(mic: str) -> tuple[str, Any]:
    # The import costs 0.6 s and pulls in pandas: only those pay who ask for an exchange.
    from exchange_calendars import calendar_utils

    factories = calendar_utils._default_calendar_factories
    aliases = calendar_utils._default_calendar_aliases
    name = aliases.get(mic.upper(), mic.upper())
    if name in factories and name != ALWAYS_OPEN:
        return name, factories[name]
    near = difflib.get_close_matches(mic.upper(), [*factories, *aliases], n=3, cutoff=0.5)
    raise InvalidRequestError(
        f"unknown exchange {mic!r}" + (f"; did you mean {', '.join(near)}?" if near else ""),
        field="mic",
        hint="give the exchange's MIC, such as XNYS or XLON, or 24/7 for what never closes",
    )


def _year_us(year: int) -> int:
    return to_us(datetime(year, 1, 1, tzinfo=UTC))


def _midnight_us(bound: Any) -> int:
    return to_us(datetime(bound.year, bound.month, bound.day, tzinfo=UTC))

"""What adapters that read files share: each file parsed once while it stays the same, and what a file vouches for.

A file that is there does not make every minute of the window answered: a folder may lack a day, a file may end before
the window does. ``read_sources`` gives the bars and names each part of the window that no file speaks for.
"""

from __future__ import annotations

import zipfile
import zlib
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Final, Literal

import numpy as np

from mdtasks.domain.bars import Bars, from_us, to_us
from mdtasks.domain.errors import BadPayloadError, NoDataError, ProviderError, UnsupportedError
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.domain.sessions import Calendars
from mdtasks.domain.universe import Listing
from mdtasks.providers import arrow
from mdtasks.providers.base import BarsAnswer, Capabilities, Unanswered
from mdtasks.providers.shaping import ended
from mdtasks.providers.wallclock import SECOND_US

#: Most parsed bars that one process keeps, bytes (48 a bar): a year of minutes of ten symbols.
CACHE_BYTES: Final = 48 * 1_000_000

#: What silence in a file means. period: the file holds all of its day (or other period), silence is verified in it.
#: rows: from its first bar to the end of its last. bars: nothing beside the bars themselves.
Vouches = Literal["period", "rows", "bars"]

_Range = tuple[int, int]
#: A period, and why no file speaks for it.
_Reason = tuple[_Range, BadPayloadError | NoDataError]


@dataclass(frozen=True, slots=True)
class Source:
    """A file that should hold the bars starting in ``[start_us, end_us)``."""

    path: Path
    start_us: int
    end_us: int
    vouches: Vouches


@dataclass(frozen=True, slots=True)
class Parsed:
    """A parsed file: bars in time order, read-only, and when the file was written (microseconds UTC)."""

    bars: Bars
    written_us: int


#: Gives a file parsed. Raises NoDataError when it is not there, BadPayloadError when it cannot be read.
Load = Callable[[], Parsed]


class ParseCache:
    """Parsed files by path, parsed again when time of writing or size change, dropped when others need the room."""

    def __init__(self, provider: str, *, max_bytes: int = CACHE_BYTES) -> None:
        self.provider = provider
        #: Files parsed so far.
        self.parses = 0
        self._max_bytes = max_bytes
        self._held_bytes = 0
        self._entries: OrderedDict[tuple[Path, object], tuple[tuple[int, int], Parsed]] = OrderedDict()

    def get(self, path: Path, parse: Callable[[Path], Bars], key: object = None) -> Parsed:
        """The file's bars; ``key`` tells apart two readings of one file.

        Raises NoDataError when there is no such file, and what ``parse`` raises when it cannot be read.
        """
        try:
            state = path.stat()
        except (FileNotFoundError, NotADirectoryError) as exc:
            raise NoDataError(f"no file {path}", provider=self.provider) from exc
        version = (state.st_mtime_ns, state.st_size)
        held = self._entries.get((path, key))
        if held is None or held[0] != version:
            self._drop((path, key))
            held = (version, Parsed(_in_time_order(parse(path)), state.st_mtime_ns // 1000))
            self.parses += 1
            self._entries[path, key] = held
            self._held_bytes += _size_bytes(held[1])
            # One file larger than the whole bound stays until the next comes: a hundred windows of it parse it once.
            while len(self._entries) > 1 and self._held_bytes > self._max_bytes:
                self._drop(next(iter(self._entries)))
        self._entries.move_to_end((path, key))
        return held[1]

    def _drop(self, entry: tuple[Path, object]) -> None:
        if entry in self._entries:
            self._held_bytes -= _size_bytes(self._entries.pop(entry)[1])


class OnDiskProvider(ABC):
    """A provider that reads files: says which files hold a listing's window, and how each is read.

    A listing without a file or with a bad one fails alone.
    """

    name: str
    capabilities: Capabilities

    def __init__(self, calendars: Calendars) -> None:
        self._calendars = calendars
        #: Files parsed and kept.
        self.cache = ParseCache(self.name)

    def preload(self) -> None:
        """Import what reading needs, for the processes that will be forked from this one."""
        arrow.load()

    @abstractmethod
    def sources(self, listing: Listing, interval: Interval, window: TimeWindow) -> Sequence[tuple[Source, Load]]:
        """The files that should hold the window, each with what parses it. Raises NoDataError."""

    def fetch_bars(
        self, listings: Sequence[Listing], interval: Interval, window: TimeWindow, now: datetime
    ) -> BarsAnswer:
        """Raw bars as the files hold them, extended hours included; see Provider."""
        if interval not in self.capabilities.intervals:
            served = ", ".join(sorted(self.capabilities.intervals))
            raise UnsupportedError(f"has no {interval} bars, only {served}", provider=self.name)
        bars: dict[str, Bars] = {}
        errors: dict[str, ProviderError] = {}
        unanswered: dict[str, tuple[Unanswered, ...]] = {}
        for listing in listings:
            try:
                sources = self.sources(listing, interval, window)
                found, cuts = read_sources(sources, interval, window, provider=self.name)
            except ProviderError as exc:
                errors[listing.symbol] = exc
                continue
            bars[listing.symbol] = ended(found, interval, partial(self._calendars.get, listing.mic), now)
            if cuts:
                unanswered[listing.symbol] = cuts
        return BarsAnswer(bars, errors, unanswered)


def read_sources(
    sources: Sequence[tuple[Source, Load]],
    interval: Interval,
    window: TimeWindow,
    *,
    provider: str,
) -> tuple[Bars, tuple[Unanswered, ...]]:
    """The bars of ``window`` from its files, and the parts of it that no file vouches for.

    A file that cannot be read leaves its period unanswered, but for the bars that other files have in it: it may hold
    what they lack, so their silence says nothing there. Raises BadPayloadError or NoDataError when no file vouches for
    any of the window.
    """
    whole = (to_us(window.start), to_us(window.end))
    read: list[tuple[Source, Parsed, Bars]] = []
    corrupt: list[_Reason] = []
    missing: list[_Reason] = []
    for source, load in sources:
        period = (source.start_us, source.end_us)
        try:
            parsed = load()
        except BadPayloadError as exc:
            corrupt.append((period, exc))
        except NoDataError as exc:
            missing.append((period, exc))
        else:
            read.append((source, parsed, _between(parsed.bars, whole)))
            missing.append((period, NoDataError(_reach(source, parsed), provider=provider)))
    missing.append((whole, NoDataError("no file is named for this time", provider=provider)))
    vouched: list[_Range] = []
    for source, parsed, bars in read:
        vouched += _without(_vouched(source, parsed, bars, interval), [period for period, _ in corrupt])
        vouched += _runs(bars, interval) if corrupt else []
    unanswered = _unanswered(whole, vouched, [*corrupt, *missing], provider)
    if _length(whole) == sum(_length((to_us(u.window.start), to_us(u.window.end))) for u in unanswered):
        raise next((u.error for u in unanswered if isinstance(u.error, BadPayloadError)), unanswered[0].error)
    # Files of one symbol may overlap and interleave; duplicates are for validation to name.
    return _in_time_order(Bars.concat([bars for _, _, bars in read])), unanswered


def _vouched(source: Source, parsed: Parsed, bars: Bars, interval: Interval) -> list[_Range]:
    """The ranges in which the file's silence counts; ``bars`` are its bars in the window."""
    if source.vouches == "bars":
        return _runs(bars, interval)
    step_us = interval.seconds * SECOND_US
    rows = parsed.bars.ts_us
    span = (int(rows[0]), int(rows[-1]) + step_us) if len(rows) else (source.start_us, source.start_us)
    if source.vouches == "rows":
        return [span]
    # A day's file written before the day was over knows nothing of the rest. One "written" before its day began
    # lost its time in an archive, and tells nothing.
    known_until = parsed.written_us if parsed.written_us > source.start_us else source.end_us
    return [(source.start_us, min(source.end_us, known_until)), span]


def _runs(bars: Bars, interval: Interval) -> list[_Range]:
    """The ranges of bars that follow one another without a hole."""
    if not len(bars):
        return []
    step_us = interval.seconds * SECOND_US
    first = np.flatnonzero(np.diff(bars.ts_us, prepend=np.iinfo(np.int64).min // 2) > step_us)
    last = np.append(first[1:], len(bars)) - 1
    return [(int(bars.ts_us[a]), int(bars.ts_us[b]) + step_us) for a, b in zip(first, last, strict=True)]


def _reach(source: Source, parsed: Parsed) -> str:
    """Why a file that was read leaves a part of its period unanswered."""
    rows = parsed.bars.ts_us
    if source.vouches == "bars":
        return f"{source.path} has no bar there and is declared incomplete"
    if not len(rows):
        return f"{source.path} has no bars"
    return f"{source.path} reaches from {from_us(rows[0]):%Y-%m-%d %H:%M} to {from_us(rows[-1]):%Y-%m-%d %H:%M} UTC"


def _unanswered(
    whole: _Range, vouched: Sequence[_Range], reasons: Sequence[_Reason], provider: str
) -> tuple[Unanswered, ...]:
    """What is left of ``whole`` without ``vouched``, in time order, each part with the first reason of its period."""
    free = _without([whole], vouched)
    found: list[_Reason] = []
    for period, reason in reasons:
        found += [(part, reason) for part in _meet(free, period)]
        free = _minus(free, period)
    return tuple(
        Unanswered(
            TimeWindow(start=from_us(start), end=from_us(end)),
            type(reason)(
                f"{reason.message.removeprefix(f'{provider}: ')}; "
                f"nothing from {from_us(start):%Y-%m-%d %H:%M} to {from_us(end):%Y-%m-%d %H:%M}",
                provider=provider,
            ),
        )
        for (start, end), reason in sorted(found, key=lambda each: each[0])
    )


def _without(parts: Sequence[_Range], cuts: Sequence[_Range]) -> list[_Range]:
    """What is left of ``parts``, each in time order."""
    left: list[_Range] = []
    cuts = sorted(cuts)
    for start, end in parts:
        reached = start
        for cut_start, cut_end in cuts:
            if reached < min(cut_start, end):
                left.append((reached, min(cut_start, end)))
            reached = max(reached, cut_end)
        if reached < end:
            left.append((reached, end))
    return left


def _minus(parts: Sequence[_Range], cut: _Range) -> list[_Range]:
    sides = [side for a, b in parts for side in ((a, min(b, cut[0])), (max(a, cut[1]), b))]
    return [side for side in sides if _length(side) > 0] if cut[0] < cut[1] else list(parts)


def _meet(parts: Sequence[_Range], other: _Range) -> list[_Range]:
    met = [(max(a, other[0]), min(b, other[1])) for a, b in parts]
    return [part for part in met if _length(part) > 0]


def _length(part: _Range) -> int:
    return part[1] - part[0]


def _between(bars: Bars, whole: _Range) -> Bars:
    """The bars of a time-ordered column in a range: views, not copies."""
    first, last = np.searchsorted(bars.ts_us, whole)
    return bars.take(slice(int(first), int(last)))


def unzipped(path: Path, provider: str) -> bytes:
    """The one file inside a zip. Raises BadPayloadError naming the zip when it is corrupt, truncated or holds none."""
    try:
        with zipfile.ZipFile(path) as archive:
            inside = [info for info in archive.infolist() if not info.is_dir()]
            if len(inside) != 1:
                raise BadPayloadError(f"{path} holds {len(inside)} files instead of one", provider=provider)
            return archive.read(inside[0])
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as exc:
        raise BadPayloadError(f"{path} is a corrupt or truncated zip: {exc}", provider=provider) from exc


def _in_time_order(bars: Bars) -> Bars:
    if (np.diff(bars.ts_us) < 0).any():
        bars = bars.take(np.argsort(bars.ts_us, kind="stable"))
    for column in (bars.ts_us, *bars.columns):
        column.flags.writeable = False  # windows are views of what the cache holds
    return bars


def _size_bytes(parsed: Parsed) -> int:
    return 48 * len(parsed.bars)

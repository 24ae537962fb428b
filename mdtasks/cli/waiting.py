"""Looking on while a request is carried out: a moving bar on a terminal, a calm line now and then in a pipe."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol

from mdtasks.cli.frame import one_line, say
from mdtasks.domain.errors import UnavailableError
from mdtasks.store import job_reports

if TYPE_CHECKING:
    from rich.console import RenderableType

    from mdtasks.connections import Database
    from mdtasks.store.job_reports import Progress

_POLL_S: Final = 0.3
#: Seconds between lines where nobody sees a bar move.
_LINE_EVERY_S: Final = 5.0
#: Over how long a rate is measured, seconds.
_RATE_OVER_S: Final = 10.0
#: When nothing has moved for this long, say why that may be, seconds.
_STILL_AFTER_S: Final = 10.0
#: How long PostgreSQL may stay away before looking on ends, seconds.
_PATIENCE_S: Final = 120.0


class Meter:
    """Rates out of samples of the progress. ``now``: seconds of any steady clock."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int, int]] = deque()
        self._moved_at: float | None = None

    def add(self, now: float, seen: Progress) -> None:
        """Take a sample."""
        newest = (now, seen.ended, seen.bars)
        if not self._samples or self._samples[-1][1:] != newest[1:]:
            self._moved_at = now
        self._samples.append(newest)
        while self._samples[0][0] < now - _RATE_OVER_S:
            self._samples.popleft()

    @property
    def bars_per_s(self) -> float:
        """Bars stored a second, lately."""
        return self._rate(2)

    def left_s(self, seen: Progress) -> float | None:
        """Seconds until all jobs have ended at the present rate; None when nothing moves."""
        rate = self._rate(1)
        return (seen.total - seen.ended) / rate if rate else None

    def still_s(self, now: float) -> float:
        """Seconds since anything moved."""
        return now - self._moved_at if self._moved_at is not None else 0.0

    def _rate(self, column: int) -> float:
        if len(self._samples) < 2:
            return 0.0
        first, last = self._samples[0], self._samples[-1]
        return (last[column] - first[column]) / (last[0] - first[0]) if last[0] > first[0] else 0.0


class _View(Protocol):
    def show(self, seen: Progress, meter: Meter, note: str) -> None: ...


def read_progress(database: Database, request_id: str) -> Progress:
    """How a request stands now. Raises NotFoundError, StoreUnavailableError."""
    with database.transaction() as connection:
        return job_reports.progress(connection, request_id)


def wait_for(database: Database, request_id: str) -> Progress:
    """Look on until every job of the request has ended. PostgreSQL may be away for up to two minutes meanwhile.

    Raises NotFoundError, StoreUnavailableError.
    """
    meter = Meter()
    seen = read_progress(database, request_id)
    away_since: float | None = None
    with _view() as view:
        while True:
            now = time.monotonic()
            meter.add(now, seen)
            away = "" if away_since is None else "PostgreSQL does not answer; waiting for it"
            view.show(seen, meter, away or _note(seen, meter.still_s(now)))
            if seen.ended == seen.total:
                return seen
            time.sleep(_POLL_S)
            try:
                seen = read_progress(database, request_id)
                away_since = None
            except UnavailableError:
                away_since = away_since or now
                if time.monotonic() > away_since + _PATIENCE_S:
                    raise


def _note(seen: Progress, still_s: float) -> str:
    """What to say beside the numbers: why nothing moves, or the newest error."""
    error = one_line(seen.last_error or "")
    if still_s > _STILL_AFTER_S and not seen.jobs.get("running"):
        if seen.jobs.get("queued"):
            return "nothing moves: does a worker serve this tier? `mdtasks status`, `mdtasks doctor`"
        return "waiting for the next attempt" + (f" after: {error}" if error else "")
    return f"newest error: {error}" if error else ""


@contextmanager
def _view() -> Iterator[_View]:
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(stderr=True), auto_refresh=False, transient=False) as live:
        yield _Bar(live.update)


class _Lines:
    """A line every few seconds, when something has changed, and one at the end."""

    def __init__(self) -> None:
        self._said = ""
        self._said_at = -_LINE_EVERY_S

    def show(self, seen: Progress, meter: Meter, note: str) -> None:
        now = time.monotonic()
        over = seen.ended == seen.total
        if not over and now < self._said_at + _LINE_EVERY_S:
            return
        line = ", ".join(words_of(seen, meter)) + (f"; {note}" if note else "")
        if line != self._said:
            self._said, self._said_at = line, now
            say(line)


class _Bar:
    """A bar with the numbers beside it, and a line under it when there is something to say."""

    def __init__(self, update: object) -> None:
        self._update = update

    def show(self, seen: Progress, meter: Meter, note: str) -> None:
        self._update(self._drawn(seen, meter, note), refresh=True)  # type: ignore[operator]

    @staticmethod
    def _drawn(seen: Progress, meter: Meter, note: str) -> RenderableType:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        row = Table.grid(padding=(0, 2))
        failed = seen.jobs.get("failed", 0)
        colour = "red" if failed else "green"
        bar = ProgressBar(
            total=max(seen.total, 1),
            completed=seen.ended if seen.total else 1,
            width=28,
            complete_style="cyan",
            finished_style=colour,
        )
        words = [Text(word, style="red" if word.endswith("failed") else "") for word in words_of(seen, meter)]
        row.add_row(bar, *words)
        return Group(row, Text(note, style="yellow", overflow="ellipsis", no_wrap=True)) if note else row


def words_of(seen: Progress, meter: Meter) -> list[str]:
    """The progress in a few words each: jobs, bars, rate, time left, failures."""
    words = [f"{seen.ended:,}/{seen.total:,} jobs", f"{seen.bars:,} bars"]
    left_s = meter.left_s(seen)
    if seen.ended < seen.total and left_s is not None:
        words += [f"{meter.bars_per_s:,.0f} bars/s", f"{spoken(left_s)} left"]
    failed = seen.jobs.get("failed", 0)
    return [*words, f"{failed:,} failed"] if failed else words


def spoken(seconds: float) -> str:
    """A duration as people say it: 8s, 3m 07s, 2h 05m, 4d 03h."""
    whole = int(seconds)
    for unit, size, below, part in (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size}{unit} {whole % size // part:02d}{below}"
    return f"{whole}s"

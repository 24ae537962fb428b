"""Publishing into the real replay buffer, by the way that commits take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import numpy as np

from mdtasks.domain.bars import Bars, Quote, to_us
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.domain.replay import heard_since
from mdtasks.flows import replay
from mdtasks.flows.deps import Deps
from mdtasks.store import reference
from mdtasks.store.bars import BarBatch, write_bars
from mdtasks.store.outbox import Note
from mdtasks.store.partitions import ensure_partitions

_MINUTE = timedelta(minutes=1)


class Publisher:
    """Commits minute bars and publishes them. The ``n``-th bar of a symbol closes at ``n``."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps
        self._attempts = 0
        self.made: Counter[str] = Counter()
        #: Young enough for the buffer, with room for two weeks of minutes.
        self.start = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(days=10)
        end = self.start + timedelta(days=14)
        ensure_partitions(deps.database, "bars", to_us(self.start), to_us(end))
        with deps.database.transaction() as connection:
            members = reference.instruments(connection)
        self.ids = {member.symbol: member.id for member in members}

    def bars(self, symbol: str, count: int) -> None:
        """The next ``count`` bars of a symbol, committed together."""
        self.tick({symbol: count})

    def tick(self, counts: dict[str, int]) -> None:
        """The next bars of several symbols, committed and published together."""
        self.commit(counts)
        self.publish(counts)

    def commit(self, counts: dict[str, int]) -> None:
        """Commit them only, as a process that dies right after."""
        self._attempts += 1
        now, most = datetime.now(UTC), self._deps.replay.max_bars
        batches = [self._batch(symbol, count) for symbol, count in counts.items()]
        note = Note(heard_since(Interval.M1, most, now), most, {})
        with self._deps.database.transaction() as connection:
            write_bars(connection, Interval.M1, batches, "simulator", self._attempts, note=note)

    def publish(self, symbols: Iterable[str]) -> None:
        """Publish what was committed of these."""
        replay.publish_pending(self._deps, [self.ids[symbol] for symbol in symbols], Interval.M1)

    def quote(self, symbol: str, bid: float) -> None:
        """The newest quote of a symbol."""
        now = datetime.now(UTC)
        replay.publish_quotes(self._deps, {self.ids[symbol]: Quote(now, bid, 1.0, bid + 1, 1.0)}, "simulator", now)

    def _batch(self, symbol: str, count: int) -> BarBatch:
        first = self.made[symbol]
        self.made[symbol] += count
        numbers = np.arange(first + 1, first + count + 1, dtype=np.float64)
        starts = to_us(self.start) + (np.arange(first, first + count) * 60_000_000)
        bars = Bars.of(starts, numbers, numbers, numbers, numbers, numbers)
        window = TimeWindow(start=self.start + first * _MINUTE, end=self.start + (first + count) * _MINUTE)
        return BarBatch(self.ids[symbol], bars, final_before_us=to_us(datetime.now(UTC)), covered=[window])

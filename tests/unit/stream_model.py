"""What the replay buffer promises, in a few lines: the last entries of an epoch, positions, resumption or not."""

from __future__ import annotations

from dataclasses import dataclass, field

from mdtasks.domain.jobs import Interval
from mdtasks.domain.replay import Entry, Position, StreamKey, Window
from mdtasks.domain.stream import Live

KEY = StreamKey(1, Interval.M1)


def bar_body(number: int) -> bytes:
    """A bar as its publisher writes it."""
    return b'{"type":"bar","ts":"2026-11-24T15:%02d:00Z","close":%d}' % (number % 60, number)


@dataclass
class Buffer:
    """One stream. ``kept``: so many entries."""

    key: StreamKey = KEY
    kept: int = 5
    epoch: str = "e0"
    log: list[Entry] = field(default_factory=list)
    epochs: int = 0

    def publish(self, ts_us: int) -> Live:
        """A bar, new or revised."""
        entry = Entry(len(self.log) + 1, ts_us, bar_body(len(self.log) + 1))
        self.log.append(entry)
        return Live(self.epoch, entry)

    def anew(self) -> None:
        """Emptied: another epoch."""
        self.epochs += 1
        self.epoch, self.log = f"e{self.epochs}", []

    @property
    def position(self) -> Position:
        return Position(self.epoch, len(self.log))

    def read(self, since: Position | None) -> Window:
        """What a reader gets."""
        first_kept = max(len(self.log) - self.kept, 0) + 1
        if since and since.epoch == self.epoch and first_kept - 1 <= since.offset <= len(self.log):
            return Window(self.key, self.position, self.log[since.offset :], True)
        newest = {entry.ts_us: entry for entry in self.log[first_kept - 1 :]}
        return Window(self.key, self.position, [newest[ts] for ts in sorted(newest)], False)

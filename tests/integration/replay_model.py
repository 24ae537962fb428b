"""What a stream of the replay buffer should hold, in plain Python: the model that the real one is held against."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from mdtasks.domain.replay import Draft, Entry
from mdtasks.store.replay import ENTRIES_PER_BAR


@dataclass
class ModelStream:
    """A stream in one epoch. ``log``: every entry that it ever had, without an end."""

    max_bars: int
    offset: int = 0
    born: int = 0
    log: list[Entry] = field(default_factory=list)
    bars: dict[int, tuple[int, Entry]] = field(default_factory=dict)
    quiet: list[int] = field(default_factory=list)

    @classmethod
    def begun(cls, max_bars: int, newest: Sequence[Draft]) -> ModelStream:
        """A stream that was filled from the store."""
        bars = {d.ts_us: (d.version, Entry(n, d.ts_us, d.body)) for n, d in enumerate(newest, start=1)}
        return cls(max_bars, len(newest), len(newest), bars=bars)

    def publish(self, draft: Draft) -> bool:
        """Take a draft; False: it is passed over."""
        if draft.ts_us in self.bars:
            if draft.version <= self.bars[draft.ts_us][0]:
                return False
        elif self._falls_out(self.bars, draft.ts_us) or (
            not draft.version and (draft.ts_us in self.quiet or self._falls_out(self.quiet, draft.ts_us))
        ):
            return False
        self.offset += 1
        entry = Entry(self.offset, draft.ts_us, draft.body)
        self.log.append(entry)
        if draft.version:
            self.bars[draft.ts_us] = (draft.version, entry)
            self.bars = {ts: self.bars[ts] for ts in sorted(self.bars)[-self.max_bars :]}
        else:
            self.quiet = sorted([*self.quiet, draft.ts_us])[-self.max_bars :]
        return True

    def _falls_out(self, held: Collection[int], ts_us: int) -> bool:
        return len(held) == self.max_bars and ts_us < min(held)

    def since(self, offset: int) -> list[Entry] | None:
        """The entries after an offset; None: the log does not reach back so far, or has not come so far."""
        kept = self.log[-ENTRIES_PER_BAR * self.max_bars :]
        first = kept[0].offset if kept else self.offset + 1
        if offset == self.offset:
            return []
        return [entry for entry in kept if entry.offset > offset] if first - 1 <= offset < self.offset else None

    def snapshot(self) -> list[Entry]:
        """The newest entry of each bar, in order of time."""
        return [self.bars[ts][1] for ts in sorted(self.bars)]

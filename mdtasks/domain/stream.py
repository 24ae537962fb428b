"""The seam between what is kept of a stream and what is live of it: one rule for whoever reads a stream. Pure.

A reader listens first, reads the kept window then, and takes of the live events only what the window did not hold:
offsets say which. So nothing is lost and nothing doubled, however reading and publishing interleave. A reader that
finds a hole (an offset that is not the next, another epoch) or is dropped behind reads again from where it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from mdtasks.domain.replay import Entry, Position, Window


@dataclass(frozen=True)
class Live:
    """An entry as it was published."""

    epoch: str
    entry: Entry

    @cached_property
    def position(self) -> Position:
        """Where a reader is that has seen it. Made once: thousands of readers ask."""
        return Position(self.epoch, self.entry.offset)


#: What comes out of a stream: an entry that follows the one before, or all of it anew (a window that is no resumption).
Event = Live | Window


def missed(since: Position, window: Window) -> Sequence[Entry] | None:
    """The entries after ``since``, each of them, by what the window holds; None when it cannot vouch for that.

    A snapshot can where it holds every offset after ``since``: none of them was overtaken by a later one of its bar.
    """
    if window.position.epoch != since.epoch or since.offset > window.position.offset:
        return None
    found = sorted((entry for entry in window.entries if entry.offset > since.offset), key=lambda entry: entry.offset)
    return found if len(found) == window.position.offset - since.offset else None


def serving(since: Position | None, window: Window, asked: Position | None) -> Window | None:
    """What ``window``, which was read since ``asked``, is to a reader at ``since``; None: it must be read for them.

    ``since`` None: the reader wants a snapshot.
    """
    if since is None:
        return None if window.resumed else window
    found = missed(since, window)
    if found is not None:
        return replace(window, entries=found, resumed=True)
    return window if since == asked and not window.resumed else None


def oldest(positions: Iterable[Position | None]) -> Position | None:
    """The position that one reading should begin at to serve most of these; None: a snapshot."""
    given = [each for each in positions if each is not None]
    return min(given, key=lambda each: (each.epoch, each.offset), default=None)


class Seam:
    """One reader's place in one stream. ``position``: all up to it was handed on; None: nothing was.

    The reader calls ``begin``, reads the window since ``position``, calls ``arrive`` with it; meanwhile and afterwards
    it gives each live entry to ``offer``. What ``arrive`` returns, and what ``offer`` agrees to, is to be handed on, in
    this order. While ``behind`` the seam takes nothing: the reader must begin again.
    """

    __slots__ = ("_held", "behind", "position")

    def __init__(self, position: Position | None = None) -> None:
        self.position = position
        self.behind = True
        self._held: list[Live] | None = None

    @property
    def holds(self) -> bool:
        """Whether it keeps what is offered, for a window is being read."""
        return self._held is not None

    def begin(self) -> Position | None:
        """From now on keep what is offered; returns since when to read."""
        self.behind = False
        self._held = []
        return self.position

    def fall(self, position: Position | None = None) -> None:
        """Let go of what is offered from now on. ``position``: where the reader really is, if that is further back."""
        self.behind = True
        self._held = None
        if position is not None:
            self.position = position

    def arrive(self, window: Window) -> list[Event]:
        """The window that was asked for after ``begin``: what of it is new, then what was offered meanwhile."""
        out = self._take_window(window)
        held, self._held = self._held or [], None
        return [*out, *(live for live in held if self.offer(live))]

    def offer(self, live: Live) -> bool:
        """Whether a live entry is the next, to be handed on; not when it is known or kept, nor when it leaves a hole:
        then the seam is ``behind``.
        """
        if self._held is not None:
            self._held.append(live)
        if self.behind or self._held is not None:
            return False
        at, offset = self.position, live.entry.offset
        if at is not None and live.epoch == at.epoch and offset <= at.offset + 1:
            if offset <= at.offset:
                return False
            self.position = live.position
            return True
        self.fall()
        return False

    def has(self, position: Position) -> bool:
        """Whether all up to a position was handed on."""
        at = self.position
        return at is not None and at.epoch == position.epoch and position.offset <= at.offset

    def _take_window(self, window: Window) -> list[Event]:
        found = None if self.position is None else missed(self.position, window)
        if found is None and window.resumed:  # of a reader that has been set back since it asked
            self.fall()
            return []
        self.position = window.position
        if found is None:
            return [replace(window, resumed=False)]
        return [Live(window.position.epoch, entry) for entry in found]

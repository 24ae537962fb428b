"""What the demonstration shows while it runs: live prices, and each time a provider is left aside or taken back."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NoReturn

from mdtasks.cli.frame import say
from mdtasks.cli.output import text_of
from mdtasks.domain.errors import UnavailableError

if TYPE_CHECKING:
    from mdtasks.connections import Database
    from mdtasks.store.providers import Entry

#: How often the store is looked at, seconds.
_LOOK_EVERY_S: Final = 2.0
#: Transitions that are read at a look; more than come in between.
_NEWEST: Final = 50
_ASIDE: Final = ("demoted", "paused")


class Watcher:
    """Tells what is new at each look. ``order``: the providers in the order in which they are asked for live bars."""

    def __init__(self, database: Database, order: Sequence[str]) -> None:
        self._database = database
        self._order = order
        self._shown: datetime | None = None
        #: The transitions that were seen, by provider, time and kind; None before the first look.
        self._seen: set[tuple[str, datetime, str]] | None = None

    def run(self, beside: Callable[[datetime], None] = lambda _now: None) -> NoReturn:
        """Look for ever, and do ``beside`` each time. A server that is away for a while is waited for."""
        say(dim("live bars follow, a line a minute"))
        while True:
            with suppress(UnavailableError):
                now = datetime.now(UTC)
                self.run_once(now)
                beside(now)
            time.sleep(_LOOK_EVERY_S)

    def run_once(self, now: datetime) -> None:
        """A line for each transition put on record since the last look, and one when a minute of live bars came."""
        for line in self._transitions():
            say(line)
        from mdtasks.flows.demo import ALWAYS, newest

        found = newest(self._database, ALWAYS, now)
        latest = max((at for at, _, _ in found.values()), default=None)
        if latest is not None and (self._shown is None or latest > self._shown):
            self._shown = latest
            prices = "   ".join(_price(symbol, *found[symbol][1:]) for symbol in ALWAYS if symbol in found)
            say(f"{latest:%H:%M} UTC   {prices}")

    def _transitions(self) -> list[str]:
        """The lines of the new ones, the oldest first; of those from before the first look none."""
        from mdtasks.store import providers

        with self._database.transaction() as connection:
            entries = providers.transitions(connection, most=_NEWEST)[::-1]
        keys = {(each.provider, each.at, each.kind) for each in entries}
        seen, self._seen = keys if self._seen is None else self._seen, keys
        aside: set[str] = set()
        lines = []
        for entry in entries:
            (aside.add if entry.kind in _ASIDE else aside.discard)(entry.provider)
            if (entry.provider, entry.at, entry.kind) not in seen:
                serving = next((name for name in self._order if name not in aside), None)
                lines.append(transition_line(entry, serving))
        return lines


def transition_line(entry: Entry, serving: str | None) -> str:
    """A transition in a line. ``serving``: who is asked first after it; None: nobody is well."""
    left_aside = entry.kind in _ASIDE
    if "by" in entry.case:
        why = f" by {entry.case['by']}" + (f": {entry.case['reason']}" if entry.case["reason"] else "")
    else:
        evidence, rules = entry.case["evidence"], entry.case["rules"]
        why = f": evidence {evidence:.2f} " + (f"< {rules['demote']:g}" if left_aside else f">= {rules['promote']:g}")
    serves = f"{serving} serves" if serving else "nobody is well"
    kind = coloured(entry.kind, "31" if left_aside else "32")
    hint = dim(f"(mdtasks providers {entry.provider})")
    return f"{entry.at:%H:%M:%S} UTC  {entry.provider} {kind}{text_of(why)}; {serves}   {hint}"


def _price(symbol: str, close: float, before: float) -> str:
    mark, colour = ("▲", "32") if close > before else ("▼", "31") if close < before else ("=", "2")
    return f"{symbol} {close:>10,.2f} {coloured(mark, colour)}"


def coloured(text: str, colour: str) -> str:
    """``text`` in an ANSI colour, on a terminal."""
    return f"\x1b[{colour}m{text}\x1b[0m" if sys.stderr.isatty() else text


def dim(text: str) -> str:
    """``text`` dimmed, on a terminal."""
    return coloured(text, "2")

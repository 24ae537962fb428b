"""The demonstration of `mdtasks up --demo`: a small universe of simulated bars. Safe to repeat."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final

from mdtasks.connections import Database
from mdtasks.domain.bars import from_us
from mdtasks.domain.errors import HeldBackError
from mdtasks.domain.jobs import Interval, Tier, TimeWindow
from mdtasks.flows.actions import Which, refresh
from mdtasks.flows.backfill import Answer, BackfillRequest, request_backfill
from mdtasks.flows.deps import Deps
from mdtasks.flows.scan import scan_tier
from mdtasks.store.bars import read_bars
from mdtasks.store.reference import Instrument, add_instruments, resolve

#: Who asks, for the record of requests.
ACTOR: Final = "demo"
SESSIONS: Final = 5
UNIVERSE: Final = (
    Instrument("AAPL", "XNYS", tier=Tier.T0),
    Instrument("SPY", "XNYS", tier=Tier.T0),
    Instrument("MSFT", "XNYS", tier=Tier.T1),
    Instrument("NVDA", "XNYS", tier=Tier.T2),
    Instrument("BTC-USD", "24/7", "crypto", Tier.T0),
    Instrument("ETH-USD", "24/7", "crypto", Tier.T0),
)
#: Those that have corporate actions.
EQUITIES: Final = tuple(each.symbol for each in UNIVERSE if each.kind == "equity")
#: Those that trade at any hour, so that live bars arrive whenever the demonstration is looked at.
ALWAYS: Final = tuple(each.symbol for each in UNIVERSE if each.mic == "24/7")


def seed(deps: Deps, now: datetime) -> Answer:
    """Add the universe where it is missing, and ask for the last sessions of 1m bars that are not stored yet.

    What else its tiers keep is asked for too: the next scan would, but somebody is looking now.
    """
    with deps.database.transaction() as connection:
        add_instruments(connection, UNIVERSE)
    symbols = tuple(each.symbol for each in UNIVERSE)
    asked = BackfillRequest(symbol=symbols, interval=Interval.M1, sessions=SESSIONS, provider="simulator")
    answer = request_backfill(asked, ACTOR, deps, now)
    for tier in Tier:
        scan_tier(tier, deps, now)
    with suppress(HeldBackError):  # beat's next round asks again
        refresh(deps, now, Which(symbols=EQUITIES, source="simulator"))
    return answer


def ask_further(deps: Deps, number: int, now: datetime) -> Answer:
    """Ask for one more day of minutes of a symbol that always trades: the ``number``-th before those of ``seed``.

    Any provider may serve it. What is stored is asked for again, so that there is a job each time.
    """
    day = now.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=SESSIONS + 1 + number)
    symbol = ALWAYS[number % len(ALWAYS)]
    asked = BackfillRequest(symbol=(symbol,), start=day, end=day + timedelta(days=1), refetch=True)
    return request_backfill(asked, ACTOR, deps, now)


def newest(database: Database, symbols: Sequence[str], now: datetime) -> dict[str, tuple[datetime, float, float]]:
    """Of each symbol with a bar in the last 15 minutes: the newest one's start, its close, and the close before it."""
    window = TimeWindow(start=now - timedelta(minutes=15), end=now)
    found = {}
    with database.transaction() as connection:
        for symbol, member in resolve(connection, symbols).items():
            bars = read_bars(connection, member.id, Interval.M1, window).bars
            if len(bars):
                at = from_us(int(bars.ts_us[-1]))
                found[symbol] = (at, float(bars.close[-1]), float(bars.close[max(len(bars) - 2, 0)]))
    return found

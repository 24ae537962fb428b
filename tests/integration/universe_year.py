"""A year of daily listings of made-up symbols, with births, deaths, renamings and tickers that pass to others.

``python -m tests.integration.universe_year SYMBOLS DAYS STEP replay|recompute`` takes them into the store of this
process's environment and activates each version, or makes each STEP-th version there again; prints a line a version.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta

from mdtasks.domain.listings import Kept
from mdtasks.flows.deps import Deps, open_deps
from mdtasks.flows.universe import Asked, activate, refresh
from mdtasks.flows.universe_bundle import bundle_of, checked
from mdtasks.store import universe as store

FIRST = date(2023, 1, 2)
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(slots=True)
class Company:
    """``id`` is the source's own; ``size`` decides what it trades."""

    id: str
    symbol: str
    size: float
    price: float


def listings(symbols: int, days: int) -> Iterator[Kept]:
    """The same bytes for the same numbers, on any machine: a listing a weekday."""
    chance = random.Random(20230102)
    market = [Company(f"id-{n}", _name(n), chance.paretovariate(1.1), chance.uniform(1, 500)) for n in range(symbols)]
    made, day = symbols, FIRST
    for _ in range(days):
        yield Kept(day, _body(market, chance))
        for _ in range(max(symbols // 2000, 1)):
            dead = market.pop(chance.randrange(len(market)))
            # Another company takes the ticker of the dead one at once, or a new one.
            symbol = dead.symbol if chance.random() < 0.3 else _name(made)
            market.append(Company(f"id-{made}", symbol, chance.paretovariate(1.1), chance.uniform(1, 500)))
            made += 1
            renamed = chance.choice(market)
            renamed.symbol = _name(made)
            made += 1
            one, other = chance.sample(market, 2)
            if chance.random() < 0.2:
                one.symbol, other.symbol = other.symbol, one.symbol
        day += timedelta(days=3 if day.weekday() == 4 else 1)


def _name(number: int) -> str:
    name = ""
    for _ in range(4):
        number, letter = divmod(number, 26)
        name = _LETTERS[letter] + name
    return name


def _body(market: list[Company], chance: random.Random) -> bytes:
    lines = ["id,symbol,mic,close,volume"]
    for one in market:
        one.price = max(one.price * chance.uniform(0.97, 1.03), 0.01)
        lines.append(f"{one.id},{one.symbol},XNYS,{one.price:.4f},{int(one.size * chance.uniform(500, 1500))}")
    return "\n".join(lines).encode()


def replay(deps: Deps, symbols: int, days: int) -> Iterator[str]:
    """Take and activate each day's listing; (tag, hash, hash of the members) of each version."""
    for kept in listings(symbols, days):
        version = refresh("csv", [kept], Asked("year"), deps).version
        activate(version.version_tag, "year", "", deps)
        yield f"{version.version_tag} {version.hash} {version.members_sha256}"


def recompute(deps: Deps, step: int) -> Iterator[str]:
    """The same of each ``step``-th version in the store, made again; one that is another now says so."""
    with deps.database.transaction() as connection:
        versions = store.history(connection, 1000)[::-1][::step]
    for version in versions:
        with deps.database.transaction() as connection:
            found = checked(bundle_of(connection, version))
        yield f"{found.tag} {found.hash} {found.members_sha256}" + ("" if found.same else " ANOTHER")


def main() -> None:
    """See the module."""
    deps = open_deps(application="tests")
    symbols, days, step = map(int, sys.argv[1:4])
    for line in replay(deps, symbols, days) if sys.argv[4] == "replay" else recompute(deps, step):
        print(line, flush=True)
    deps.close()


if __name__ == "__main__":
    main()

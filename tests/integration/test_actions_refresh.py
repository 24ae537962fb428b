"""A round of asking providers about corporate actions: whom, about whom, about which days, and what becomes of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest
from sqlalchemy import text

from mdtasks.domain.actions import Action, Days, Kind, standing
from mdtasks.domain.errors import NoDataError, ProviderError, RateSpentError, UnsupportedError, VendorError
from mdtasks.domain.jobs import Interval, Tier, TimeWindow
from mdtasks.domain.universe import Listing
from mdtasks.flows.actions import Which, refresh, refresh_due
from mdtasks.flows.deps import Deps
from mdtasks.flows.fetch import make_partitions
from mdtasks.providers.base import ActionsAnswer
from mdtasks.providers.registry import Registry
from mdtasks.providers.simulator import SimulatorProvider
from mdtasks.settings import Settings
from mdtasks.store import actions, bars, reference
from mdtasks.store.bars import BarBatch
from mdtasks.store.reference import Instrument, add_instruments
from tests.integration.web_server import opened

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
TODAY = NOW.date()
PAST = Action(Kind.DIVIDEND, date(2026, 11, 10), 0.25)
COMING = Action(Kind.DIVIDEND, date(2026, 12, 10), 0.25)


class Teller(SimulatorProvider):
    """A provider that tells what it was told to, and remembers what it was asked."""

    def __init__(self, deps: Deps, name: str, *, size: int = 2) -> None:
        super().__init__(deps.calendars, name=name)
        self.capabilities = replace(self.capabilities, max_symbols=size)
        self.told: dict[str, Sequence[Action] | ProviderError] = {}
        self.fails: list[ProviderError] = []
        self.asked: list[tuple[list[str], Days]] = []

    def fetch_actions(self, listings: Sequence[Listing], days: Days, now: datetime) -> ActionsAnswer:
        symbols = [listing.symbol for listing in listings]
        self.asked.append((symbols, days))
        if self.fails:
            raise self.fails.pop(0)
        given = {symbol: self.told.get(symbol, ()) for symbol in symbols}
        return ActionsAnswer(
            {symbol: [one for one in found if one.ex_date in days] for symbol, found in given.items()
             if not isinstance(found, ProviderError)},
            {symbol: found for symbol, found in given.items() if isinstance(found, ProviderError)},
        )  # fmt: skip


@pytest.fixture
def plain(settings: Settings) -> Iterator[Deps]:
    with opened(settings) as found:
        with found.database.transaction() as connection:
            add_instruments(connection, [Instrument(name, "XNYS", tier=Tier.T0) for name in ("AAPL", "IBM", "MSFT")])
        yield found


def having(plain: Deps, *names: str, size: int = 2) -> tuple[Deps, list[Teller]]:
    """Deps with these providers alone."""
    tellers = [Teller(plain, name, size=size) for name in names]
    registry = Registry(plain.settings, plain.calendars)
    registry._providers = {each.name: each for each in tellers}
    return replace(plain, registry=registry), tellers


def stands(deps: Deps, symbol: str = "AAPL") -> list[tuple[str, str, float | None]]:
    with deps.database.transaction() as connection:
        member = reference.resolve(connection, [symbol])[symbol]
        found = standing(actions.told(connection, [member.id])[member.id])
    return [(str(each.action.ex_date), each.source, each.action.value) for each in found]


def test_equities_are_asked_about_once_a_day_in_calls_that_the_provider_takes(plain: Deps) -> None:
    deps, (teller,) = having(plain, "first")
    teller.told["AAPL"] = [PAST]
    done = refresh(deps, NOW)
    assert [symbols for symbols, _ in teller.asked] == [["AAPL", "IBM"], ["MSFT"]]
    assert (done.answered, done.unanswered, done.told["added"]) == (3, 0, 1)
    assert stands(deps) == [("2026-11-10", "first", 0.25)]
    with deps.database.transaction() as connection:  # the server's clock told when they were asked
        asked_at = actions.answers(connection, [reference.resolve(connection, ["AAPL"])["AAPL"].id])[0].asked_at
    assert refresh(deps, asked_at + timedelta(hours=1)).answered == 0
    again = refresh(deps, asked_at + timedelta(hours=21))
    assert (again.answered, sum(again.told.values())) == (3, 0)


def test_a_first_question_reaches_back_to_the_first_bar_and_later_ones_do_not(plain: Deps) -> None:
    deps, (teller,) = having(plain, "first", size=5)
    since = datetime(2020, 1, 2, tzinfo=UTC)
    listing = Listing("AAPL", "XNYS")
    window = TimeWindow(start=since, end=since + timedelta(days=1))
    made = SimulatorProvider(deps.calendars).fetch_bars([listing], Interval.D1, window, NOW).bars["AAPL"]
    make_partitions(deps, [made])
    with deps.database.transaction() as connection:
        member = reference.resolve(connection, ["AAPL"])["AAPL"]
        batch = BarBatch(member.id, made, int(made.ts_us[-1]) + 1, covered=[window])
        bars.write_bars(connection, Interval.D1, [batch], "files", 1)
    refresh(deps, NOW)
    assert {tuple(symbols): days.first for symbols, days in teller.asked} == {
        ("AAPL",): date(2020, 1, 2),
        ("IBM", "MSFT"): TODAY - timedelta(days=365),
    }
    teller.asked.clear()
    refresh(deps, NOW, Which(("AAPL",)))
    ((_, days),) = teller.asked
    assert (days.first, days.last) == (TODAY - timedelta(days=30), TODAY + timedelta(days=60))


def test_what_the_first_cannot_tell_the_next_is_asked(plain: Deps) -> None:
    deps, (first, second) = having(plain, "first", "second")
    first.told["IBM"] = NoDataError("no symbol IBM", provider="first")
    first.fails = []
    second.told["IBM"] = [PAST]
    done = refresh(deps, NOW)
    assert [symbols for symbols, _ in second.asked] == [["IBM"]]
    assert (done.answered, done.unanswered) == (3, 0)
    assert "no symbol IBM" in done.errors["IBM"]
    assert stands(deps, "IBM") == [("2026-11-10", "second", 0.25)]


def test_who_has_no_answer_is_not_asked_again_on_the_same_day_unless_a_person_asks(plain: Deps) -> None:
    deps, (first, second) = having(plain, "first", "second", size=5)
    first.told["IBM"] = second.told["IBM"] = NoDataError("no symbol IBM", provider="first")
    first.told["AAPL"] = VendorError("500 of one", provider="first")
    second.told["AAPL"] = VendorError("500 of one", provider="second")
    assert refresh(deps, NOW).unanswered == 2
    first.asked.clear()
    second.asked.clear()
    assert refresh(deps, NOW).unanswered == 2
    assert [symbols for symbols, _ in (*first.asked, *second.asked)] == [["AAPL"], ["AAPL"]]  # it may do better now
    first.asked.clear()
    refresh(deps, NOW, Which(("IBM",)))
    assert [symbols for symbols, _ in first.asked] == [["IBM"]]
    with deps.database.transaction() as connection:
        (answered, _) = actions.answers(connection, [reference.resolve(connection, ["IBM"])["IBM"].id])
    assert (answered.days, answered.error) == (None, "first: no symbol IBM")


def test_a_round_that_has_no_time_asks_nobody_and_forgets_nobody(plain: Deps) -> None:
    deps, (teller,) = having(plain, "first")
    assert refresh(deps, NOW, for_s=-1.0).unanswered == 3
    assert teller.asked == []
    assert refresh(deps, NOW).answered == 3


def test_a_call_that_fails_leaves_its_symbols_to_the_next_and_one_held_back_ends_the_turn(plain: Deps) -> None:
    deps, (first, second) = having(plain, "first", "second", size=1)
    first.fails = [VendorError("500", provider="first"), RateSpentError("spent", provider="first")]
    done = refresh(deps, NOW)
    assert [symbols for symbols, _ in first.asked] == [["AAPL"], ["IBM"]]
    assert [symbols for symbols, _ in second.asked] == [["AAPL"], ["IBM"], ["MSFT"]]
    assert (done.answered, done.unanswered) == (3, 0)


def test_what_is_announced_moves_and_is_called_off(plain: Deps) -> None:
    deps, (teller,) = having(plain, "first")
    teller.told["AAPL"] = [PAST, COMING]
    assert refresh(deps, NOW).told["added"] == 2
    moved = replace(COMING, ex_date=COMING.ex_date + timedelta(days=4))
    teller.told["AAPL"] = [PAST, moved]
    assert dict(refresh(deps, NOW, Which(("AAPL",))).told) == {"added": 1, "withdrawn": 1}
    assert stands(deps) == [("2026-11-10", "first", 0.25), ("2026-12-14", "first", 0.25)]
    teller.told["AAPL"] = []
    assert dict(refresh(deps, NOW, Which(("AAPL",))).told) == {"withdrawn": 1}
    assert stands(deps) == [("2026-11-10", "first", 0.25)]  # what happened stays, though nobody tells of it


def test_one_source_can_be_asked_alone_and_does_not_count_twice(plain: Deps) -> None:
    deps, (first, second) = having(plain, "first", "second")
    first.told["AAPL"] = second.told["AAPL"] = [PAST]
    refresh(deps, NOW)
    assert refresh(deps, NOW, Which(source="second")).told["added"] == 1
    assert stands(deps) == [("2026-11-10", "first", 0.25)]


def test_an_answer_that_contradicts_itself_fails_its_symbol_alone(plain: Deps) -> None:
    deps, (teller,) = having(plain, "first")
    teller.told["AAPL"] = [replace(PAST, currency="USD"), replace(PAST, currency="CAD")]
    teller.told["IBM"] = [PAST]
    done = refresh(deps, NOW)
    assert (done.answered, done.told["added"]) == (2, 1)
    assert "dividends of 2026-11-10 in" in done.errors["AAPL"]


def test_where_nobody_has_actions_a_round_is_nothing_and_a_person_is_told(plain: Deps) -> None:
    deps, _ = having(plain)
    counts = ("answered", "unanswered", "added", "corrected", "withdrawn", "suspect", "resolved")
    nothing = {**dict.fromkeys(counts, 0), "names": 0, "lives": 0, "unclear": [], "errors": {}}
    assert refresh_due(deps, NOW).as_dict() == nothing
    with pytest.raises(UnsupportedError, match="no configured provider serves"):
        refresh(deps, NOW, Which(("AAPL",)))


def test_the_simulators_own_actions_fit_its_bars(plain: Deps) -> None:
    """Each split of a made-up company shows in its daily bars, and the check finds nothing wrong."""
    deps, names = plain, [f"S{n}" for n in range(30)]
    with deps.database.transaction() as connection:
        add_instruments(connection, [Instrument(name, "XNYS") for name in names])
    simulator = deps.registry.get("simulator")
    listings = [Listing(name, "XNYS") for name in names]
    told = simulator.fetch_actions(listings, Days(date(2012, 1, 1), date(2024, 1, 1)), NOW).actions
    splits = {symbol: one for symbol, found in told.items() for one in found if one.kind is Kind.SPLIT}
    assert 3 < len(splits) < 20
    assert sum(one.kind is Kind.DIVIDEND for found in told.values() for one in found) > 200
    for symbol, split in list(splits.items())[:4]:
        day = datetime(split.ex_date.year, split.ex_date.month, split.ex_date.day, tzinfo=UTC)
        window = TimeWindow(start=day - timedelta(days=7), end=day + timedelta(days=2))
        made = simulator.fetch_bars([Listing(symbol, "XNYS")], Interval.D1, window, NOW).bars[symbol]
        assert split.value is not None
        at = int((made.ts_us < int(day.timestamp()) * 1_000_000).sum())
        assert made.close[at - 1] / made.open[at] == pytest.approx(split.value, rel=0.03)
        minute = TimeWindow(start=day - timedelta(days=4), end=day + timedelta(days=1))
        fine = simulator.fetch_bars([Listing(symbol, "XNYS")], Interval.M1, minute, NOW).bars[symbol]
        assert made.close[at - 1] == fine.close[fine.ts_us < int(day.timestamp()) * 1_000_000][-1]
    with deps.database.transaction() as connection:
        assert connection.execute(text("SELECT count(*) FROM dead_letters")).scalar_one() == 0

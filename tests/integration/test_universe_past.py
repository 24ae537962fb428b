"""Whom the universe followed as of an instant, called and listed as they were then, whatever was told of them later."""

from __future__ import annotations

import itertools
import threading
from contextlib import suppress
from datetime import date, datetime, timedelta
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from mdtasks.domain.actions import Action, Kind
from mdtasks.domain.errors import BusyError, InvalidRequestError, MdtasksError, UnknownSymbolError
from mdtasks.domain.jobs import Tier
from mdtasks.flows import action_names
from mdtasks.flows import as_of as flow
from mdtasks.flows import universe_symbols as names
from mdtasks.flows.action_names import follow
from mdtasks.flows.action_records import tell, withdraw
from mdtasks.flows.deps import Deps
from mdtasks.store import reference
from mdtasks.store.reference import Instrument
from tests.integration.cli_calls import Cli
from tests.integration.test_diff import clock
from tests.integration.universe_calls import csv_of, held

SYMBOLS = ("AA", "BB", "CC", "DD")
_days = itertools.count()

_symbol = st.sampled_from(SYMBOLS)
_tier = st.sampled_from(list(Tier))
_day = st.sampled_from([date(2020, 1, 1), date(2024, 6, 3), None])
_event: st.SearchStrategy[tuple[str, tuple[Any, ...]]] = st.one_of(
    st.tuples(st.just("add"), st.tuples(_symbol, _tier)),
    st.tuples(st.just("rename"), st.tuples(_symbol, _symbol)),
    st.tuples(st.just("delist"), st.tuples(_symbol, _day)),
    st.tuples(st.just("move"), st.tuples(st.lists(_symbol, min_size=1, max_size=3, unique=True), _tier)),
    st.tuples(st.just("hold"), st.tuples(st.lists(_symbol, min_size=1, max_size=4, unique=True))),
    st.tuples(st.just("act"), st.tuples(_symbol, _symbol)),
    st.tuples(st.just("hoax"), st.tuples(_symbol)),
)


class Universe:
    """What may happen to a universe; what cannot be is refused and changes nothing."""

    def __init__(self, deps: Deps) -> None:
        self.deps = deps
        with deps.database.transaction() as connection:
            connection.execute(
                text(
                    "TRUNCATE instruments, symbols, symbol_revisions, instrument_revisions, universe_activations, "
                    "universe_members, universe_versions, listing_snapshots, listing_keys, corporate_actions, "
                    "dead_letters RESTART IDENTITY CASCADE"
                )
            )

    def add(self, symbol: str, tier: Tier) -> None:
        with self.deps.database.transaction() as connection:
            reference.add_instruments(connection, [Instrument(symbol, "XNYS", tier=tier)])

    def rename(self, old: str, new: str) -> None:
        now = clock(self.deps.database)
        names.rename((old, new), now.date(), "ann", self.deps.database, now)

    def delist(self, symbol: str, day: date | None) -> None:
        names.delist(symbol, day, "ann", self.deps.database)

    def move(self, symbols: list[str], tier: Tier) -> None:
        with self.deps.database.transaction() as connection:
            reference.set_tier(connection, symbols, tier, "ann")

    def hold(self, symbols: list[str]) -> None:
        """Let a version of a listing hold: the first of them matter most."""
        rows = [f"{symbol},XNYS,10,{(9 - place) * 1000}" for place, symbol in enumerate(symbols)]
        held(self.deps, csv_of(*rows), date(2024, 1, 2) + timedelta(days=next(_days)))

    def act(self, old: str, new: str) -> None:
        """A provider tells of a renaming."""
        self._told(tell(self.deps.database, [(old, Action(Kind.RENAME, date(2024, 6, 3), symbol=new))], "alpaca", "me"))

    def hoax(self, symbol: str) -> None:
        self._told(withdraw(self.deps.database, symbol, (date(2024, 6, 3), Kind.RENAME, ""), "me", "a hoax"))

    def _told(self, change: Any) -> None:
        follow(self.deps.database, change.about, self.deps.calendars, clock(self.deps.database))

    def told(self, at: datetime | None = None) -> tuple[list[Instrument], dict[str, Instrument]]:
        with self.deps.database.transaction() as connection:
            return reference.instruments(connection, as_of=at), reference.current(connection, SYMBOLS, at)


@given(history=st.lists(_event, min_size=2, max_size=10))
@settings(max_examples=16, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_as_of_any_instant_the_universe_is_what_was_told_then(
    deps: Deps, history: list[tuple[str, tuple[Any, ...]]]
) -> None:
    world = Universe(deps)
    known = []
    for name, words in history:
        with suppress(MdtasksError):
            getattr(world, name)(*words)
        now = clock(deps.database)
        found = world.told()
        assert world.told(now) == found
        known.append((now, found))
    for as_of, found in known:
        assert world.told(as_of) == found


@pytest.fixture
def world(deps: Deps) -> Universe:
    """FB and WM, followed in T1."""
    made = Universe(deps)
    made.add("FB", Tier.T1)
    made.add("WM", Tier.T1)
    return made


def test_what_is_asked_for_by_a_later_name_is_refused_with_the_one_of_then(
    world: Universe, client: httpx.Client
) -> None:
    then = clock(world.deps.database).isoformat().replace("+00:00", "Z")
    world.rename("FB", "META")
    for path in (f"/gaps/FB?as_of={then}", f"/bars/FB?as_of={then}&start=2026-11-02", f"/actions/FB?as_of={then}"):
        assert client.get(path).json()["symbol"] == "FB", path
        later = client.get(path.replace("/FB", "/META"))
        assert (later.json()["code"], later.json()["field"]) == ("unknown_symbol", "symbol"), path
        assert later.json()["hint"] == "META was called FB then: ask for that"
        given_up = client.get(path.partition("?")[0]).json()
        assert (given_up["code"], given_up["hint"]) == ("unknown_symbol", "FB is called META now: ask for that")
    never = client.get(f"/bars/MEAT?as_of={then}").json()
    assert "did you mean META?" in never["error"]
    assert "--as-of` shows whom" in never["hint"]
    world.add("FB", Tier.T0)  # another company; what was called so then is the first one
    with world.deps.database.transaction() as connection:
        early = reference.resolve(connection, ["FB"], as_of=datetime.fromisoformat(then))["FB"]
        assert (early.id, early.tier) == (1, Tier.T1)
        assert reference.resolve(connection, ["FB"])["FB"].id != 1


def test_a_change_that_is_under_way_is_waited_for_and_is_seen_whole(world: Universe) -> None:
    database = world.deps.database
    asked, answered = threading.Event(), threading.Event()
    seen: list[list[str]] = []

    def read(at: datetime) -> None:
        asked.set()
        flow.await_changes(database, at)
        with database.transaction() as connection:
            seen.append([each.symbol for each in reference.instruments(connection, as_of=at)])
        answered.set()

    with database.transaction() as connection:
        reference.set_tier(connection, ["FB"], Tier.T0, "ann")
        connection.execute(text("UPDATE symbols SET symbol = 'META' WHERE symbol = 'FB'"))
        at = clock(database)
        reader = threading.Thread(target=read, args=(at,))
        reader.start()
        asked.wait()
        waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'advisory'"
        while not connection.execute(text(waits)).scalar_one():
            assert not answered.is_set()
        connection.execute(text("UPDATE symbols SET symbol = 'WMX' WHERE symbol = 'WM'"))  # dated as the first
    reader.join()
    assert seen == [["META", "WMX"]]


def test_who_changes_the_universe_for_too_long_is_not_waited_for(
    world: Universe, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow, "_LOCK_S", 0.05)
    database = world.deps.database
    with database.transaction() as connection:
        reference.lock(connection)
        at = clock(database)
        with pytest.raises(BusyError, match="still is"):
            flow.await_changes(database, at)
        flow.await_changes(database, at - timedelta(hours=1))  # settled: nobody is waited for
    flow.await_changes(database, at)


def test_an_instant_is_not_settled_while_a_change_that_may_bear_it_is_open(
    world: Universe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where nothing is written yet."""
    monkeypatch.setattr(flow, "_SETTLED_S", 0.0)
    monkeypatch.setattr(flow, "_LOCK_S", 0.05)
    database = world.deps.database
    with database.transaction() as connection:
        connection.execute(text("UPDATE instruments SET tier = 'T0' WHERE false"))
        at = clock(database)
        with pytest.raises(BusyError):
            flow.await_changes(database, at)
        connection.execute(text("UPDATE instruments SET tier = 'T0'"))
    flow.await_changes(database, at)
    members, _ = world.told(at)
    assert {each.tier for each in members} == {Tier.T0}


def test_an_instant_to_come_by_the_clock_of_the_store_is_refused(world: Universe) -> None:
    to_come = clock(world.deps.database) + timedelta(minutes=1)
    with pytest.raises(InvalidRequestError, match="the store's clock says") as refused:
        flow.await_changes(world.deps.database, to_come)
    assert refused.value.field == "as_of"


def test_names_do_not_wait_for_ever_for_their_turn(world: Universe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(action_names, "_LOCK_S", 0.05)
    with world.deps.database.transaction() as connection:
        reference.lock(connection)
        with pytest.raises(BusyError):
            world.act("FB", "META")
    world.act("FB", "META")
    assert "META" in {each.symbol for each in world.told()[0]}


def test_no_writer_can_forget_the_history_nor_its_turn(world: Universe) -> None:
    """What a person types in the database is on record as well, and waits for its turn."""
    database = world.deps.database
    before = clock(database)
    with database.transaction() as connection:
        connection.execute(text("UPDATE instruments SET tier = 'T2', mic = 'XLON', kind = 'index'"))
        connection.execute(text("DELETE FROM symbols WHERE symbol = 'WM'"))
        held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND pid = pg_backend_pid()"
        assert connection.execute(text(held)).scalar_one() == 1
    now, _ = world.told()
    then, _ = world.told(before)
    assert [(each.symbol, each.tier) for each in now] == [("FB", Tier.T2)]
    assert [(each.symbol, each.tier) for each in then] == [("FB", Tier.T1), ("WM", Tier.T1)]
    assert {(each.mic, each.kind) for each in then} == {("XNYS", "equity")}


def test_the_commands_show_the_universe_of_then_and_who_moved_whom(cli: Cli, cli_deps: Deps) -> None:
    world = Universe(cli_deps)
    world.add("FB", Tier.T1)
    world.add("WM", Tier.T1)
    first = clock(cli_deps.database).isoformat()
    held(cli_deps, csv_of("FB,XNYS,10,1000"))
    second = clock(cli_deps.database).isoformat()
    assert cli("universe", "set-tier", "FB", "--tier", "T2").code == 0
    world.rename("FB", "META")
    world.delist("META", date(2026, 11, 3))
    names_of = [cli("universe", "list", "--names", *words).out.split() for words in ((), ("--as-of", first))]
    assert names_of == [["META", "WM"], ["FB", "WM"]]
    then, _ = cli("universe", "list", "--json", "--as-of", second).json
    assert (then["symbol"], then["tier"], then["delisted_on"]) == ("FB", "T0", None)
    assert cli("universe", "list", "--as-of", "2999-01-01").code == 2
    assert "followed nobody as of 2020-01-01" in cli("universe", "list", "--as-of", "2020-01-01").err
    shown = cli("universe", "show", "--as-of", second, "--json").json
    assert (shown["active"], [each["symbol"] for each in shown["listed"]]) == (True, ["FB"])
    held(cli_deps, csv_of("WM,XNYS,10,1000"), date(2024, 1, 3))
    assert cli("universe", "show", "--as-of", second, "--json").json == shown  # also that it held
    tier = cli("diff", "META", "--from", first, "--json").json["tier"]
    told = [(row["before"], row["tier"], row["source"].partition(":")[0], row["rank"]) for row in tier["rows"]]
    assert (tier["before"], tier["after"]) == ("T1", None)
    assert told == [("T1", "T0", "version", 1), ("T0", "T2", "person", None), ("T2", None, "version", None)]
    assert all(row["actor"] for row in tier["rows"])
    assert "tier T1 then, none later" in cli("diff", "META", "--from", first).out
    assert cli("gaps", "META", "--explain", "--json").json[0]["tier"] is None
    assert cli("why", "META", "2026-11-02T15:00Z", "--json").json["tier"] is None
    with cli_deps.database.transaction() as connection:
        found = connection.execute(text("SELECT action FROM audit_log ORDER BY id")).scalars().all()
    assert {"universe.tier", "universe.rename", "universe.delist"} <= set(found)


def test_an_unknown_symbol_of_then_names_all_and_the_first_five() -> None:
    error = UnknownSymbolError([f"S{n}" for n in range(7)], as_of=datetime.fromisoformat("2026-01-01T00:00Z"))
    assert str(error).startswith("unknown symbol S0, S1, S2, S3, S4 and 2 more as of 2026-01-01T00:00:00+00:00")


def test_differences_between_two_moments_are_the_same_whatever_is_told_later(cli: Cli, cli_deps: Deps) -> None:
    cli("universe", "add", "FB", "--mic", "XNYS")
    moments = [clock(cli_deps.database).isoformat() for _ in range(2)]
    asked = ("diff", "FB", "--from", moments[0], "--to", moments[1], "--interval", "1d", "--json")
    first = cli(*asked).json
    assert cli("calendar", "close", "XNYS", first["start"][:10], "--reason", "a test").code == 0
    assert cli("universe", "rename", "FB", "META").code == 0
    assert cli(*asked).json == first
    assert cli("diff", "META", *asked[2:4], *asked[6:]).json["start"] < first["start"]  # now it is another day

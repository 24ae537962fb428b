"""Names and lives follow the renamings and delistings among the corporate actions, unless something contradicts it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from mdtasks.domain.actions import PERSON, Action, Kind
from mdtasks.domain.bars import Bars, to_us
from mdtasks.domain.jobs import Interval
from mdtasks.flows.action_names import Followed, follow, follow_due
from mdtasks.flows.action_records import tell, withdraw
from mdtasks.flows.actions import refresh
from mdtasks.flows.deps import Deps, open_deps
from mdtasks.flows.fetch import make_partitions
from mdtasks.flows.universe_symbols import delist, rename
from mdtasks.providers.lean import LeanProvider
from mdtasks.providers.registry import Registry
from mdtasks.settings import Settings
from mdtasks.store import bars, letters, reference
from mdtasks.store.bars import BarBatch
from mdtasks.store.letters import LetterFilter
from mdtasks.store.names import _SQL, last_bar
from mdtasks.store.reference import Instrument, add_instruments
from tests.integration.cli_calls import Called, Cli
from tests.integration.universe_calls import borne, counted, csv_of, held, taken, tiers, with_ids

#: A Friday at noon in New York.
NOW = datetime(2024, 3, 8, 17, tzinfo=UTC)
TODAY = NOW.date()
TUESDAY = date(2024, 3, 5)


@pytest.fixture
def deps(settings: Settings) -> Iterator[Deps]:
    found = open_deps(settings, application="tests")
    with found.database.transaction() as connection:
        add_instruments(connection, [Instrument(name, "XNYS") for name in ("FB", "WM", "TWTR")])
    yield found
    found.close()


def follows(deps: Deps, symbol: str, *given: Action, now: datetime = NOW, source: str = "alpaca") -> Followed:
    """What followed when these were told."""
    change = tell(deps.database, [(symbol, each) for each in given], source, "me")
    return follow(deps.database, change.about, deps.calendars, now)


def renamed(symbol: str, on: date = TUESDAY) -> Action:
    return Action(Kind.RENAME, on, symbol=symbol)


def delisted(on: date = TUESDAY) -> Action:
    return Action(Kind.DELISTING, on)


def life(deps: Deps, symbol: str) -> date | None:
    with deps.database.transaction() as connection:
        return reference.resolve(connection, [symbol])[symbol].delisted_on


def open_letters(deps: Deps) -> list[str]:
    with deps.database.transaction() as connection:
        return [row["error_class"] for row in letters.matching(connection, LetterFilter())]


def has_bars(deps: Deps, symbol: str, day: date) -> None:
    at = datetime(day.year, day.month, day.day, tzinfo=UTC)
    made = Bars.of([to_us(at)], [1.0], [1.0], [1.0], [1.0], [1.0])
    make_partitions(deps, [made])
    with deps.database.transaction() as connection:
        one = reference.resolve(connection, [symbol])[symbol]
        bars.write_bars(connection, Interval.D1, [BarBatch(one.id, made, to_us(at) + 1)], "files", 1)


def test_a_renaming_and_an_end_are_followed_once_their_day_has_come(deps: Deps) -> None:
    coming = TODAY + timedelta(days=3)  # Monday
    first = follows(deps, "FB", renamed("META", coming))
    assert first == Followed() == follows(deps, "TWTR", delisted(coming))
    later = NOW + timedelta(days=3)
    assert follow_due(deps.database, (), deps.calendars, later - timedelta(hours=14)) == Followed()  # Sunday night
    done = follow_due(deps.database, (), deps.calendars, later)
    assert (done.renamed, done.lives, done.unclear) == (1, 1, [])
    assert borne(deps, "META") == [(1, "FB", "", str(coming)), (1, "META", str(coming), "")]
    assert life(deps, "TWTR") == coming
    assert follow_due(deps.database, (), deps.calendars, later) == Followed()
    audited = "select count(*) from audit_log where details ->> 'source' = 'actions' and actor = 'actions'"
    assert counted(deps, audited) == 2


def test_what_is_withdrawn_is_undone_and_what_is_corrected_is_moved(deps: Deps) -> None:
    follows(deps, "FB", renamed("META"))
    follows(deps, "TWTR", delisted())
    for symbol, kind in (("META", Kind.RENAME), ("TWTR", Kind.DELISTING)):
        change = withdraw(deps.database, symbol, (TUESDAY, kind, ""), "me", "a hoax")
        follow(deps.database, change.about, deps.calendars, NOW)
    assert borne(deps, "FB") == [(1, "FB", "", "")]
    assert life(deps, "TWTR") is None
    follows(deps, "FB", renamed("META", TODAY), source=PERSON)
    assert borne(deps, "META") == [(1, "FB", "", str(TODAY)), (1, "META", str(TODAY), "")]


def test_a_symbol_of_the_living_is_not_taken_and_a_letter_says_so(deps: Deps) -> None:
    done = follows(deps, "FB", renamed("WM"))
    assert (done.renamed, done.unclear) == (0, ["FB: cannot bear WM, which instrument 2 bears then"])
    assert borne(deps, "FB") == [(1, "FB", "", "")]
    assert open_letters(deps) == ["name_unclear"]
    follow(deps.database, [1], deps.calendars, NOW)
    assert open_letters(deps) == ["name_unclear"]
    delist("WM", TUESDAY, "ops", deps.database)
    assert follow(deps.database, [1], deps.calendars, NOW).renamed == 2  # the dead gives it up
    assert borne(deps, "WM") == [(1, "FB", "", "2024-03-05"), (1, "WM", "2024-03-05", ""), (2, "WM", "", "2024-03-05")]
    assert open_letters(deps) == []


def test_two_swap_their_symbols_in_whatever_order_it_is_told(deps: Deps) -> None:
    assert follows(deps, "FB", renamed("WM")).renamed == 0
    assert follows(deps, "WM", renamed("FB")).renamed == 2
    with deps.database.transaction() as connection:
        assert {name: one.id for name, one in reference.resolve(connection, ["FB", "WM"]).items()} == {"FB": 2, "WM": 1}
    assert open_letters(deps) == []


@pytest.mark.parametrize("action", [renamed("META"), delisted()], ids=str)
def test_one_that_trades_on_is_another_than_the_action_is_about(deps: Deps, action: Action) -> None:
    has_bars(deps, "FB", TODAY)
    done = follows(deps, "FB", action)
    assert (done.renamed, done.lives, len(done.unclear)) == (0, 0, 1)
    assert f"but it has bars of later days under FB, until {TODAY}" in done.unclear[0]
    assert open_letters(deps) == ["name_unclear"]
    told = follows(deps, "FB", action, source=PERSON)  # who looked knows better
    assert (told.renamed + told.lives, told.unclear) == (1, [])
    assert open_letters(deps) == []


@pytest.mark.parametrize("ids", [True, False], ids=["ids", "no ids"])
def test_the_listing_that_holds_has_the_last_word(deps: Deps, ids: bool) -> None:
    rows = ("FB,XNYS,300,9", "WM,XNYS,10,9", "TWTR,XNYS,20,9")
    body = with_ids(*(f"{number},{row}" for number, row in enumerate(rows))) if ids else csv_of(*rows)
    held(deps, body, TODAY)
    for symbol, action in (("FB", renamed("META")), ("TWTR", delisted())):
        done = follows(deps, symbol, action)
        assert (done.renamed, done.lives, len(done.unclear)) == (0, 0, 1)
        assert f"but the csv listing of {TODAY}, which holds, " in done.unclear[0]
    assert (borne(deps, "FB"), life(deps, "TWTR"), open_letters(deps)) == ([(1, "FB", "", "")], None, [])


@pytest.mark.parametrize("ids", [True, False], ids=["ids", "no ids"])
def test_a_listing_of_the_day_before_does_not_bring_the_old_name_back(deps: Deps, ids: bool) -> None:
    rows = ("FB,XNYS,300,9", "WM,XNYS,10,9", "TWTR,XNYS,20,9")

    def listing(*rows: str) -> bytes:
        return with_ids(*(f"{number},{row}" for number, row in enumerate(rows))) if ids else csv_of(*rows)

    held(deps, listing(*rows), TUESDAY - timedelta(days=5))
    follows(deps, "FB", renamed("META", TODAY))
    before = borne(deps, "META")
    made = taken(deps, listing(*rows), TODAY - timedelta(days=1))
    assert (made.births, made.renames, made.skipped) == (0, 0, {})
    assert borne(deps, "META") == before
    assert set(tiers(deps)) == {"META", "WM", "TWTR"}
    now = taken(deps, listing("META,XNYS,300,9", *rows[1:]), TODAY)
    assert (now.births, now.renames, borne(deps, "META")) == (0, 0, before)
    assert held(deps, listing("META,XNYS,300,9", *rows[1:]), TODAY) == {}  # nobody came, nobody left


def test_what_a_listing_says_later_holds_from_its_day_on(deps: Deps) -> None:
    held(deps, with_ids("1,FB,XNYS,300,9"), TUESDAY - timedelta(days=1))
    follows(deps, "FB", renamed("META"))
    held(deps, with_ids("1,MVRS,XNYS,300,9"), TODAY)
    expected = [(1, "FB", "", "2024-03-05"), (1, "META", "2024-03-05", "2024-03-08"), (1, "MVRS", "2024-03-08", "")]
    assert borne(deps, "MVRS") == expected
    assert follow(deps.database, [1], deps.calendars, NOW).renamed == 0
    assert borne(deps, "MVRS") == expected


def test_a_person_has_the_last_word(deps: Deps) -> None:
    follows(deps, "TWTR", delisted())
    delist("TWTR", None, "ops", deps.database)
    done = follow(deps.database, [3], deps.calendars, NOW)
    assert (life(deps, "TWTR"), done.lives) == (None, 0)
    assert done.unclear == ["TWTR: delisted on 2024-03-05 says alpaca, but person that it lives"]
    rename(("FB", "MVRS"), TUESDAY, "me", deps.database, NOW)
    assert follows(deps, "MVRS", renamed("META")).renamed == 0
    assert open_letters(deps) == []


def test_out_of_map_files(deps: Deps, tmp_path: Path) -> None:
    """What LEAN tells: one went back to its old symbol, one took the ticker of another company, which had died."""
    folder = tmp_path / "equity" / "usa" / "map_files"
    folder.mkdir(parents=True)
    (folder / "qqq.csv").write_text("19990310,qqq,Q\n20041130,qqq,Q\n20110322,qqqq,Q\n20501231,qqq,Q")
    (folder / "wm.csv").write_text("19980102,wmx,N\n20120730,wmx,N\n20501231,wm,N")
    (folder / "twtr.csv").write_text("20131107,twtr,N\n20221027,twtr,N")
    delist("WM", date(2008, 9, 26), "ops", deps.database)
    with deps.database.transaction() as connection:
        add_instruments(connection, [Instrument("QQQ", "XNYS"), Instrument("WMX", "XNYS")])
    registry = Registry(deps.settings, deps.calendars)
    registry._providers = {"lean": LeanProvider(tmp_path, deps.calendars)}
    (folder / "wmx.csv").write_text((folder / "wm.csv").read_text())
    with_lean = replace(deps, registry=registry)
    with deps.database.transaction() as connection:  # a first question reaches back to what was answered for first
        connection.exec_driver_sql(
            "INSERT INTO coverage (instrument_id, interval, covered, fresh_until)"
            " SELECT id, '1d', tstzmultirange(tstzrange('1998-01-02', '1998-01-03')), '1998-01-03' FROM instruments"
        )
    done = refresh(with_lean, NOW)
    assert done.followed.unclear == []
    assert borne(deps, "QQQQ") == [
        (4, "QQQ", "", "2004-12-01"),
        (4, "QQQQ", "2004-12-01", "2011-03-23"),
        (4, "QQQ", "2011-03-23", ""),
    ]
    assert borne(deps, "WM") == [
        (2, "WM", "", "2008-09-26"),
        (5, "WMX", "", "2012-07-31"),
        (5, "WM", "2012-07-31", ""),
    ]
    assert life(deps, "TWTR") == date(2022, 10, 28)
    again = refresh(with_lean, NOW + timedelta(days=1))
    assert (again.followed.renamed, again.followed.lives) == (0, 0)


def test_the_command_tells_what_followed(cli: Cli) -> None:
    cli("universe", "add", "FB", "WM", "--mic", "XNYS")
    told = cli("actions", "add", "FB", "2022-06-09", "rename", "--new-symbol", "META", "--reason", "8-K")
    assert "1 instrument bears other symbols" in told.err
    assert cli("universe", "symbols", "META", "--json").json[-1]["valid_from"] == "2022-06-09"
    taken_by = cli(
        "actions", "add", "META", "2022-07-01", "rename", "--new-symbol", "WM", "--reason", "x", "--json"
    ).json
    assert taken_by["unclear"] == ["META: cannot bear WM, which instrument 2 bears then"]
    back = cli("actions", "withdraw", "META", "2022-06-09", "rename", "--reason", "no", "--json").json
    assert back["names"] == 1
    assert cli("universe", "symbols", "FB", "--json").json[-1]["valid_to"] is None


# -- the letters: what they say is true, and what they tell to type works ------------------------------------


def letter(cli: Cli) -> dict[str, Any]:
    (found,) = cli("dlq", "list", "--json").json
    return dict(found)


def settled_by(cli: Cli, said: str) -> None:
    """Type the command of the open letter that begins so: it is followed, and the letter is closed."""
    commands = [each for each in letter(cli)["message"].split("`")[1::2] if each.startswith(f"mdtasks {said} ")]
    assert len(commands) == 1, letter(cli)["message"]
    done = cli(*shlex.split(commands[0])[1:])
    assert (done.code, "not followed" in done.err) == (0, False), done.err
    assert cli("dlq", "list", "--json").json == []


def imported(cli: Cli, path: Path, *rows: str) -> Called:
    """What came of a file's actions, each ``symbol,ex_date,kind,new_symbol``."""
    path.write_text("\n".join(["symbol,ex_date,kind,new_symbol,value", *(f"{row}," for row in rows), ""]))
    return cli("actions", "import", str(path), "--json")


@pytest.fixture
def two(cli: Cli) -> Cli:
    cli("universe", "add", "FB", "WM", "--mic", "XNYS")
    return cli


def test_a_letter_names_what_an_instrument_is_called_once_its_names_followed(two: Cli, tmp_path: Path) -> None:
    path = tmp_path / "actions.csv"
    imported(two, path, "FB,2022-07-01,rename,WM")
    assert letter(two)["symbol"] == "FB"
    told = imported(two, path, "FB,2022-07-01,rename,WM", "FB,2022-06-09,rename,META").json
    assert told["unclear"] == ["META: cannot bear WM, which instrument 2 bears then"]
    assert letter(two)["symbol"] == "META"  # also the one that was written before
    assert letter(two)["message"].startswith("META cannot bear WM")
    settled_by(two, "actions withdraw META")


def test_both_at_once_name_it_too(two: Cli, tmp_path: Path) -> None:
    imported(two, tmp_path / "a.csv", "FB,2022-06-09,rename,META", "FB,2022-07-01,rename,WM")
    assert (letter(two)["symbol"], letter(two)["tier"]) == ("META", "T1")
    settled_by(two, "actions withdraw META")


@pytest.mark.parametrize("said", ["actions add", "actions withdraw"])
@pytest.mark.parametrize("action", ["rename,META", "delisting,"])
def test_one_that_is_told_late_says_what_is_known_and_what_to_do_of_either_case(
    two: Cli, cli_deps: Deps, tmp_path: Path, action: str, said: str
) -> None:
    has_bars(cli_deps, "FB", date(2022, 6, 20))
    (unclear,) = imported(two, tmp_path / "a.csv", f"FB,2022-06-09,{action}").json["unclear"]
    today = datetime.now(UTC).date()
    assert f"on 2022-06-09, file told on {today}, but it has bars of later days under FB, until 2022-06-20" in unclear
    has_bars(cli_deps, "FB", date(2022, 6, 21))  # the vendor goes on
    follow(cli_deps.database, [1], cli_deps.calendars, datetime.now(UTC))
    assert "until 2022-06-21" in letter(two)["message"]
    settled_by(two, said)


def test_what_cannot_be_had_back_is_said_so_and_can_be_settled(two: Cli, tmp_path: Path) -> None:
    imported(two, tmp_path / "a.csv", "FB,2022-06-09,rename,META")
    two("universe", "rename", "WM", "FB", "--on", "2022-07-01")
    back = two("actions", "withdraw", "META", "2022-06-09", "rename", "--reason", "no", "--json")
    assert back.json["unclear"] == ["META: cannot bear FB again, which instrument 2 bears then"]
    settled_by(two, "actions add META")


def test_what_a_provider_calls_it_is_kept_as_told_and_a_letter_asks(two: Cli, cli_deps: Deps) -> None:
    done = follows(cli_deps, "FB", renamed("META WI"), now=datetime.now(UTC))
    assert (done.renamed, done.unclear) == (0, [f"FB: renamed to 'META WI' on {TUESDAY}, which is no symbol here"])
    assert two("actions", "list", "FB", "--json").json["actions"][0]["symbol"] == "META WI"
    settled_by(two, "actions withdraw FB")


def test_a_look_for_later_bars_leaves_the_months_before_out(deps: Deps) -> None:
    days = [date(2023, month, 1) for month in range(1, 13)]
    for day in (*days, TUESDAY):
        has_bars(deps, "FB", day)
    since = datetime(2024, 2, 1, tzinfo=UTC)
    with deps.database.transaction() as connection:
        plan = connection.execute(text(f"EXPLAIN {_SQL['last_bar'].text}"), {"id": 1, "since": since}).scalars().all()
        found = [last_bar(connection, 1, at) for at in (since, datetime(2024, 3, 6, tzinfo=UTC))]
    assert any("bars_2024_03" in line for line in plan)
    assert not any("bars_2023" in line for line in plan)
    assert found == [datetime(2024, 3, 5, tzinfo=UTC), None]

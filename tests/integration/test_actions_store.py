"""Corporate actions through the store: what was read as of a time never changes, and adjusting goes by it."""

from __future__ import annotations

import csv
import hashlib
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from threading import Event, Thread

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from mdtasks.connections import Database
from mdtasks.domain.action_news import News
from mdtasks.domain.actions import PERSON, Action, Days, Kind
from mdtasks.domain.adjustment import Adjust
from mdtasks.domain.bars import Bars, from_us, to_us
from mdtasks.domain.errors import CannotAdjustError, ConflictError, NotFoundError
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.domain.sessions import Calendars
from mdtasks.flows.action_checks import check
from mdtasks.flows.action_files import key_of, read_actions_file
from mdtasks.flows.action_records import listed, tell, withdraw
from mdtasks.flows.adjusting import Wish, adjusted
from mdtasks.store import actions, bar_reports, letters
from mdtasks.store import bars as store_bars
from mdtasks.store.bars import BarBatch, StoredBars
from mdtasks.store.letters import LetterFilter
from mdtasks.store.partitions import ensure_partitions
from mdtasks.store.reference import Instrument, add_instruments, resolve

MONDAY = date(2014, 6, 9)
FRIDAY = date(2014, 6, 6)
WINDOW = TimeWindow(start=datetime(2014, 6, 1, tzinfo=UTC), end=datetime(2014, 7, 1, tzinfo=UTC))


@dataclass(frozen=True)
class Here:
    """A store with AAPL in it, and calendars."""

    database: Database
    calendars: Calendars

    @property
    def member(self) -> Instrument:
        with self.database.transaction() as connection:
            return resolve(connection, ["AAPL"])["AAPL"]

    def write(self, interval: Interval, bars: Bars) -> None:
        ensure_partitions(self.database, "bars", int(bars.ts_us[0]), int(bars.ts_us[-1]))
        with self.database.transaction() as connection:
            batch = BarBatch(self.member.id, bars, final_before_us=int(bars.ts_us[-1]) + 1)
            store_bars.write_bars(connection, interval, [batch], "files", 1)

    def read(
        self,
        adjust: Adjust,
        as_of: datetime | None = None,
        interval: Interval = Interval.D1,
        window: TimeWindow = WINDOW,
    ) -> StoredBars:
        member = self.member
        with self.database.transaction() as connection:
            stored = store_bars.read_bars(connection, member.id, interval, window, as_of)
            return adjusted(self, connection, member, interval, stored, Wish(adjust, as_of, datetime.now(UTC)))

    def now(self) -> datetime:
        """The server's clock."""
        with self.database.transaction() as connection:
            at: datetime = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
            return at

    def findings(self) -> list[str]:
        with self.database.transaction() as connection:
            return [row["error_class"] for row in letters.matching(connection, LetterFilter())]

    def told(self, *given: Action, source: str = "file") -> None:
        tell(self.database, [("AAPL", each) for each in given], source, "tests")


@pytest.fixture(scope="module")
def calendars() -> Calendars:
    return Calendars()


@pytest.fixture
def here(database: Database, calendars: Calendars) -> Here:
    with database.transaction() as connection:
        add_instruments(connection, [Instrument("AAPL", "XNYS")])
    return Here(database, calendars)


def daily(*days: tuple[date, float, float]) -> Bars:
    """Bars of these days: open and close."""
    ts = [to_us(datetime(day.year, day.month, day.day, tzinfo=UTC)) for day, _, _ in days]
    opens, closes = [each[1] for each in days], [each[2] for each in days]
    return Bars.of(ts, opens, np.maximum(opens, closes), np.minimum(opens, closes), closes, [70.0] * len(days))


SPLIT_WEEK = daily((date(2014, 6, 5), 646.2, 647.35), (FRIDAY, 649.9, 645.57), (MONDAY, 92.7, 93.7))
SPLIT = Action(Kind.SPLIT, MONDAY, 7.0)
DIVIDEND = Action(Kind.DIVIDEND, date(2014, 8, 7), 0.47)


def digest(stored: StoredBars) -> str:
    columns = (stored.bars.ts_us, *stored.bars.columns, stored.known_at_us)
    return hashlib.sha256(b"".join(column.tobytes() for column in columns)).hexdigest()


def test_bars_are_adjusted_by_what_was_known_then(here: Here) -> None:
    here.write(Interval.D1, SPLIT_WEEK)
    before = here.now()
    here.told(SPLIT)
    after = here.now()
    assert here.read(Adjust.NONE).bars.close.tolist() == [647.35, 645.57, 93.7]
    assert here.read(Adjust.SPLIT).bars.close.tolist() == [647.35 / 7, 645.57 / 7, 93.7]
    assert here.read(Adjust.SPLIT).bars.volume.tolist() == [490.0, 490.0, 70.0]
    assert here.read(Adjust.SPLIT, before).bars.close.tolist() == [647.35, 645.57, 93.7]
    assert here.read(Adjust.SPLIT, after).bars.close.tolist() == [647.35 / 7, 645.57 / 7, 93.7]


def test_a_correction_and_a_withdrawal_leave_the_past_as_it_was(here: Here) -> None:
    here.write(Interval.D1, SPLIT_WEEK)
    here.told(Action(Kind.SPLIT, MONDAY, 2.0))
    wrong = here.now()
    here.told(SPLIT)
    right = here.now()
    withdraw(here.database, "AAPL", SPLIT.key, "tests", "never happened")
    assert here.read(Adjust.SPLIT).bars.close.tolist() == [647.35, 645.57, 93.7]
    assert here.read(Adjust.SPLIT, right).bars.close.tolist() == [647.35 / 7, 645.57 / 7, 93.7]
    assert here.read(Adjust.SPLIT, wrong).bars.close.tolist() == [647.35 / 2, 645.57 / 2, 93.7]
    with here.database.transaction() as connection:
        rows = connection.execute(text("SELECT id, supersedes, source, withdrawn FROM corporate_actions ORDER BY id"))
        assert [tuple(row) for row in rows] == [
            (1, None, "file", False),
            (2, 1, "file", False),
            (3, None, PERSON, True),
        ]
        audited = connection.execute(text("SELECT action, details->>'reason' FROM audit_log ORDER BY id")).all()
    assert [tuple(each) for each in audited][-1] == ("actions.withdraw", "never happened")
    with pytest.raises(ConflictError, match="was withdrawn on"):
        withdraw(here.database, "AAPL", SPLIT.key, "tests", "again")
    with pytest.raises(NotFoundError, match="nobody told of a dividend"):
        withdraw(here.database, "AAPL", DIVIDEND.key, "tests", "none")


def test_a_dividend_goes_by_the_close_that_was_known_then(here: Here) -> None:
    """The close before a dividend is corrected later on: what was read before stays."""
    early = daily((date(2014, 8, 5), 95.0, 95.0), (date(2014, 8, 6), 94.0, 90.0))
    window = TimeWindow(start=datetime(2014, 8, 1, tzinfo=UTC), end=datetime(2014, 9, 1, tzinfo=UTC))
    here.write(Interval.D1, early)
    here.told(DIVIDEND)
    first = here.now()
    here.write(Interval.D1, daily((date(2014, 8, 6), 94.0, 94.97)))
    kept = here.read(Adjust.TOTAL, window=window).bars.close / here.read(Adjust.NONE, window=window).bars.close
    assert kept.tolist() == pytest.approx([1 - 0.47 / 94.97] * 2)
    then = here.read(Adjust.TOTAL, first, window=window).bars.close
    assert then.tolist() == pytest.approx([95.0 * (1 - 0.47 / 90.0), 90.0 * (1 - 0.47 / 90.0)])


def minutes(*stretches: tuple[str, str, float]) -> Bars:
    """A minute's bar at each of these times of UTC, at its price."""
    ts = [to_us(datetime.fromisoformat(f"{day}T{clock}Z")) for day, clock, _ in stretches]
    prices = [price for _, _, price in stretches]
    return Bars.of(ts, prices, prices, prices, prices, [10.0] * len(ts))


def test_minutes_change_with_the_session_and_find_their_own_closes(here: Here) -> None:
    """Without daily bars the close is that of the last bar in trading hours; after hours belongs to the day before."""
    here.write(
        Interval.M1,
        minutes(
            ("2014-08-06", "19:59", 94.97), ("2014-08-06", "23:30", 99.0),
            ("2014-08-07", "00:30", 99.0), ("2014-08-07", "11:00", 94.0), ("2014-08-07", "13:30", 94.0),
        ),
    )  # fmt: skip
    here.told(DIVIDEND, Action(Kind.SPLIT, date(2014, 8, 7), 2.0))
    window = TimeWindow(start=datetime(2014, 8, 6, tzinfo=UTC), end=datetime(2014, 8, 9, tzinfo=UTC))
    found = here.read(Adjust.TOTAL, interval=Interval.M1, window=window).bars.close
    factor = (1 - 0.47 / 94.97) / 2
    assert found.tolist() == pytest.approx([94.97 * factor, 99.0 * factor, 99.0 * factor, 94.0, 94.0])


def test_without_any_close_the_source_is_asked_for_its_own_or_the_read_is_refused(here: Here) -> None:
    here.write(Interval.D1, SPLIT_WEEK)
    here.told(DIVIDEND)
    with pytest.raises(CannotAdjustError, match="no close is known before the dividend of 2014-08-07"):
        here.read(Adjust.TOTAL)
    assert len(here.read(Adjust.SPLIT)) == 3
    here.told(Action(Kind.DIVIDEND, DIVIDEND.ex_date, 0.47, reference=94.97))
    assert here.read(Adjust.TOTAL).bars.close[2] == pytest.approx(93.7 * (1 - 0.47 / 94.97))


def test_an_announced_action_changes_nothing_before_its_day(here: Here) -> None:
    today = date.fromisoformat(f"{here.now():%Y-%m-%d}")
    week = daily(*((today - timedelta(days=n), 10.0, 10.0) for n in (9, 8, 7)))
    here.write(Interval.D1, week)
    here.told(Action(Kind.SPLIT, today + timedelta(days=9), 2.0))
    window = TimeWindow(start=from_us(int(week.ts_us[0])), end=from_us(int(week.ts_us[-1]) + 1))
    assert here.read(Adjust.SPLIT, window=window).bars.close.tolist() == [10.0, 10.0, 10.0]
    found = listed(here.database, "AAPL", here.calendars, here.now())
    assert [begun for _, begun in found.stands] == [False]


STATEMENTS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", PERSON]),
        st.sampled_from([Kind.SPLIT, Kind.DIVIDEND]),
        st.sampled_from([FRIDAY, MONDAY]),
        st.sampled_from([0.5, 2.0, 7.0]),
        st.booleans(),
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(STATEMENTS)
def test_the_same_as_of_gives_the_same_bytes_whatever_is_told_later(
    here: Here, rows: list[tuple[str, Kind, date, float, bool]]
) -> None:
    here.write(Interval.D1, SPLIT_WEEK)
    seen: dict[datetime, list[str]] = {}

    def look(as_of: datetime) -> list[str]:
        return [digest(here.read(adjust, as_of)) for adjust in Adjust]

    for source, kind, day, value, withdrawn in rows:
        with here.database.transaction() as connection:
            actions.lock(connection)
            made = News(Action(kind, day, value), withdrawn=withdrawn)
            actions.tell(connection, [(here.member.id, made)], source)
        as_of = here.now()
        seen[as_of] = look(as_of)
    for as_of, digests in seen.items():
        assert look(as_of) == digests


def test_who_reads_as_of_now_waits_for_whoever_is_writing(here: Here) -> None:
    here.write(Interval.D1, SPLIT_WEEK)
    written, may_commit = Event(), Event()

    def write() -> None:
        with here.database.transaction() as connection:
            actions.lock(connection)
            actions.tell(connection, [(here.member.id, News(SPLIT))], "slow")
            written.set()
            assert may_commit.wait(30)

    writer = Thread(target=write)
    writer.start()
    assert written.wait(30)
    as_of = here.now()
    found: list[str] = []
    reader = Thread(target=lambda: found.append(digest(here.read(Adjust.SPLIT, as_of))))
    reader.start()
    may_commit.set()
    writer.join()
    reader.join()
    assert found == [digest(here.read(Adjust.SPLIT, as_of))]
    assert here.read(Adjust.SPLIT, as_of).bars.close[0] == 647.35 / 7


def test_a_split_that_the_bars_do_not_show_is_a_letter_and_a_quarantined_bar_until_they_fit(here: Here) -> None:
    adjusted_already = daily((FRIDAY, 92.0, 92.22), (MONDAY, 92.7, 93.7))
    here.write(Interval.D1, adjusted_already)
    here.told(SPLIT)
    assert here.findings() == ["action_without_jump"]
    with here.database.transaction() as connection:
        (letter,) = letters.matching(connection, LetterFilter())
        (bar,) = bar_reports.quarantined(connection, bar_reports.QuarantineFilter(), 10)
    assert letter["symbol"] == "AAPL"
    assert "mdtasks actions withdraw AAPL 2014-06-09 split" in letter["message"]
    assert (bar["reason"], bar["bar"]["close_before"], bar["bar"]["open"]) == ("action_without_jump", 92.22, 92.7)
    assert check(here.database, [here.member], FRIDAY).new == 0  # told once
    here.write(Interval.D1, daily((FRIDAY, 649.9, 645.57)))
    checked = check(here.database, [here.member], FRIDAY)
    assert (checked.suspect, checked.resolved) == (0, 1)
    assert here.findings() == []
    here.write(Interval.D1, adjusted_already)
    assert check(here.database, [here.member], FRIDAY).new == 1  # and again, should it come back
    assert here.findings() == ["action_without_jump"]


def test_a_jump_that_nobody_told_of_is_a_letter_until_somebody_tells_what_it_was(here: Here) -> None:
    here.write(Interval.D1, SPLIT_WEEK)
    assert check(here.database, [here.member], FRIDAY).new == 1
    assert here.findings() == ["jump_without_action"]
    here.told(SPLIT)
    assert here.findings() == []
    withdraw(here.database, "AAPL", SPLIT.key, "tests", "it did fall so")
    assert here.findings() == []  # a person settled it


def test_a_jump_that_was_none_is_settled_by_saying_so(here: Here) -> None:
    here.write(Interval.D1, SPLIT_WEEK)
    check(here.database, [here.member], FRIDAY)
    withdraw(here.database, "AAPL", key_of("2014-06-09", "split"), "tests", "bad news")
    assert here.findings() == []
    assert here.read(Adjust.SPLIT).bars.close.tolist() == [647.35, 645.57, 93.7]


@pytest.mark.parametrize(
    "other",
    [
        Action(Kind.DIVIDEND, MONDAY, 0.47),
        Action(Kind.RENAME, MONDAY, symbol="APPL"),
        Action(Kind.SPIN_OFF, MONDAY, 0.9),
    ],
    ids=["dividend", "rename", "a spin-off of little"],
)
def test_a_persons_word_of_another_kind_settles_no_jump(here: Here, other: Action) -> None:
    here.write(Interval.D1, SPLIT_WEEK)
    here.told(other, source=PERSON)
    assert here.findings() == ["jump_without_action"]
    here.told(SPLIT, source=PERSON)
    assert here.findings() == []


def test_a_persons_spin_off_of_a_worth_that_nobody_knows_explains_a_fall(here: Here) -> None:
    here.write(Interval.D1, SPLIT_WEEK)
    here.told(Action(Kind.SPIN_OFF, MONDAY, symbol="PEAR"), source=PERSON)
    assert here.findings() == []


def test_a_persons_dividend_does_not_vouch_for_the_split_of_a_file(here: Here) -> None:
    here.write(Interval.D1, daily((FRIDAY, 92.0, 92.22), (MONDAY, 92.7, 93.7)))
    here.told(Action(Kind.DIVIDEND, MONDAY, 0.47), source=PERSON)
    here.told(SPLIT)
    assert here.findings() == ["action_without_jump"]


def test_a_file_is_told_once_and_its_aapl_adjusts_to_yahoos_numbers(here: Here, shared_data: Path) -> None:
    """From the files to the read, through the store: 13 years of AAPL."""
    given = read_actions_file(shared_data / "actions" / "AAPL.csv", "AAPL")
    with (shared_data / "mplfinance" / "yahoofinance-AAPL-20040819-20180120.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    days = np.array([to_us(datetime.fromisoformat(row["Date"]).replace(tzinfo=UTC)) for row in rows])
    columns = {name: np.array([float(row[name]) for row in rows]) for name in ("Open", "High", "Low", "Close")}
    ratio = np.where(days < days[np.searchsorted(days, to_us(datetime(2005, 2, 28, tzinfo=UTC)))], 2.0, 1.0)
    ratio *= np.where(days < to_us(datetime(2014, 6, 9, tzinfo=UTC)), 7.0, 1.0)
    volume = np.array([float(row["Volume"]) for row in rows]) / ratio
    open_, high, low, close = (column * ratio for column in columns.values())
    here.write(Interval.D1, Bars.of(days, open_, high, low, close, volume))
    first = tell(here.database, given, "file", "tests")
    assert (first.told["added"], first.checked.suspect) == (24, 0)
    assert not tell(here.database, given, "file", "tests").told
    window = TimeWindow(start=from_us(int(days[0])), end=from_us(int(days[-1]) + 1))
    split = here.read(Adjust.SPLIT, window=window).bars
    assert np.abs(split.close - columns["Close"]).max() < 1e-12
    total = here.read(Adjust.TOTAL, window=window).bars
    adjusted_close = np.array([float(row["Adj Close"]) for row in rows])
    # Yahoo's own rounding: six decimals, and factors in single precision (see the unit test).
    assert (np.abs(total.close - adjusted_close) <= 1e-6 + 22 * 2.0**-24 * adjusted_close).all()


def test_what_was_answered_for_is_remembered_and_only_grows(here: Here) -> None:
    member = here.member
    with here.database.transaction() as connection:
        for first, last in ((1, 20), (10, 25)):
            days = Days(date(2024, 1, first), date(2024, 1, last))
            actions.remember_answer(connection, [member.id], "files", days)
        (answered,) = actions.answers(connection, [member.id])
    assert answered.days == Days(date(2024, 1, 1), date(2024, 1, 25))

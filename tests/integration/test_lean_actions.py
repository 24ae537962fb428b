"""Corporate actions out of LEAN's factor and map files: folders made here, and a real one that LEAN_DATA_DIR names."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdtasks.domain.actions import Action, Days, Kind
from mdtasks.domain.adjustment import Adjust, factors
from mdtasks.domain.bars import to_us
from mdtasks.domain.errors import BadPayloadError, NoDataError
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.domain.sessions import Calendars
from mdtasks.domain.universe import Listing
from mdtasks.providers.lean import LeanProvider
from mdtasks.providers.lean_actions import factor_actions

CALENDARS = Calendars()
NOW = datetime(2024, 6, 1, tzinfo=UTC)
EVER = Days(date(1990, 1, 1), date(2060, 1, 1))
#: A made-up company: 3.50 paid at 560, seven shares for one at 700, 0.50 paid at 100; factors go back from the end.
MADE = """20140101,0.9887813,0.14285714,1
20140507,0.9887813,0.14285714,560
20140606,0.9950000,0.14285714,700
20140806,0.9950000,1,100
20501231,1,1,0"""
#: One that bore another name for some years.
QQ = "20000103,qq,Q\n20051130,qq,Q\n20110322,qqold,Q\n20501231,qq,Q"


def put(root: Path, folder: str, ticker: str, text: str) -> None:
    path = root / "equity" / "usa" / folder / f"{ticker}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def asked(root: Path, symbol: str, days: Days = EVER) -> Sequence[Action]:
    answer = LeanProvider(root, CALENDARS).fetch_actions([Listing(symbol, "XNYS")], days, NOW)
    if symbol in answer.errors:
        raise answer.errors[symbol]
    return answer.actions[symbol]


def test_splits_and_dividends_come_out_of_a_factor_file_as_they_were_declared(tmp_path: Path) -> None:
    put(tmp_path, "factor_files", "made", MADE)
    assert asked(tmp_path, "MADE") == [
        # A row is of the last session before: Friday the 6th, so the split is Monday's.
        Action(Kind.DIVIDEND, date(2014, 5, 8), 3.5, reference=560.0),
        Action(Kind.SPLIT, date(2014, 6, 9), 7.0, reference=700.0),
        Action(Kind.DIVIDEND, date(2014, 8, 7), 0.5, reference=100.0),
    ]
    assert [each.value for each in asked(tmp_path, "MADE", Days(date(2014, 6, 1), date(2014, 7, 1)))] == [7.0]


def test_renames_and_delistings_come_out_of_a_map_file(tmp_path: Path) -> None:
    put(tmp_path, "map_files", "qq", QQ)
    put(tmp_path, "map_files", "gone", "20000103,was,N\n20031015,was,N\n20180615,gone,N\n")
    assert asked(tmp_path, "QQ") == [
        Action(Kind.RENAME, date(2005, 12, 1), symbol="QQOLD"),
        Action(Kind.RENAME, date(2011, 3, 23), symbol="QQ"),
    ]
    assert asked(tmp_path, "GONE") == [
        Action(Kind.RENAME, date(2003, 10, 16), symbol="GONE"),
        Action(Kind.DELISTING, date(2018, 6, 18)),
    ]


def test_what_no_file_tells_of_is_not_known_and_a_bad_line_is_named(tmp_path: Path) -> None:
    put(tmp_path, "factor_files", "bad", "20140507,0.9,1,592.33\n20140606,zero,1,645.57\n")
    put(tmp_path, "factor_files", "odd", "20140507,inf,1,5\n20140601,1,1e+20,5\n20140606,0,1,5\n20501231,1,1,0\n")
    with pytest.raises(NoDataError, match=r"factor_files/nope\.csv nor .*map_files/nope\.csv"):
        asked(tmp_path, "NOPE")
    with pytest.raises(BadPayloadError, match=r"bad\.csv: line 2"):
        asked(tmp_path, "BAD")
    assert asked(tmp_path, "ODD") == []  # as LEAN leaves out what it cannot use
    answer = LeanProvider(tmp_path, CALENDARS).fetch_actions([Listing("BTC-USD", "24/7", "crypto")], EVER, NOW)
    assert set(answer.errors) == {"BTC-USD"}


@given(
    st.lists(
        st.tuples(
            st.sampled_from([0.1, 1 / 3, 0.5, 1.5, 2.0, 3.0, 4.0, 7.0, None]),
            st.integers(1, 400),  # the dividend, cents
            st.integers(1000, 90_000),  # the close before, cents
        ),
        min_size=1,
        max_size=12,
    )
)
def test_what_made_a_factor_file_comes_out_of_it(rows: list[tuple[float | None, int, int]]) -> None:
    """A file written as LEAN writes it, from actions, gives these actions back."""
    price, split, day = 1.0, 1.0, date(2024, 1, 1)
    lines, truth = ["20501231,1,1,0"], []
    for ratio, paid, close in rows:
        if ratio is None:
            price *= 1 - paid / close
            truth.append((Kind.DIVIDEND, day + timedelta(days=1), paid / 100))
        else:
            split /= ratio
            truth.append((Kind.SPLIT, day + timedelta(days=1), ratio))
        lines.append(f"{day:%Y%m%d},{price:.7f},{split:.8f},{close / 100:g}")
        day -= timedelta(days=30)
    text = "\n".join(reversed(lines))
    if not 1e-3 < split < 1e3 or price < 0.1:
        return  # beyond the digits that such a file has
    found = factor_actions(text, lambda day: day + timedelta(days=1))
    assert [(each.kind, each.ex_date) for each in found] == [each[:2] for each in reversed(truth)]
    for each, (_, _, value) in zip(found, reversed(truth), strict=True):
        # A dividend is known as well as seven decimals of a factor and the close tell.
        assert each.value == pytest.approx(value, rel=1e-12 if each.kind is Kind.SPLIT else 1e-3, abs=2e-3)


# -- a real folder, read in place ------------------------------------------------------------------------


# Such data may not be shared, so these tests exist only where somebody has it.
if "LEAN_DATA_DIR" in os.environ:
    REAL_FOLDER = Path(os.environ["LEAN_DATA_DIR"])

    def test_aapl_of_a_REAL_FOLDER_tells_what_other_sources_tell(shared_data: Path) -> None:
        days = Days(date(2004, 8, 19), date(2018, 1, 20))
        with (shared_data / "actions" / "AAPL.csv").open() as stream:
            expected = [
                (row["ex_date"], row["kind"], float(row["value"]))
                for row in csv.DictReader(stream)
                if days.first <= date.fromisoformat(row["ex_date"]) <= days.last
            ]
        found = [(str(each.ex_date), str(each.kind), each.value) for each in asked(REAL_FOLDER, "AAPL", days)]
        assert found == expected

    @pytest.mark.parametrize("ticker", ["aapl", "spy", "ibm", "bac", "aig"])
    def test_the_actions_of_a_REAL_FOLDER_give_its_own_factors_back(ticker: str) -> None:
        found = [each for each in asked(REAL_FOLDER, ticker.upper()) if each.kind in (Kind.SPLIT, Kind.DIVIDEND)]
        closes = {each.ex_date: each.reference for each in found if each.reference is not None}
        sessions = CALENDARS.get("XNYS").expected(
            TimeWindow(start=datetime(1998, 1, 2, tzinfo=UTC), end=datetime(2021, 4, 1, tzinfo=UTC)), Interval.D1
        )
        made = factors(found, sessions, closes, Adjust.TOTAL)
        lines = (REAL_FOLDER / "equity" / "usa" / "factor_files" / f"{ticker}.csv").read_text().splitlines()
        rows = [line.split(",") for line in lines]
        until = [to_us(datetime.strptime(row[0], "%Y%m%d").replace(tzinfo=UTC)) for row in rows]
        row_of = np.searchsorted(until, sessions)
        price, split = (np.array([float(row[n]) for row in rows])[row_of] for n in (1, 2))
        # Seven and eight decimals, and what they make of dividends; each row adds its own.
        np.testing.assert_allclose(made.kept, price, rtol=2e-5)
        np.testing.assert_allclose(1 / made.shares, split, rtol=2e-4)

    def test_qqq_and_wm_of_a_REAL_FOLDER_were_called_otherwise() -> None:
        renamed = {
            symbol: [
                (str(each.ex_date), each.symbol) for each in asked(REAL_FOLDER, symbol) if each.kind is Kind.RENAME
            ]
            for symbol in ("QQQ", "WM")
        }
        assert renamed == {
            "QQQ": [("2004-12-01", "QQQQ"), ("2011-03-23", "QQQ")],
            "WM": [("1998-07-17", "WMI"), ("2009-08-05", "WM")],
        }

"""Listings: how sources write them, what a row is worth, whom it means, and what a day tells that is news."""

from __future__ import annotations

import json
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdtasks.domain.errors import GarbledAnswerError, InvalidRequestError
from mdtasks.domain.identities import (
    AMBIGUOUS,
    CHANGED_SINCE,
    OTHER_EXCHANGE,
    UNKNOWN_EXCHANGE,
    Known,
    Learnt,
    Lifetime,
    learnt,
)
from mdtasks.domain.listings import Day, Listed, Traded, candidates, dollars
from mdtasks.providers.listings import read

DAY = date(2024, 3, 1)


def csv_of(*rows: str, columns: str = "symbol,mic,close,volume") -> bytes:
    return "\n".join([columns, *rows, ""]).encode()


# -- how sources write -----------------------------------------------------------------------------------


def test_a_csv_is_read_with_its_columns_in_any_order() -> None:
    head = "volume,id,mic,symbol,close,listed_from,delisted_on"
    text = f"{head}\r\n100,7,XNAS,AAPL,1.505,1980-12-12,\r\n,,XNYS,WM,,,2008-09-26\r\n"
    assert read("csv", b"\xef\xbb\xbf" + text.encode()) == [
        Listed("AAPL", "XNAS", "equity", 150, date(1980, 12, 12), None, "7"),
        Listed("WM", "XNYS", "equity", None, None, date(2008, 9, 26)),
    ]


WRONG = [
    (b"", "column symbol is missing"),
    (b"symbol,mic,close\nA,X,1\n", "column volume is missing"),
    (b"symbol,mic,close,volum\n", "unknown column 'volum'; did you mean volume?"),
    (b"symbol,mic,close,volume,mic\n", "column mic comes twice"),
    (csv_of("A,XNYS,1"), "line 2: 3 values for 4 columns"),
    (csv_of("A,XNYS,1,2", "B C,XNYS,1,2"), "line 3: symbol 'B C' is no symbol"),
    (csv_of("A,X Y,1,2"), "mic 'X Y' is no exchange"),
    (csv_of("A,XNYS,one,2"), "'one' and '2' are no price and volume"),
    (csv_of("A,XNYS,-1,2"), "'-1' is no number of zero or more"),
    (csv_of("A,XNYS,NaN,2"), "no number"),
    (csv_of("A,XNYS,1e99,2e99"), "more than anything trades"),
    (csv_of("A,XNYS,1_0,2"), "no number"),
    (csv_of("A,XNYS,1,2,2024-2-1", columns="symbol,mic,close,volume,listed_from"), "'2024-2-1' is no date"),
    (csv_of("A,XNYS,1,2,20240201", columns="symbol,mic,close,volume,listed_from"), "'20240201' is no date"),
    (csv_of("A,XNYS,1,2,bond", columns="symbol,mic,close,volume,kind"), "kind 'bond'"),
    (csv_of("A,XNYS,1,2," + "x" * 101, columns="symbol,mic,close,volume,id"), "longer than 100"),
    (csv_of('"A,XNYS,1,2'), "line"),
    (b"symbol,mic,close,volume\n\xff,X,1,1\n", "not UTF-8"),
]


@pytest.mark.parametrize(("body", "said"), WRONG, ids=[said for _, said in WRONG])
def test_a_wrong_csv_is_refused_with_its_line(body: bytes, said: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        read("csv", body)
    assert said in refused.value.message
    assert refused.value.hint


def test_of_a_coarse_file_nothing_is_read_that_was_not_known_then() -> None:
    known = "GOOCV VP83T1ZUHROL,GOOG,567.16,1000,567160,True"
    rows = read("lean", f"{known},0.5,0.25\n{known},1,1\nX 1,#?,1,1,1,False,1,1".encode())
    assert rows[0] == rows[1] == Listed("GOOG", "XNYS", "equity", 567160, None, None, "GOOCV VP83T1ZUHROL")
    assert len(rows) == 2  # what can be no symbol here is left out


def test_vendors_pages_are_read_one_after_another() -> None:
    share = {"active": True, "type": "CS", "primary_exchange": "XNAS"}
    pages = [
        {"results": [{"ticker": "AAPL", **share, "composite_figi": "F1"}]},
        {"results": [{"ticker": "AB C", **share}]},
    ]
    pages += [{"results": [{"ticker": "W", **share, "type": "WARRANT"}, {"ticker": "MSFT", **share}]}, {"results": []}]
    body = b"\n".join(json.dumps(page).encode() for page in pages)
    assert [(row.symbol, row.key) for row in read("massive", body)] == [("AAPL", "#F1"), ("MSFT", "MSFT@XNAS")]


@pytest.mark.parametrize(
    "body", [b"[", b"[]x", b"\xff", b'{"results": 7}', b'[{"status": "active", "class": "us_equity"']
)
def test_a_vendors_listing_that_is_cut_off_is_no_listing(body: bytes) -> None:
    with pytest.raises(GarbledAnswerError):
        read("massive" if b"results" in body else "alpaca", body)


def test_an_unknown_source_is_refused_with_the_nearest() -> None:
    with pytest.raises(InvalidRequestError, match="did you mean alpaca"):
        read("alpacca", b"")


@given(st.decimals(0, 10**6, places=6), st.decimals(0, 10**9, places=2))
def test_dollars_are_exact_and_cut_off(close: object, volume: object) -> None:
    from fractions import Fraction

    assert dollars(str(close), str(volume)) == int(Fraction(str(close)) * Fraction(str(volume)))


# -- what the days amount to -----------------------------------------------------------------------------


def day(number: int, *rows: Listed) -> Day:
    return Day(DAY + timedelta(days=number), rows)


def row(symbol: str, money: int | None = None, own_id: str | None = None, **changes: object) -> Listed:
    return Listed(symbol, "XNYS", dollars=money, own_id=own_id, **changes)  # type: ignore[arg-type]


def means(**ids: int) -> dict[str, list[tuple[date, int]]]:
    return {f"{symbol}@XNYS": [(DAY, number)] for symbol, number in ids.items()}


def found(days: list[Day], keys: dict[str, list[tuple[date, int]]], **changes: object) -> dict[str, tuple[int, int]]:
    traded = changes.pop("traded", {})
    return {c.symbol: (c.instrument, c.score) for c in candidates(days, keys, traded, **changes)}  # type: ignore[arg-type]


def test_a_score_is_the_average_of_the_days_that_are_known() -> None:
    days = [day(0, row("A", 100), row("B", 5)), day(1, row("A", 201), row("B")), day(2, row("A"), row("B"))]
    assert found(days, means(A=1, B=2)) == {"A": (1, 150), "B": (2, 5)}


def test_who_is_not_in_the_newest_listing_or_has_died_is_no_candidate() -> None:
    days = [day(0, row("A", 1), row("B", 1), row("C", 1)), day(1, row("A", 1), row("C", delisted_on=DAY))]
    assert set(found(days, means(A=1, B=2, C=3))) == {"A"}
    assert set(found(days, means(A=1, B=2, C=3), partial=True)) == {"A", "B"}


def test_a_row_that_means_nobody_counts_for_nothing() -> None:
    assert found([day(0, row("A", 1), row("B", 1))], means(A=1)) == {"A": (1, 1)}


def test_a_renamed_instrument_keeps_what_it_traded_under_its_old_name() -> None:
    keys = {"#1": [(DAY, 1)]}
    assert found([day(0, row("FB", 10, "1")), day(1, row("META", 20, "1"))], keys) == {"META": (1, 15)}


def test_a_ticker_that_passed_to_another_company_is_another_instrument() -> None:
    keys = {"WM@XNYS": [(DAY, 1), (DAY + timedelta(days=1), 2)]}
    days = [day(0, row("WM", 100)), day(1, row("WM", 6), row("WM", delisted_on=DAY))]
    assert found(days, keys) == {"WM": (2, 6)}
    assert found(days, keys, partial=True) == {"WM": (2, 6)}


def test_where_no_listing_tells_what_was_traded_the_stores_bars_do() -> None:
    assert found([day(0, row("A"), row("B"))], means(A=1, B=2), traded={1: Traded(3, 10)}) == {"A": (1, 3), "B": (2, 0)}


# -- whom rows mean --------------------------------------------------------------------------------------

XNYS = {"XNYS": "XNYS", "ZZZZ": None, "XLON": "XLON"}


def news(rows: list[Listed], meaning: dict[str, Known] | None = None, bearers: list[Known] | None = None) -> Learnt:
    known = {one.symbol: one for one in [*(bearers or []), *(meaning or {}).values()] if one.symbol}
    return learnt(rows, DAY, meaning or {}, known, XNYS)


def test_whom_nobody_knew_is_born_and_whom_somebody_added_is_recognized() -> None:
    told = news([row("NEW"), row("AAPL"), Listed("X", "ZZZZ")], bearers=[Known(7, "AAPL", "XNYS")])
    assert [one.symbol for one, _ in told.births] == ["NEW"]
    assert (told.keys, told.renames, told.ousted) == ({"AAPL@XNYS": 7}, {}, [])
    assert told.skipped == {UNKNOWN_EXCHANGE: 1}


def test_what_a_listing_of_yesterday_says_against_what_was_told_since_is_left_out() -> None:
    meta = Known(1, "FB", "XNYS", changed=True)  # it bears META since
    told = news([row("FB"), row("MVRS", own_id="1")], {"FB@XNYS": meta, "#1": meta})
    assert (told.births, told.renames, told.ousted, told.skipped) == ([], {}, [], {CHANGED_SINCE: 1})
    by_symbol = {"FB": meta, "META": meta}
    for one in (row("META"), row("META", own_id="9"), row("FB", own_id="9")):
        found = learnt([one], DAY, {"#9": Known(9, "X", "XNYS")}, by_symbol, XNYS)
        assert (found.births, found.renames, found.ousted, found.skipped) == ([], {}, [], {CHANGED_SINCE: 1})
    dead = Listed("META", "XNYS", delisted_on=DAY)
    assert learnt([dead], DAY, {}, by_symbol, XNYS).lives == []


def test_an_id_that_bears_another_symbol_was_renamed_even_where_two_swap() -> None:
    meaning = {"#1": Known(1, "A", "XNYS"), "#2": Known(2, "B", "XNYS")}
    told = news([row("B", own_id="1"), row("A", own_id="2")], meaning)
    assert told.renames == {1: "B", 2: "A"}
    assert not told.births
    assert not told.skipped


def test_a_share_class_takes_the_symbol_that_another_gives_up() -> None:
    """GOOG on 2014-04-03: the old share is GOOGL from now on, a new one is GOOG."""
    meaning = {"#old": Known(1, "GOOG", "XNYS")}
    told = news([row("GOOGL", own_id="old"), row("GOOG", own_id="new")], meaning)
    assert told.renames == {1: "GOOGL"}
    assert [(one.symbol, one.own_id) for one, _ in told.births] == [("GOOG", "new")]


def test_of_two_rows_with_one_symbol_the_bearer_keeps_it() -> None:
    """GOOG on 2014-04-02, when both lines bore it."""
    meaning = {"#old": Known(1, "GOOG", "XNYS")}
    told = news([row("GOOG", own_id="a-new"), row("GOOG", own_id="old")], meaning)
    assert (told.births, told.renames, told.skipped) == ([], {}, {AMBIGUOUS: 1})


def test_a_symbol_of_the_dead_means_somebody_else() -> None:
    washington = Known(1, "WM", "XNYS", delisted_on=date(2008, 9, 26))
    told = news(
        [row("WM", listed_from=date(2009, 8, 5)), row("WM", delisted_on=date(2008, 9, 26))], {"WM@XNYS": washington}
    )
    assert [one.symbol for one, _ in told.births] == ["WM"]
    assert told.ousted == [1]
    assert not told.lives


def test_an_id_that_trades_again_is_the_same_one() -> None:
    told = news([row("A", own_id="1")], {"#1": Known(1, "A", "XNYS", delisted_on=DAY - timedelta(days=3))})
    assert (told.births, told.lives) == ([], [Lifetime(1, None, None)])


def test_lives_are_learnt_and_a_dead_row_makes_nobody() -> None:
    first, last = date(2020, 1, 2), DAY - timedelta(days=1)
    rows = [row("A", listed_from=first), row("B", delisted_on=last), row("NEVER", delisted_on=last)]
    told = news(rows, {"A@XNYS": Known(1, "A", "XNYS"), "B@XNYS": Known(2, "B", "XNYS")})
    assert told.lives == [Lifetime(1, first, None), Lifetime(2, None, last)]
    assert not told.births


def test_a_person_who_renamed_it_is_believed_over_the_symbol() -> None:
    told = news([row("FB")], {"FB@XNYS": Known(1, "META", "XNYS")})
    assert [one.symbol for one, _ in told.births] == ["FB"]
    assert not told.renames


def test_a_symbol_borne_on_another_exchange_is_left_out() -> None:
    told = news([row("VOD")], bearers=[Known(1, "VOD", "XLON")])
    assert (told.births, told.skipped) == ([], {OTHER_EXCHANGE: 1})


@given(
    st.permutations([row("A", own_id="1"), row("B", own_id="2"), row("A", own_id="3"), row("C"), row("C", own_id="4")])
)
def test_the_order_of_the_rows_does_not_matter(rows: list[Listed]) -> None:
    told, plain = news(rows), news(sorted(rows, key=lambda one: one.key))
    assert (told.births, told.keys, told.skipped) == (plain.births, plain.keys, plain.skipped)

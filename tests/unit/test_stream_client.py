"""What a client of the stream has had, and what of each message is new to it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from mdtasks.client.course import Course, websocket_url
from mdtasks.client.frames import Bar, IntervalComplete, Quote, StreamRefusedError
from mdtasks.client.pauses import Pauses
from mdtasks.domain.errors import InvalidRequestError


def bar(minute: int, close: float = 1.0, **more: Any) -> dict[str, Any]:
    prices = dict.fromkeys(("open", "high", "low", "volume"), 1.0)
    told = {"final": True, "provider": "p", "known_at": "2026-11-24T16:00:00Z"}
    return {"type": "bar", "ts": f"2026-11-24T15:{minute:02d}:00Z", **prices, "close": close, **told, **more}


def live(position: str, minute: int, close: float = 1.0) -> dict[str, Any]:
    return bar(minute, close, symbol="SPY", interval="1m", position=position)


def whole(kind: str, position: str, *entries: dict[str, Any]) -> dict[str, Any]:
    return {"type": kind, "symbol": "SPY", "interval": "1m", "position": position, "entries": entries}


def taken(course: Course, *frames: dict[str, Any]) -> list[tuple[int, float, str]]:
    """(minute, close, position) of what is new in a message."""
    found = list(course.take(json.dumps(frames)))
    assert all(isinstance(each, Bar) for each in found)
    return [(each.ts.minute, each.close, each.position) for each in found if isinstance(each, Bar)]


def test_of_a_snapshot_only_the_last_bar_has_a_position_to_go_on_from() -> None:
    course = Course(["SPY"], "1m")
    assert taken(course, whole("snapshot", "e:9", bar(1), bar(2)), live("e:10", 3)) == [
        (1, 1.0, ""),
        (2, 1.0, "e:9"),
        (3, 1.0, "e:10"),
    ]
    assert course.positions == {"SPY": "e:10"}


def test_of_a_stream_told_anew_only_what_was_not_had_or_is_another_version_is_new() -> None:
    course = Course(["SPY"], "1m")
    taken(course, whole("snapshot", "e:2", bar(1), bar(2)), live("e:3", 3))
    told = whole("resync", "f:5", bar(1), bar(2, 2.0), bar(3), bar(4))
    assert taken(course, told) == [(2, 2.0, "e:3"), (4, 1.0, "f:5")]
    assert taken(course, told) == []
    assert course.positions == {"SPY": "f:5"}


def test_a_revised_bar_comes_again() -> None:
    course = Course(["SPY"], "1m", since={"SPY": "e:3"})
    assert taken(course, live("e:4", 1), live("e:5", 1, 2.0)) == [(1, 1.0, "e:4"), (1, 2.0, "e:5")]


def test_intervals_without_a_trade_and_quotes_are_values_of_their_own() -> None:
    course = Course(["SPY"], "1m", quotes=True)
    quiet = {"type": "interval_complete", "ts": "2026-11-24T15:01:00Z", "symbol": "SPY", "interval": "1m"}
    sides = {"bid": 1.0, "bid_size": None, "ask": 2.0, "ask_size": 3.0, "provider": "p"}
    quote = {"type": "quote", "ts": "2026-11-24T15:01:02Z", "symbol": "SPY", **sides}
    silent, quoted = course.take(json.dumps([{**quiet, "position": "e:1"}, quote]))
    assert isinstance(silent, IntervalComplete)
    assert silent.position == "e:1"
    assert isinstance(quoted, Quote)
    assert (quoted.bid, quoted.bid_size) == (1.0, None)


def test_what_is_not_known_is_passed_over_and_what_is_refused_ends_it() -> None:
    course = Course(["SPY"], "1m")
    assert taken(course, {"type": "hello"}, {"type": "error", "code": "broker_unavailable"}) == []
    heard = [course.heard]
    assert taken(course, {"type": "something_new"}) == []
    assert [*heard, course.heard] == [False, True]
    with pytest.raises(StreamRefusedError, match="no such symbol") as refused:
        taken(course, {"type": "error", "code": "unknown_symbol", "error": "no such symbol", "hint": "h"})
    assert refused.value.as_dict()["code"] == "unknown_symbol"


def test_the_opening_goes_on_from_where_each_stream_is() -> None:
    course = Course(["SPY", "QQQ"], "5m", since={"QQQ": "e:7"}, last=3)
    address, ask = course.opening("https://md.example.org/")
    assert address == "wss://md.example.org/ws/bars"
    assert json.loads(ask) == {
        "op": "subscribe",
        "symbols": ["SPY", "QQQ"],
        "interval": "5m",
        "since": {"QQQ": "e:7"},
        "quotes": False,
        "last": 3,
    }


@pytest.mark.parametrize(
    ("given", "field"),
    [({"symbols": []}, "symbols"), ({"since": {"X": "e:1"}}, "since"), ({"since": {"SPY": "nowhere"}}, "since")],
)
def test_what_is_wrong_is_told_before_anybody_is_asked(given: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        Course(**{"symbols": ["SPY"], "interval": "1m", **given})
    assert refused.value.field == field


def test_what_is_no_url_of_a_web_app_is_refused() -> None:
    assert websocket_url("http://[::1]:8642/ws/bars") == "ws://[::1]:8642/ws/bars"
    for url in ("127.0.0.1:8642", "ftp://x", ""):
        with pytest.raises(InvalidRequestError):
            websocket_url(url)


def test_pauses_grow_until_the_server_speaks() -> None:
    pauses = Pauses(draw=lambda: 1.0)
    assert [round(pauses.next_s(), 3) for _ in range(8)] == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]
    pauses.reset()
    assert pauses.next_s() == 0.2


def test_the_client_is_imported_without_what_the_servers_need() -> None:
    heavy = ("sqlalchemy", "psycopg", "redis", "celery", "starlette", "uvicorn", "mdtasks.settings", "pandas")
    code = f"import sys, mdtasks.client, mdtasks.client.once; print([n for n in {heavy!r} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

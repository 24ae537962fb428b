"""What each local vendor answers to a request, in its own format: (status, body)."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from importlib import import_module
from math import prod
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

import numpy as np

from mdtasks.domain.bars import Bars, from_us, to_us
from mdtasks.domain.jobs import Interval
from tests.vendors.market import KEYS, NEW_YORK, Market, stamps

INTERVALS: Mapping[str, Interval] = {
    "1Min": Interval.M1,
    "5Min": Interval.M5,
    "15Min": Interval.M15,
    "1Hour": Interval.H1,
    "1Day": Interval.D1,
    "1/minute": Interval.M1,
    "5/minute": Interval.M5,
    "15/minute": Interval.M15,
    "1/hour": Interval.H1,
    "1/day": Interval.D1,
    "1": Interval.M1,
    "5": Interval.M5,
    "15": Interval.M15,
    "60": Interval.H1,
    "D": Interval.D1,
    "1m": Interval.M1,
    "5m": Interval.M5,
    "15m": Interval.M15,
    "1h": Interval.H1,
    "1d": Interval.D1,
    "ohlcv-1m": Interval.M1,
    "ohlcv-1h": Interval.H1,
    "ohlcv-1d": Interval.D1,
}


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked: the path below the vendor's name, the query or form, headers with names in lower case."""

    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]


Reply = tuple[int, Any]


def alpaca(ask: Request, market: Market) -> Reply:
    given = (ask.headers.get("apca-api-key-id"), ask.headers.get("apca-api-secret-key"))
    if given != (KEYS["alpaca"], KEYS["alpaca_secret"]):
        return 403, {"message": "forbidden."}
    if ask.path == "/v2/assets":
        assert (ask.query["status"], ask.query["asset_class"]) == ("active", "us_equity")
        names = {"XNYS": "NYSE", "XNAS": "NASDAQ", "ARCX": "ARCA", "OOTC": "OTC"}
        common = {"class": "us_equity", "status": "active", "tradable": True}
        return 200, [{"id": own, "symbol": s, "exchange": names[mic], **common} for s, mic, own in market.listed]
    symbols = ask.query["symbols"].split(",")
    if ask.path == "/v1/corporate-actions":
        return 200, _alpaca_actions(ask, market, symbols)
    wrong = [symbol for symbol in symbols if not re.fullmatch(r"[A-Z.]+", symbol)]
    if wrong:
        return 400, {"message": f"invalid symbol: {wrong[0]}"}
    if ask.path == "/v2/stocks/quotes/latest":
        return 200, {"quotes": {symbol: _alpaca_quote(market, symbol) for symbol in symbols if symbol in market.quotes}}
    interval = INTERVALS[ask.query["timeframe"]]
    start_us, last_us = (_iso_us(ask.query[name]) for name in ("start", "end"))
    rows = [
        (symbol, row)
        for symbol in sorted(symbols)
        for row in _alpaca_rows(market.between(symbol, interval, start_us, last_us + 1), interval)
    ]
    first = int(base64.b64decode(ask.query.get("page_token", "")) or 0)
    last = first + min(market.page, int(ask.query["limit"]))
    bars: dict[str, list[Any]] = {}
    for symbol, row in rows[first:last]:
        bars.setdefault(symbol, []).append(row)
    token = base64.b64encode(str(last).encode()).decode() if last < len(rows) else None
    return 200, {"bars": bars, "next_page_token": token}


def massive(ask: Request, market: Market) -> Reply:
    if ask.headers.get("authorization") != f"Bearer {KEYS['massive']}":
        return 401, {"status": "ERROR", "request_id": "r1", "error": "Unknown API Key"}
    if ask.path.startswith("/v2/last/nbbo/"):
        symbol = ask.path.rpartition("/")[2]
        if symbol not in market.quotes:
            return 404, {"status": "NOT_FOUND", "message": "Ticker not found."}
        quote = market.quotes[symbol]
        row = {"T": symbol, "t": to_us(quote.ts) * 1000, "p": quote.bid, "s": quote.bid_size}
        return 200, {"status": "OK", "results": {**row, "P": quote.ask, "S": quote.ask_size}}
    if ask.path == "/v3/reference/tickers":
        return _massive_tickers(ask, market)
    if ask.path.startswith("/v3/reference/"):
        return 200, _massive_actions(ask, market)
    found = re.fullmatch(r"/v2/aggs/ticker/([^/]+)/range/(\d+)/(\w+)/([^/]+)/([^/]+)", ask.path)
    assert found, ask.path
    symbol, interval = found[1], INTERVALS[f"{found[2]}/{found[3]}"]
    # What is not asked for unadjusted is adjusted.
    raw = ask.query.get("adjusted") == "false" or "cursor" in ask.query
    start_us, end_us = _massive_us(found[4], end=False), _massive_us(found[5], end=True)
    bars = market.between(symbol, interval, start_us, end_us)
    bars = bars if raw else market.adjusted(symbol, bars)
    rows = [dict(zip("tohlcv", row, strict=True)) for row in _rows(bars, stamps(bars, interval) // 1000)]
    first = int(ask.query.get("cursor", 0))
    last = first + min(market.page, int(ask.query.get("limit", market.page)))
    content: dict[str, Any] = {"ticker": symbol, "status": "OK", "resultsCount": len(rows[first:last]), "count": 1}
    if rows[first:last]:
        content["results"] = rows[first:last]
    if last < len(rows):
        content["next_url"] = f"https://api.massive.com{ask.path}?cursor={last}"
    return 200, content


def _massive_tickers(ask: Request, market: Market) -> Reply:
    first = int(ask.query.get("cursor", 0))
    if not first:
        assert (ask.query["market"], ask.query["active"], ask.query["limit"]) == ("stocks", "true", "1000")
    page = market.listed[first : first + market.page]
    common = {"market": "stocks", "active": True, "type": "CS"}
    rows = [{"ticker": s, "primary_exchange": mic, "composite_figi": own, **common} for s, mic, own in page]
    content: dict[str, Any] = {"status": "OK", "request_id": "r1", "count": len(rows), "results": rows}
    if first + market.page < len(market.listed):
        content["next_url"] = f"https://api.massive.com{ask.path}?cursor={first + market.page}"
    return 200, content


def finnhub(ask: Request, market: Market) -> Reply:
    if ask.headers.get("x-finnhub-token") != KEYS["finnhub"]:
        return 401, {"error": "Invalid API key."}
    if ask.path.endswith("/stock/symbol"):
        assert ask.query["exchange"] == "US"
        kind = {"type": "Common Stock", "currency": "USD"}
        return 200, [
            {"symbol": s, "displaySymbol": s, "mic": mic, "figi": own, **kind} for s, mic, own in market.listed
        ]
    symbol = ask.query["symbol"]
    if ask.path.endswith("/candle"):
        interval = INTERVALS[ask.query["resolution"]]
        start_us, last_us = (int(ask.query[name]) * 1_000_000 for name in ("from", "to"))
        bars = market.between(symbol, interval, start_us, last_us + 1)
        if not len(bars):
            return 200, {"s": "no_data"}
        columns = dict(zip("ohlcv", (column.tolist() for column in bars.columns), strict=True))
        return 200, {"s": "ok", "t": (stamps(bars, interval) // 1_000_000).tolist(), **columns}
    quote = market.quotes.get(symbol)
    if quote is None:
        return 200, {"a": 0, "av": 0, "b": 0, "bv": 0, "t": 0, "c": 0}
    sides = {"a": quote.ask, "av": quote.ask_size, "b": quote.bid, "bv": quote.bid_size}
    return 200, {**sides, "c": quote.bid, "t": to_us(quote.ts) // 1000}


def yfinance(ask: Request, market: Market) -> Reply:
    if ask.path.endswith("/getcrumb"):
        return 200, "CRUMB123"
    if "/v8/finance/chart/" not in ask.path:
        return 404, "<html>not here, but with cookies</html>"
    symbol = ask.path.rpartition("/")[2]
    if not market.knows(symbol):
        return 404, _chart_error("Not Found", "No data found, symbol may be delisted")
    interval = INTERVALS[ask.query["interval"]]
    start_us, end_us = (int(ask.query[name]) * 1_000_000 for name in ("period1", "period2"))
    bars = market.bars.get((symbol, interval), Bars.empty())
    stamped = stamps(bars, interval, hour=9) + (1_800_000_000 if interval is Interval.D1 else 0)
    inside = (stamped >= start_us) & (stamped < end_us)
    bars, stamped = market.adjusted(symbol, bars.take(inside)), stamped[inside]
    names = ("open", "high", "low", "close", "volume")
    quote = {name: column.tolist() for name, column in zip(names, bars.columns, strict=True)}
    result: dict[str, Any] = {"meta": {"symbol": symbol, "exchangeTimezoneName": NEW_YORK}}
    if len(bars):
        # A minute without trades is null, and the price of the moment comes last.
        for column in quote.values():
            column.append(None)
        result["timestamp"] = [*(stamped // 1_000_000).tolist(), int(stamped[-1]) // 1_000_000 + 1]
    splits = {
        str(to_us(split.at) // 1_000_000): {
            "date": to_us(split.at) // 1_000_000, "numerator": split.ratio, "denominator": 1.0
        }
        for split in market.splits.get(symbol, ())
        if start_us <= to_us(split.at) < end_us
    }  # fmt: skip
    dividends = {
        str(to_us(paid.at) // 1_000_000): {
            "date": to_us(paid.at) // 1_000_000,
            # Adjusted for every split since, to six decimals.
            "amount": round(paid.amount / prod(s.ratio for s in market.splits.get(symbol, ()) if s.at > paid.at), 6),
        }
        for paid in market.dividends.get(symbol, ())
        if start_us <= to_us(paid.at) < end_us
    }
    events = {"splits": splits, "dividends": dividends}
    return 200, {"chart": {"result": [{**result, "indicators": {"quote": [quote]}, "events": events}]}}


def databento(ask: Request, market: Market) -> Reply:
    if ask.headers.get("authorization") != "Basic " + base64.b64encode(f"{KEYS['databento']}:".encode()).decode():
        return 401, {"detail": "Authentication failed."}
    if ask.path.endswith(".list_datasets"):
        return 200, ["EQUS.MINI", "XNAS.ITCH"]
    symbols = ask.query["symbols"].split(",")
    if not any(map(market.knows, symbols)):
        detail = {"case": "symbology_invalid_request", "message": "None of the symbols could be resolved", "docs": ""}
        return 422, {"detail": detail}
    if ask.path.endswith(".get_cost"):
        return 200, market.cost
    return 200, _dbn(ask, market, symbols)


VENDORS: Mapping[str, Callable[[Request, Market], Reply]] = {
    "alpaca": alpaca,
    "massive": massive,
    "finnhub": finnhub,
    "yfinance": yfinance,
    "databento": databento,
}


def encoded(body: Any) -> bytes:
    """A reply's body as it goes over the wire."""
    if isinstance(body, bytes):
        return body
    return body.encode() if isinstance(body, str) else json.dumps(body).encode()


def _alpaca_actions(ask: Request, market: Market, symbols: list[str]) -> dict[str, Any]:
    """Those that were processed in the days asked for: a dividend on the day on which it is paid."""
    rows = []
    for symbol in symbols:
        for split in market.splits.get(symbol, ()):
            group = "forward_splits" if split.ratio > 1 else "reverse_splits"
            day = str(split.at.date())
            row = {"symbol": symbol, "new_rate": split.ratio, "old_rate": 1, "ex_date": day, "process_date": day}
            rows.append((day, group, row))
        for paid in market.dividends.get(symbol, ()):
            day = str(paid.paid or paid.at.date())
            row = {"symbol": symbol, "rate": paid.amount, "special": False, "foreign": False}
            row |= {"ex_date": str(paid.at.date()), "payable_date": day, "process_date": day}
            rows.append((day, "cash_dividends", row))
    rows = sorted(
        (each for each in rows if ask.query["start"] <= each[0] <= ask.query["end"]), key=lambda each: each[0]
    )
    first = int(base64.b64decode(ask.query.get("page_token", "")) or 0)
    last = first + min(market.page, int(ask.query["limit"]))
    groups: dict[str, list[Any]] = {}
    for _, group, row in rows[first:last]:
        groups.setdefault(group, []).append(row)
    token = base64.b64encode(str(last).encode()).decode() if last < len(rows) else None
    return {"corporate_actions": groups, "next_page_token": token}


def _massive_actions(ask: Request, market: Market) -> dict[str, Any]:
    """Splits or dividends of a ticker whose dates lie in the range, in pages."""
    kind, symbol = ask.path.rpartition("/")[2], ask.query.get("ticker", "")
    name = {"splits": "execution_date", "dividends": "ex_dividend_date"}[kind]
    rows: list[dict[str, Any]]
    if kind == "splits":
        rows = [
            {"ticker": symbol, name: str(each.at.date()), "split_from": 1, "split_to": each.ratio}
            for each in market.splits.get(symbol, ())
        ]
    else:
        rows = [
            {"ticker": symbol, name: str(each.at.date()), "cash_amount": each.amount, "currency": "USD",
             "pay_date": str(each.paid) if each.paid else None}
            for each in market.dividends.get(symbol, ())
        ]  # fmt: skip
    first, last = ask.query[f"{name}.gte"], ask.query[f"{name}.lte"]
    rows = [row for row in rows if first <= row[name] <= last]
    start = int(ask.query.get("cursor", 0))
    content: dict[str, Any] = {"status": "OK", "results": rows[start : start + market.page]}
    if start + market.page < len(rows):
        query = {**ask.query, "cursor": start + market.page}
        content["next_url"] = f"https://api.massive.com{ask.path}?{urlencode(query)}"
    return content


def _rows(bars: Bars, stamped: np.ndarray) -> list[tuple[Any, ...]]:
    return list(zip(stamped.tolist(), *(column.tolist() for column in bars.columns), strict=True))


def _alpaca_rows(bars: Bars, interval: Interval) -> list[dict[str, Any]]:
    rows = _rows(bars, stamps(bars, interval))
    return [{"t": f"{from_us(t):%Y-%m-%dT%H:%M:%SZ}", **dict(zip("ohlcv", row, strict=True)), "n": 1, "vw": row[0]}
            for t, *row in rows]  # fmt: skip


def _alpaca_quote(market: Market, symbol: str) -> dict[str, Any]:
    quote = market.quotes[symbol]
    at = f"{quote.ts:%Y-%m-%dT%H:%M:%S}.123456789Z"
    return {"t": at, "bp": quote.bid, "bs": quote.bid_size, "ap": quote.ask, "as": quote.ask_size, "c": ["R"]}


def _iso_us(text: str) -> int:
    at = datetime.fromisoformat(text)
    return to_us(at if at.tzinfo else at.replace(tzinfo=UTC))


def _massive_us(text: str, *, end: bool) -> int:
    """A millisecond, or a date in New York, of which the whole is meant."""
    if text.isdigit():
        return int(text) * 1000 + end
    day = date.fromisoformat(text) + timedelta(days=end)
    label = Bars.of([to_us(datetime(day.year, day.month, day.day, tzinfo=UTC))], [1], [1], [1], [1], [1])
    return int(stamps(label, Interval.D1)[0])


def _chart_error(code: str, description: str) -> dict[str, Any]:
    return {"chart": {"result": None, "error": {"code": code, "description": description}}}


def _since(market: Market, symbol: str, first: date) -> date:
    return max(first, market.since[symbol].date()) if symbol in market.since else first


def _dbn(ask: Request, market: Market, symbols: list[str]) -> bytes:
    """A DBN stream as the vendor sends it: metadata with what was resolved, records in time order, in zstd."""
    dbn, zstandard = (import_module(name) for name in ("databento_dbn", "zstandard"))

    interval = INTERVALS[ask.query["schema"]]
    start_us, end_us = _iso_us(ask.query["start"]), _iso_us(ask.query["end"])
    known = [symbol for symbol in symbols if market.knows(symbol)]
    first, last = from_us(start_us).date(), from_us(end_us).date() + timedelta(days=1)
    mappings: Any = [
        SimpleNamespace(
            raw_symbol=symbol,
            intervals=[SimpleNamespace(start_date=_since(market, symbol, first), end_date=last, symbol=str(number))],
        )
        for number, symbol in enumerate(known, start=1)
    ]
    metadata = dbn.Metadata(
        dataset=ask.query["dataset"],
        start=start_us * 1000,
        end=end_us * 1000,
        stype_in=dbn.SType.RAW_SYMBOL,
        stype_out=dbn.SType.INSTRUMENT_ID,
        schema=dbn.Schema.from_str(ask.query["schema"]),
        symbols=symbols,
        partial=[],
        not_found=[symbol for symbol in symbols if symbol not in known],
        mappings=mappings,
        version=3,
    )
    records = _records(dbn, market, (interval, start_us, end_us), known)
    body = b"".join(record for _, record in sorted(records, key=lambda each: each[0]))
    packed: bytes = zstandard.ZstdCompressor().compress(bytes(metadata) + body)
    return packed


def _records(dbn: Any, market: Market, ask: tuple[Interval, int, int], symbols: list[str]) -> list[tuple[int, bytes]]:
    """(start, encoded bar) of each symbol in the half-open range."""
    interval, start_us, end_us = ask
    kind = {Interval.M1: dbn.RType.OHLCV_1M, Interval.H1: dbn.RType.OHLCV_1H, Interval.D1: dbn.RType.OHLCV_1D}[interval]
    records = []
    for number, symbol in enumerate(symbols, start=1):
        bars = market.bars.get((symbol, interval), Bars.empty())
        bars = bars.take((bars.ts_us >= start_us) & (bars.ts_us < end_us))  # its days are those of UTC
        if symbol in market.since:
            bars = bars.take(bars.ts_us >= to_us(market.since[symbol]))
        for ts_us, *prices, volume in _rows(bars, bars.ts_us):
            columns = (*(round(price * 1e9) for price in prices), int(volume))
            records.append((ts_us, bytes(dbn.OHLCVMsg(kind, 95, number, ts_us * 1000, *columns))))
    return records

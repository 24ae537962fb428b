"""How each source writes its listing, read from the bytes as they came. Needs no key, no SDK and no network.

Vendors' pages follow one another, each a JSON document. What gives other rows for the same bytes must count up
``domain.universe.RULES``.
"""

from __future__ import annotations

import csv
import difflib
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

from mdtasks.domain.errors import GarbledAnswerError, InvalidRequestError
from mdtasks.domain.listings import Listed, dollars

#: What symbols may look like here; a listing holds others too (warrants with spaces, test issues).
SYMBOL: Final = re.compile(r"[A-Za-z0-9^][A-Za-z0-9._/^=:-]{0,31}")
_DAY: Final = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_SPACE: Final = re.compile(r"\s*")
#: Longest id of a source's own.
_ID_LENGTH: Final = 100
_COLUMNS: Final = ("symbol", "mic", "close", "volume", "listed_from", "delisted_on", "kind", "id")
_NEEDED: Final = ("symbol", "mic", "close", "volume")
_KINDS: Final = ("equity", "index", "crypto")
_PLACE_SAFE: Final = re.compile(r"[A-Za-z0-9/._-]{1,32}")
#: Alpaca's names of exchanges, https://docs.alpaca.markets/docs/working-with-assets
_ALPACA: Final = {"NYSE": "XNYS", "NASDAQ": "XNAS", "ARCA": "ARCX", "AMEX": "XASE", "BATS": "BATS"}
#: Where shares change hands that are on no exchange.
_OVER_THE_COUNTER: Final = frozenset({"OOTC", "OTCM", "OTCQ", "OTCB", "PINX", "PINL", "PSGM", "XOTC"})
#: Kinds of Massive's tickers and of Finnhub's that are shares or funds, not warrants, rights or units.
_MASSIVE_TYPES: Final = frozenset({"CS", "ADRC", "ETF", "ETN", "ETV", "ETS", "FUND", "OS", "GDR"})
_FINNHUB_TYPES: Final = frozenset({"Common Stock", "ADR", "ETP", "REIT", "Closed-End Fund", "NY Reg Shrs", "MLP"})


@dataclass(frozen=True, slots=True)
class Format:
    """How a source writes. ``read`` raises InvalidRequestError or GarbledAnswerError for what cannot be read.

    ``partial``: it lists what traded that day, not all that is listed.
    """

    read: Callable[[bytes], Iterator[Listed]]
    partial: bool = False


def read(source: str, body: bytes) -> list[Listed]:
    """The rows of a kept listing, without those that can be no symbol here. Raises InvalidRequestError for a source
    that there is not and for a listing that is wrong (with its line), GarbledAnswerError for a vendor's.
    """
    return list(format_of(source).read(body))


def format_of(source: str) -> Format:
    """How a source writes. Raises InvalidRequestError."""
    if source not in FORMATS:
        near = difflib.get_close_matches(source, FORMATS, n=1)
        raise InvalidRequestError(
            f"no listing source {source!r}" + (f"; did you mean {near[0]}?" if near else ""),
            field="source",
            hint="csv:FILE, lean, alpaca, massive or finnhub",
        )
    return FORMATS[source]


def _wrong(line: int, what: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"listing, line {line}: {what}",
        field="listing",
        hint=f"columns {','.join(_NEEDED)} and, where you have them, {','.join(_COLUMNS[len(_NEEDED) :])}",
    )


def read_csv(body: bytes) -> Iterator[Listed]:
    """``symbol,mic,close,volume`` with a header, in any order, and optional ``listed_from,delisted_on,kind,id``.

    An empty close or volume: nobody knows. A symbol that there can be no such of is an error here: somebody wrote it.
    """
    try:
        rows = csv.reader(io.StringIO(body.decode("utf-8-sig")), strict=True)
        names = [name.strip() for name in next(rows, [])]
        _check_header(names)
        for row in rows:
            if not row:
                continue
            if len(row) != len(names):
                what, line = f"{len(row)} values for {len(names)} columns", rows.line_num
                if len(row) < len(names) and open_end(body) and next(rows, None) is None:
                    what += ", and the file ends there without a newline: it was cut off"
                raise _wrong(line, what)
            yield _listed(dict(zip(names, map(str.strip, row), strict=True)), rows.line_num)
    except UnicodeDecodeError as exc:
        raise _wrong(1, "it is not UTF-8 text") from exc
    except csv.Error as exc:
        raise _wrong(rows.line_num, str(exc)) from exc


def open_end(body: bytes) -> bool:
    """Whether the last line has no newline after it: somebody may have stopped writing in the midst of it."""
    return not body.endswith((b"\n", b"\r"))


def doubt(source: str, body: bytes) -> str | None:
    """What makes a listing that can be read look cut off; None: nothing does. ``body``: one that ``read`` took.

    A CSV whose last line has all its columns and no newline may have lost the end of its last value. Editors and
    scripts write such files too, so it is no error.
    """
    if source != "csv" or not open_end(body):
        return None
    reader = csv.reader(io.StringIO(body.decode("utf-8-sig")), strict=True)
    names, *rows = [list(map(str.strip, row)) for row in reader if row]
    symbol, value = rows[-1][names.index("symbol")], rows[-1][-1]
    said = f"is its {names[-1]} {value!r} whole" if value else f"has it no {names[-1]}"
    return (
        f"line {reader.line_num}, the last ({symbol}), has no newline after it: {said}, or was the file cut off there?"
    )


def _check_header(names: list[str]) -> None:
    for name in names:
        if name not in _COLUMNS:
            near = difflib.get_close_matches(name, _COLUMNS, n=1)
            raise _wrong(1, f"unknown column {name[:40]!r}" + (f"; did you mean {near[0]}?" if near else ""))
        if names.count(name) > 1:
            raise _wrong(1, f"column {name} comes twice")
    lacking = [name for name in _NEEDED if name not in names]
    if lacking:
        raise _wrong(1, f"column {lacking[0]} is missing")


def _listed(row: Mapping[str, str], line: int) -> Listed:
    symbol, mic, kind = row["symbol"], row["mic"], row.get("kind") or ("crypto" if row["mic"] == "24/7" else "equity")
    if not SYMBOL.fullmatch(symbol):
        raise _wrong(line, f"symbol {symbol[:40]!r} is no symbol")
    if not _PLACE_SAFE.fullmatch(mic):
        raise _wrong(line, f"mic {mic[:40]!r} is no exchange")
    if kind not in _KINDS:
        raise _wrong(line, f"kind {kind[:40]!r} is none of {', '.join(_KINDS)}")
    try:
        money = dollars(row["close"], row["volume"]) if row["close"] and row["volume"] else None
        listed, delisted = (_day(row.get(name)) for name in ("listed_from", "delisted_on"))
        return Listed(symbol, mic, kind, money, listed, delisted, _own(row.get("id")))
    except (ValueError, ArithmeticError) as exc:
        raise _wrong(line, f"{symbol}: {exc}") from exc


def _day(text: str | None) -> date | None:
    if not text:
        return None
    if not _DAY.fullmatch(text):  # of the ways to write a date that Python takes, newer versions take more
        raise ValueError(f"{text[:40]!r} is no date such as 2026-11-02")
    return date.fromisoformat(text)


def _own(text: str | None) -> str | None:
    if not text:
        return None
    if len(text) > _ID_LENGTH or not text.isprintable():
        raise ValueError(f"id {text[:40]!r} is longer than {_ID_LENGTH} characters or not printable")
    return text


def read_lean(body: bytes) -> Iterator[Listed]:
    """LEAN's coarse file: ``sid,ticker,close,volume,dollar_volume,has_fundamental,price_factor,split_factor``.

    Read are the first four columns: the factors of a day hold the splits and dividends of the years after it.
    """
    for number, line in enumerate(body.decode("utf-8-sig", "replace").splitlines(), 1):
        row = line.split(",")
        if len(row) < 4:
            raise _wrong(number, "a coarse file has at least the columns sid, ticker, close, volume")
        if SYMBOL.fullmatch(symbol := row[1].upper()):
            try:
                yield Listed(symbol, "XNYS", "equity", dollars(row[2], row[3]), own_id=_own(row[0]))
            except (ValueError, ArithmeticError) as exc:
                raise _wrong(number, f"{symbol}: {exc}") from exc


def read_alpaca(body: bytes) -> Iterator[Listed]:
    """Assets: those that are active, on an exchange."""
    for row in _rows("alpaca", body, None):
        if row.get("status") == "active" and row.get("class") == "us_equity" and row.get("exchange") in _ALPACA:
            yield from _sound("alpaca", row.get("symbol"), _ALPACA[row["exchange"]], row.get("id"))


def read_massive(body: bytes) -> Iterator[Listed]:
    """Tickers: those that are active, of shares and funds on an exchange."""
    for row in _rows("massive", body, "results"):
        if row.get("active", True) and row.get("type") in _MASSIVE_TYPES and row.get("primary_exchange"):
            own = row.get("composite_figi") or row.get("share_class_figi")
            yield from _sound("massive", row.get("ticker"), row["primary_exchange"], own)


def read_finnhub(body: bytes) -> Iterator[Listed]:
    """Symbols of the US: shares and funds on an exchange."""
    for row in _rows("finnhub", body, None):
        if row.get("type") in _FINNHUB_TYPES and row.get("mic"):
            yield from _sound("finnhub", row.get("symbol"), row["mic"], row.get("figi"))


def _sound(source: str, symbol: Any, mic: Any, own: Any) -> Iterator[Listed]:
    if not isinstance(symbol, str) or not isinstance(mic, str):
        raise GarbledAnswerError("a listing's row without a symbol", provider=source)
    if SYMBOL.fullmatch(symbol) and _PLACE_SAFE.fullmatch(mic) and mic not in _OVER_THE_COUNTER:
        yield Listed(symbol, mic, own_id=_own(own if isinstance(own, str) else None))


def _rows(source: str, body: bytes, within: str | None) -> Iterator[Mapping[str, Any]]:
    """The rows of all pages."""
    decoder, at = json.JSONDecoder(), 0
    try:
        text = body.decode("utf-8").strip()
        while at < len(text):
            page, end = decoder.raw_decode(text, at)
            at = _after(text, end)
            rows = page if within is None else page.get(within, [])
            yield from (row for row in rows or [] if isinstance(row, dict))
    except (ValueError, AttributeError, TypeError) as exc:
        raise GarbledAnswerError(f"its listing cannot be read: {exc}", provider=source) from exc


def _after(text: str, at: int) -> int:
    """Where the next page begins."""
    space = _SPACE.match(text, at)
    return space.end() if space else at


#: The sources there are, by name.
FORMATS: Final[Mapping[str, Format]] = {
    "csv": Format(read_csv),
    "lean": Format(read_lean, partial=True),
    "alpaca": Format(read_alpaca),
    "massive": Format(read_massive),
    "finnhub": Format(read_finnhub),
}

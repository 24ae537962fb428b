"""Corporate actions out of a CSV file: all of it or nothing, each wrong line named."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Final

from mdtasks.domain.actions import Action, Key, Kind, value_of
from mdtasks.domain.errors import InvalidRequestError
from mdtasks.providers.listings import SYMBOL

#: The columns that a file may have; the first three it must.
COLUMNS: Final = (
    "ex_date",
    "kind",
    "value",
    "symbol",
    "currency",
    "new_symbol",
    "reference",
    "declared_on",
    "record_on",
    "pay_on",
)
_NEEDED: Final = COLUMNS[:3]


def read_actions_file(path: Path, symbol: str | None = None) -> list[tuple[str, Action]]:
    """The actions of a file with a header, each with its symbol: of its column, else ``symbol``.

    Raises InvalidRequestError naming the line and the column.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            _check_header(path, list(reader.fieldnames or ()), symbol)
            return [_named(path, reader.line_num, row, symbol) for row in reader]
    except OSError as exc:
        raise InvalidRequestError(
            f"cannot read {path}: {exc.strerror or exc}", field="file", hint="a CSV file with ex_date, kind and value"
        ) from exc
    except (UnicodeDecodeError, csv.Error) as exc:
        raise InvalidRequestError(
            f"{path} is not CSV: {exc}", field="file", hint="UTF-8 text, one header line"
        ) from exc


def _check_header(path: Path, header: list[str], symbol: str | None) -> None:
    unknown = [name for name in header if name not in COLUMNS]
    missing = [name for name in _NEEDED if name not in header]
    if missing or unknown:
        wrong = f"has no column {missing[0]}" if missing else f"has an unknown column {unknown[0]!r}"
        raise InvalidRequestError(f"{path} {wrong}", field="file", hint=f"columns: {', '.join(COLUMNS)}")
    if ("symbol" in header) == (symbol is not None):
        wrong = "has symbols of its own" if symbol is not None else "has no column symbol"
        raise InvalidRequestError(
            f"{path} {wrong}", field="symbol", hint="give --symbol for a file without that column, and only then"
        )


def _named(path: Path, line: int, row: Mapping[str | None, str | None], symbol: str | None) -> tuple[str, Action]:
    try:
        if None in row or None in row.values():
            raise InvalidRequestError("not as many values as columns", field="file")
        given = {name: value.strip() for name, value in row.items() if name is not None and value is not None}
        return symbol or given["symbol"], action_of(given)
    except InvalidRequestError as exc:
        raise InvalidRequestError(f"{path}, line {line}: {exc.message}", field=exc.field, hint=exc.hint) from exc


def action_of(given: Mapping[str, str]) -> Action:
    """The action that texts by the names of COLUMNS describe; an empty one says nothing.

    Raises InvalidRequestError naming the field.
    """
    days = {name: _day(given.get(name, ""), name) for name in ("declared_on", "record_on", "pay_on")}
    ex_date = _day(given["ex_date"], "ex_date")
    if ex_date is None:
        raise InvalidRequestError("no ex_date", field="ex_date", hint="write 2014-06-09")
    try:
        return Action(
            kind_of(given["kind"]),
            ex_date,
            value_of(given.get("value", "")),
            given.get("currency", "").upper() or None,
            _new_symbol(given.get("new_symbol", "")),
            value_of(given.get("reference", "")),
            **days,
        )
    except InvalidRequestError as exc:
        if exc.field != "symbol":
            raise
        raise InvalidRequestError(exc.message, field="new_symbol", hint=exc.hint) from exc  # as it is called here


def _new_symbol(text: str) -> str | None:
    """What providers tell is kept as they told it; a person or a file can be asked to write it right."""
    if text and not SYMBOL.fullmatch(text):
        raise InvalidRequestError(
            f"new_symbol {text[:40]!r} is no symbol", field="new_symbol", hint="as it is traded, such as META or BRK.B"
        )
    return text or None


def key_of(ex_date: str, kind: str, new_symbol: str = "") -> Key:
    """The action of a symbol that a day and a kind name, and of spin-offs the company. Raises InvalidRequestError."""
    day, known = _day(ex_date, "ex_date"), kind_of(kind)
    if day is None:
        raise InvalidRequestError("no ex_date", field="ex_date", hint="write 2014-06-09")
    return day, known, new_symbol if known is Kind.SPIN_OFF else ""


def kind_of(text: str) -> Kind:
    """The kind that a text names. Raises InvalidRequestError."""
    try:
        return Kind(text.strip().lower().replace("-", "_"))
    except ValueError:
        raise InvalidRequestError(
            f"kind {text[:40]!r} is unknown", field="kind", hint=f"there are {', '.join(Kind)}"
        ) from None


def _day(text: str, field: str) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        raise InvalidRequestError(
            f"{field} {text[:40]!r} is not a date", field=field, hint="write 2014-06-09"
        ) from None

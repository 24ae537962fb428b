"""What Alpaca tells of corporate actions, as ours.

Source of the shapes: alpaca-py's ``alpaca.data.models.corporate_actions``. Rates are raw: a dividend's is cash for one
share of that day. A symbol may bear actions under a name that it bears no longer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Any, Final

from mdtasks.domain.actions import Action, Kind

Row = Mapping[str, Any]


def actions_of(rows: Mapping[str, Sequence[Row]]) -> dict[str, list[Action]]:
    """The actions of an answer by symbol. Groups of which nothing is stored (redemptions, rights) are left out.

    Raises KeyError, ValueError, TypeError, InvalidRequestError for a row that is none.
    """
    found: defaultdict[str, list[Action]] = defaultdict(list)
    for group, (bearer, made) in _GROUPS.items():
        for row in rows.get(group, ()):
            action = made(row)
            if action is not None:
                found[row[bearer]].append(action)
    return dict(found)


def _day(row: Row, name: str) -> date:
    return date.fromisoformat(row[name])


def _maybe_day(row: Row, name: str) -> date | None:
    return date.fromisoformat(row[name]) if row.get(name) else None


def _dates(row: Row) -> dict[str, date | None]:
    return {"record_on": _maybe_day(row, "record_date"), "pay_on": _maybe_day(row, "payable_date")}


def _split(row: Row) -> Action:
    return Action(Kind.SPLIT, _day(row, "ex_date"), row["new_rate"] / row["old_rate"], **_dates(row))  # type: ignore[arg-type]


def _stock_dividend(row: Row) -> Action:
    return Action(Kind.STOCK_DIVIDEND, _day(row, "ex_date"), float(row["rate"]), **_dates(row))  # type: ignore[arg-type]


def _dividend(row: Row) -> Action | None:
    if not row["rate"]:
        return None
    return Action(Kind.DIVIDEND, _day(row, "ex_date"), float(row["rate"]), "USD", **_dates(row))  # type: ignore[arg-type]


def _spin_off(row: Row) -> Action:
    """How many shares come for one is told, not what they are worth."""
    return Action(Kind.SPIN_OFF, _day(row, "ex_date"), symbol=row["new_symbol"], **_dates(row))  # type: ignore[arg-type]


def _rename(row: Row) -> Action:
    return Action(Kind.RENAME, _day(row, "process_date"), symbol=row["new_symbol"])


def _merged(row: Row) -> Action:
    return Action(Kind.DELISTING, _day(row, "effective_date"))


def _worthless(row: Row) -> Action:
    return Action(Kind.DELISTING, _day(row, "process_date"))


#: The groups of an answer: which field names the symbol that it happened to, and what of ours a row is.
_GROUPS: Final[Mapping[str, tuple[str, Callable[[Row], Action | None]]]] = {
    "forward_splits": ("symbol", _split),
    "reverse_splits": ("symbol", _split),
    "stock_dividends": ("symbol", _stock_dividend),
    "cash_dividends": ("symbol", _dividend),
    "spin_offs": ("source_symbol", _spin_off),
    "name_changes": ("old_symbol", _rename),
    "cash_mergers": ("acquiree_symbol", _merged),
    "stock_mergers": ("acquiree_symbol", _merged),
    "stock_and_cash_mergers": ("acquiree_symbol", _merged),
    "worthless_removals": ("symbol", _worthless),
}

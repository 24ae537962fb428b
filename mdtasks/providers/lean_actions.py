"""Corporate actions out of LEAN's factor and map files, which hold their traces: factors and tickers by date.

Formats: QuantConnect/Lean, ``Common/Data/Auxiliary`` (CorporateFactorRow, MapFileRow). A factor file's row
``YYYYMMDD,price_factor,split_factor,reference_price`` holds up to its date, which is the last session before an
ex-date; the price factor has seven decimals, so a dividend is known as well as that allows. A map file's row
``YYYYMMDD,ticker[,…]`` is the last date of a ticker; the first row is the listing, the last one the delisting, or 2050.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Final

from mdtasks.domain.actions import Action, Kind
from mdtasks.domain.errors import BadPayloadError, InvalidRequestError, NoDataError, VendorError
from mdtasks.domain.sessions import Calendar
from mdtasks.providers.shaping import session_from, shortest

_LEAN: Final = "lean"
_DAY: Final = timedelta(days=1)

#: A last row from this year on says that the ticker is still in use.
_FOR_EVER: Final = 2050
#: A ratio of splits is taken for a fraction with one side at most so large that is so near, as a share: split factors
#: of long histories are small numbers with few digits left.
_SIMPLE: Final = ((4, 1.5e-4), (20, 1e-5))
#: A price factor and a split factor are this far from the truth at most: seven decimals of numbers up to one.
_ROUNDED: Final = 0.5e-7

#: The next session after a date.
NextSession = Callable[[date], date]


def read_actions(folder: Path, ticker: str, calendar: Calendar) -> list[Action]:
    """All that the files of a ticker in ``equity/usa`` tell. Raises NoDataError when there is neither, BadPayloadError
    naming file and line, VendorError when the disk failed.
    """
    found: list[Action] = []
    paths = {
        folder / "factor_files" / f"{ticker}.csv": factor_actions,
        folder / "map_files" / f"{ticker}.csv": map_actions,
    }
    missing = []
    for path, read in paths.items():
        try:
            found += read(path.read_text(encoding="utf-8"), lambda day: session_from(calendar, day + _DAY))
        except FileNotFoundError:
            missing.append(str(path))
        except OSError as exc:
            raise VendorError(f"cannot read {path}: {exc.strerror or exc}", provider=_LEAN) from exc
        except (ValueError, InvalidRequestError) as exc:
            raise BadPayloadError(f"{path}: {exc}", provider=_LEAN) from exc
    if len(missing) == len(paths):
        raise NoDataError(f"no file {' nor '.join(missing)}", provider=_LEAN)
    return found


@dataclass(frozen=True, slots=True)
class _Factors:
    day: date
    price: float
    split: float
    reference: float


def factor_actions(text: str, next_session: NextSession) -> list[Action]:
    """The splits and dividends of a factor file. Raises ValueError naming the line of a row that is none."""
    rows = sorted(_factor_rows(text), key=lambda row: row.day)
    found: list[Action] = []
    for row, after in pairwise(rows):
        if row.price != after.price or row.split != after.split:
            found += _between(row, after, next_session(row.day))
    return found


def _between(row: _Factors, after: _Factors, ex_date: date) -> Iterator[Action]:
    """What happened at the end of a row: its factors and the next one's tell."""
    reference = row.reference if row.reference > 0 else None
    ratio = _simple(after.split / row.split)
    if ratio != 1.0:
        yield Action(Kind.SPLIT, ex_date, ratio, reference=reference)
    if row.price != after.price and reference is not None:
        paid = reference * (1 - row.price / after.price)
        within = reference * _ROUNDED * (1 / row.price + 1 / after.price)
        value = shortest(paid, within)
        if value > 0:
            yield Action(Kind.DIVIDEND, ex_date, value, reference=reference)


def _factor_rows(text: str) -> Iterator[_Factors]:
    for number, line in enumerate(text.splitlines(), start=1):
        # As LEAN reads them: factors that ran out of a number's range are none.
        if not line.strip() or "inf" in line or "e+" in line:
            continue
        try:
            day, price, split, reference = line.split(",")[:4]
            row = _Factors(_date_of(day), float(price), float(split), float(reference))
        except ValueError as exc:
            raise ValueError(f"line {number}: {exc}") from exc
        if row.price * row.split > 0:
            yield row


def map_actions(text: str, next_session: NextSession) -> list[Action]:
    """The renames and the delisting of a map file. Raises ValueError naming the line of a row that is none."""
    rows: list[tuple[date, str]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            day, _, rest = line.partition(",")
            try:
                rows.append((_date_of(day), rest.split(",")[0].strip().upper()))
            except ValueError as exc:
                raise ValueError(f"line {number}: {exc}") from exc
    return [*_renames(rows, next_session), *_delisting(rows, next_session)]


def _renames(rows: Sequence[tuple[date, str]], next_session: NextSession) -> Iterator[Action]:
    for (last_day, ticker), (_, following) in pairwise(rows):
        if ticker != following:
            yield Action(Kind.RENAME, next_session(last_day), symbol=following)


def _delisting(rows: Sequence[tuple[date, str]], next_session: NextSession) -> Iterator[Action]:
    if len(rows) > 1 and rows[-1][0].year < _FOR_EVER:
        yield Action(Kind.DELISTING, next_session(rows[-1][0]))


def _date_of(text: str) -> date:
    return datetime.strptime(text.strip(), "%Y%m%d").date()  # noqa: DTZ007 - a date


def _simple(ratio: float) -> float:
    """The fraction that a quotient of rounded factors means, where there is a simple one so near."""
    for small, within in _SIMPLE:
        for near in (Fraction(ratio).limit_denominator(small), 1 / Fraction(1 / ratio).limit_denominator(small)):
            if abs(float(near) / ratio - 1) <= within:
                return float(near)
    return round(ratio, 8)

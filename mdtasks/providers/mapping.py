"""The mapping file of the `files` provider: which files hold which symbol and interval, and how to read them.

Frozen and validated whole: an unknown key is refused with the nearest known one, so that a typo never leaves a default
in its place. docs/providers.md describes every key.
"""

from __future__ import annotations

import difflib
import string
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictStr,
    ValidationError,
    model_validator,
)

from mdtasks.domain.errors import ConfigurationError
from mdtasks.domain.jobs import Interval, Symbol
from mdtasks.providers.wallclock import Ambiguous

#: Time formats that are no strptime pattern; the number divides into microseconds or is multiplied up to them.
EPOCHS: Final = {"epoch_s": 1_000_000, "epoch_ms": 1_000, "epoch_us": 1}
_ENV: Final = "MDTASKS_FILES_MAP"


def _quoted(value: object) -> object:
    """YAML reads NO as false and 000001 as a number: say so instead of serving another symbol."""
    if not isinstance(value, str | list | dict):
        raise ValueError(f"{value!r} is not text to YAML; put it in quotes")  # noqa: TRY004 - pydantic's way to refuse
    items = [] if isinstance(value, str) else [*value, *(value.values() if isinstance(value, dict) else ())]
    for item in items:
        if not isinstance(item, str):
            raise ValueError(f"{item!r} is not text to YAML; put it in quotes")  # noqa: TRY004
    return value


def _known_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as exc:
        raise ValueError(f"no time zone {name!r}; use a name such as America/New_York") from exc
    return name


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


#: A column by its name in the header or, without a header, by its position from 0.
Column = StrictStr | Annotated[int, Field(ge=0, strict=True)]


class Columns(_Part):
    """Where each value stands in a row. ``time`` may be two columns (date and time of day), joined by a space."""

    time: Column | tuple[Column, ...] = "time"
    open: Column = "open"
    high: Column = "high"
    low: Column = "low"
    close: Column = "close"
    #: null: the files have no volume, it is stored as 0.
    volume: Column | None = "volume"

    @property
    def times(self) -> tuple[Column, ...]:
        return self.time if isinstance(self.time, tuple) else (self.time,)


class Dataset(_Part):
    """Files of one shape: CSV (also .gz or .zip) or Parquet, by the ending of the path."""

    path: StrictStr
    symbols: Annotated[Literal["*"] | tuple[Symbol, ...] | dict[Symbol, str], BeforeValidator(_quoted)]
    interval: Interval
    columns: Columns = Columns()
    header: bool = True
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] = ","
    timezone: Annotated[StrictStr, AfterValidator(_known_zone)] = "UTC"
    time_format: StrictStr = "iso"
    label: Literal["start", "end"] = "start"
    price_scale: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    complete: bool = True
    ambiguous: Ambiguous = "refuse"

    @property
    def dated(self) -> bool:
        """A file per day, month or year: its path bears a date."""
        return any(name == "date" for _, name, _, _ in string.Formatter().parse(self.path))

    def file_symbol(self, symbol: str) -> str | None:
        """The symbol as the files name it; None: not in this dataset."""
        if isinstance(self.symbols, dict):
            return self.symbols.get(symbol)
        return symbol if self.symbols == "*" or symbol in self.symbols else None

    def file_path(self, root: Path, file_symbol: str, day: date) -> Path:
        """The file that should hold ``day``."""
        return root / self.path.format(symbol=file_symbol, date=day)

    @model_validator(mode="after")
    def _fits_together(self) -> Dataset:
        fields = [name for _, name, _, _ in string.Formatter().parse(self.path) if name is not None]
        for name in fields:
            if name not in {"symbol", "date"}:
                raise ValueError(f"path: {{{name}}} is not known{_near(name, ['symbol', 'date'])}")
        try:
            self.path.format(symbol="A", date=date(2000, 1, 3))
        except ValueError as exc:
            raise ValueError(f"path: {exc}") from exc
        if "symbol" not in fields and (self.symbols == "*" or len(self.symbols) > 1):
            raise ValueError("path: more than one symbol needs {symbol} in the path")
        if self.label == "end" and self.interval is Interval.D1:
            raise ValueError("label: a daily row bears its session's date; leave label at start")
        if len(self.columns.times) > 1 and (self.time_format == "iso" or self.time_format in EPOCHS):
            raise ValueError("time_format: time in two columns needs a pattern such as '%Y-%m-%d %H:%M'")
        if self.time_format not in {"iso", *EPOCHS} and "%" not in self.time_format:
            known = _near(self.time_format, ["iso", *EPOCHS])
            raise ValueError(f"time_format: {self.time_format!r} is neither iso, epoch_* nor a pattern{known}")
        if not self.header and any(isinstance(name, str) for name in self.names):
            raise ValueError("columns: without a header, columns are numbers from 0")
        if self.header and any(isinstance(name, int) for name in self.names):
            raise ValueError("columns: a file with a header names its columns; numbers need `header: false`")
        return self

    @property
    def names(self) -> tuple[Column, ...]:
        """The columns to read: those of the time, open, high, low, close, and volume when there is one."""
        c = self.columns
        return (*c.times, c.open, c.high, c.low, c.close, *(() if c.volume is None else (c.volume,)))


class Mapping(_Part):
    """The whole file. ``root`` is relative to the mapping file's folder."""

    root: Path = Path()
    datasets: Annotated[tuple[Dataset, ...], Field(min_length=1)]


def load_mapping(path: Path) -> Mapping:
    """The mapping in ``path``, its root absolute. Raises ConfigurationError naming the file and every wrong key."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 - a SafeLoader
    except OSError as exc:
        raise _refusal(path, exc.strerror or str(exc)) from exc
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        raise _refusal(path, " ".join(str(exc).split())) from exc
    if not isinstance(content, dict):
        raise _refusal(path, "is not a mapping with the keys root and datasets")
    try:
        mapping = Mapping.model_validate(content)
    except ValidationError as exc:
        wrong = [_finding(error) for error in exc.errors(include_url=False, include_context=False)]
        raise _refusal(path, "; ".join(dict.fromkeys(wrong))) from exc
    return mapping.model_copy(update={"root": (path.absolute().parent / mapping.root).resolve()})


class _Loader(yaml.SafeLoader):
    """Refuses a key given twice, of which YAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} given twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def _finding(error: Any) -> str:
    # Members of a union (tuple, dict) are pydantic's words, not the file's.
    where = [str(part) for part in error["loc"] if not str(part).startswith(("tuple[", "dict[", "literal["))]
    path = ".".join(where)
    if error["type"] != "extra_forbidden":
        return f"{path}: {error['msg'].removeprefix('Value error, ')}"
    known = Columns if "columns" in where[:-1] else Dataset if "datasets" in where[:-1] else Mapping
    return f"unknown key {path}{_near(where[-1], list(known.model_fields))}"


def _near(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else f"; known: {', '.join(known)}"


def _refusal(path: Path, what: str) -> ConfigurationError:
    return ConfigurationError(f"{path}: {what}", name=_ENV, hint="docs/providers.md describes the mapping file")

"""How data looks: tables on a terminal, aligned plain text in a pipe."""

from __future__ import annotations

import itertools
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from mdtasks.cli.frame import one_line

#: Colours of words that are states; everything else has none.
_STYLES: Final = {
    "done": "green",
    "ok": "green",
    "OK": "green",
    "present": "green",
    "running": "cyan",
    "queued": "cyan",
    "deferred": "yellow",
    "retry": "yellow",
    "lost": "yellow",
    "warn": "yellow",
    "provisional": "yellow",
    "failed": "red",
    "bad": "red",
    "LATE": "red",
    "NOT WATCHED": "red",
    "open": "red",
    "demoted": "red",
    "half-open": "yellow",
    "paused": "yellow",
    "cancelled": "dim",
    "released": "dim",
}
#: On a terminal of so many columns, texts up to so many characters stay on one line.
_WIDE: Final = 100
_SHORT: Final = 20


def activation() -> str:
    """What to type before `mdtasks` is found in a terminal, for what `make run` installed; "" when it is found."""
    script = Path(sys.prefix) / "bin" / "activate"
    found = shutil.which("mdtasks")
    if (found is not None and Path(found).parent == script.parent) or not script.exists():
        return ""
    here = script.relative_to(Path.cwd()) if script.is_relative_to(Path.cwd()) else script
    return f". {shlex.quote(str(here))}"


def on_terminal() -> bool:
    """Whether standard output is a person's terminal."""
    return sys.stdout.isatty()


def show_table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows under their headers on standard output. Numbers stand right; None is a dash.

    On a terminal, long texts fold, but never the first column: it is what is copied. In a pipe nothing is cut.
    """
    if on_terminal():
        _show_rich(headers, rows)
    else:
        for line in plain_lines(headers, rows):
            print(line)


def show_line(*pieces: str | tuple[str, str]) -> None:
    """Print one line of text; a piece with a style (``red``, ``bold``) bears it on a terminal. Long ones fold there."""
    parts = [(piece, "") if isinstance(piece, str) else piece for piece in pieces]
    if not on_terminal():
        print("".join(text for text, _ in parts))
        return
    from rich.console import Console
    from rich.text import Text

    Console(highlight=False).print(Text.assemble(*parts))


def plain_lines(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """The table as lines of plain text, columns two spaces apart."""
    cells = [list(headers), *([text_of(value) for value in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(headers))]
    right = _numeric(headers, rows)
    return [
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in cells
    ]


def _show_rich(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    table = Table(box=None, pad_edge=False, header_style="dim")
    wide = console.width >= _WIDE
    for number, (header, to_right) in enumerate(zip(headers, _numeric(headers, rows), strict=True)):
        short = wide and all(len(text_of(row[number])) <= _SHORT for row in rows)
        table.add_column(
            header, justify="right" if to_right else "left", overflow="fold", no_wrap=number == 0 or to_right or short
        )
    for row in rows:
        table.add_row(*(Text(text_of(value), style=_STYLES.get(str(value), "")) for value in row))
    console.print(table)


_BLOCKS: Final = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], width: int) -> str:
    """Numbers from 0 to 1 as a row of blocks, the oldest first; of those that share a block the lowest is shown."""
    cells = min(width, len(values))
    edges = [len(values) * number // cells for number in range(cells + 1)] if cells else [0]
    lowest = [min(values[start:end]) for start, end in itertools.pairwise(edges)]
    return "".join(_BLOCKS[min(int(max(each, 0.0) * len(_BLOCKS)), len(_BLOCKS) - 1)] for each in lowest)


def show_fields(fields: Mapping[str, object]) -> None:
    """Print one thing: a line for each field."""
    width = max(map(len, fields), default=0)
    for name, value in fields.items():
        print(f"{name:<{width}}  {text_of(value)}")


def text_of(value: object) -> str:
    """A value as a table shows it: times in UTC to the second, whole numbers in groups, one line without control
    characters (an error's text may hold anything)."""
    match value:
        case None | "":
            return "-"
        case datetime():
            return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            return repr(value)
        case _:
            return one_line(str(value))


def block_of(text: str) -> str:
    """Lines of somebody else's text without control characters."""
    return "\n".join(one_line(line.expandtabs()) for line in text.splitlines())


def plural(count: int, one: str, many: str = "") -> str:
    """``1 job``, ``2 jobs``, ``3,000 jobs``."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def json_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the store for ``--json``: times as ISO 8601 with Z."""
    return {name: iso(value) if isinstance(value, datetime) else value for name, value in row.items()}


def json_tree(value: Any) -> Any:
    """A document for ``--json``: times in it, however deep, as ISO 8601 with Z."""
    match value:
        case datetime():
            return iso(value)
        case Mapping():
            return {name: json_tree(each) for name, each in value.items()}
        case list() | tuple():
            return [json_tree(each) for each in value]
    return value


def iso(at: datetime) -> str:
    """A time as scripts read it: ISO 8601, UTC, with Z."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _numeric(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> list[bool]:
    return [
        bool(rows)
        and all(isinstance(row[i], int | float | None) for row in rows)
        and any(row[i] is not None for row in rows)
        for i in range(len(headers))
    ]

"""The table of `mdtasks status`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mdtasks.cli.frame import one_line
from mdtasks.stack.ports import why_moved
from mdtasks.stack.supervisor import exit_words

if TYPE_CHECKING:
    from mdtasks.stack.report import ProcessStatus, StackStatus

_COLOURS = {"ready": "green", "starting": "cyan", "waiting": "yellow", "degraded": "yellow", "stopping": "dim"}


def show_status(status: StackStatus) -> None:
    """Print the table, the totals and the addresses on standard output."""
    console = Console(highlight=False)
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("name", "state"):
        table.add_column(title)
    for title in ("pid", "uptime", "restarts", "memory"):
        table.add_column(title, justify="right")
    table.add_column("last exit")
    for row in status.rows:
        table.add_row(*_cells(row))
    console.print(table)
    console.print()
    colour = _COLOURS.get(status.word, "")
    console.print(f"[{colour}]{status.word}[/]  {status.memory_bytes / 1e6:,.0f} MB in all (PSS)", soft_wrap=True)
    why = why_moved(status.record.taken_port)
    web_url = status.record.web_url + (f" ({why})" if why else "")
    alerts = f"alerts  {status.record.prometheus_url}/alerts\n" if status.record.prometheus_url else ""
    console.print(
        f"web     {web_url}\nflower  {status.record.flower_url}\n{alerts}home    {status.home}",
        soft_wrap=True,
    )

    for name, why in status.aside.items():
        console.print(Text.assemble(("aside   ", "yellow"), f"{name}: {one_line(why)}"), soft_wrap=True)


def _cells(row: ProcessStatus) -> tuple[str, ...]:
    record = row.record
    colour = _COLOURS.get(record.state, "")
    return (
        record.name,
        f"[{colour}]{record.state}[/]" if colour else record.state,
        str(record.pid or "-"),
        _duration(row.uptime_s) if record.pid else "-",
        str(record.restarts) if record.restarts else "-",
        f"{row.memory_bytes / 1e6:,.0f} MB" if record.pid else "-",
        exit_words(record.last_exit) or "-",
    )


def _duration(seconds: float) -> str:
    """``seconds`` in the two largest units: 42s, 3m 07s, 2h 05m, 4d 03h."""
    whole = int(seconds)
    for unit, size, below, part in (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size}{unit} {whole % size // part:02d}{below}"
    return f"{whole}s"

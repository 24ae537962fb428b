"""What `mdtasks up` shows in the foreground: a line for each thing that becomes ready, where to go, what went wrong."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from rich.console import Console
from rich.markup import escape
from rich.status import Status

from mdtasks.cli.output import activation
from mdtasks.domain.errors import PROVIDER_SETTINGS
from mdtasks.providers.registry import Registry
from mdtasks.stack.ports import why_moved

if TYPE_CHECKING:
    from mdtasks.stack.processes import Plan
    from mdtasks.stack.supervisor import Event

#: Said once a stack is up that can fetch nothing.
NO_PROVIDER: Final = (
    f"no provider is configured, nothing can be fetched: stop, set {PROVIDER_SETTINGS}, and start again; "
    "or look around with `mdtasks up --demo`"
)
_MARKS = {
    "ready": "[green]✓[/]",
    "waiting": "[yellow]![/]",
    "starting": "[dim]·[/]",
    "cleared": "[yellow]![/]",
}


class UpScreen:
    """Turns the supervisor's events into lines on standard error."""

    def __init__(self, home: Path, *, demo: bool) -> None:
        self._home = home
        self._demo = demo
        self._console = Console(stderr=True, highlight=False)
        self._terminal = self._console.is_terminal
        self._status: Status | None = None
        self._plan: Plan | None = None
        self._starting: list[str] = []
        self._has_been_ready = False
        self._demo_process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._rest()
        if self._demo_process is not None:
            self._demo_process.wait()

    def on_plan(self, plan: Plan) -> None:
        """Say what is about to run."""
        self._plan = plan
        self._print(f"[bold]mdtasks[/] [dim]in {escape(str(self._home))}[/]")

    def on_event(self, event: Event) -> None:
        """Show one event."""
        if event.name == "stack":
            self._on_stack(event)
        elif event.what == "starting" and not self._has_been_ready:
            self._starting.append(event.name)
            self._wait_for_starting()
        elif event.what in _MARKS:
            if event.name in self._starting and event.what == "ready":
                self._starting.remove(event.name)
            text = event.text or ("started again" if event.what == "starting" else "")
            self._print(f"{_MARKS[event.what]} {event.name:<11}[dim]{escape(text)}[/]")
            self._wait_for_starting()

    def _on_stack(self, event: Event) -> None:
        self._rest()
        if event.what == "ready" and not self._has_been_ready:
            self._has_been_ready = True
            self._welcome(event.text)
        elif event.what == "ready":
            self._print("[green]✓[/] all ready again")
        elif event.what == "stopping":
            self._end_demo()
            self._print("[dim]stopping: workers finish what they hold (Ctrl-C again to end at once)[/]")
        elif event.what == "stopped":
            self._print("[dim]stopped, nothing left running[/]")

    def _welcome(self, took: str) -> None:
        assert self._plan is not None
        home = "" if self._home == Path.cwd() / ".mdtasks" else f" --home {self._home}"
        try_next = "bars BTC-USD --interval 1m" if self._demo else "backfill --help"
        why = why_moved(self._plan.taken_port)
        activate = activation()
        rows = [
            ("web", self._plan.web_url + (f" ({why})" if why else "")),
            ("Flower", self._plan.flower_url),
            *([("alerts", f"{self._plan.prometheus_url}/alerts")] if self._plan.prometheus_url else []),
            ("", ""),
            *([("first", f"{activate}   (in another terminal)")] if activate else []),
            ("next", f"mdtasks status{home}"),
            ("", f"mdtasks {try_next}{home}"),
            ("stop", f"Ctrl-C, or mdtasks down{home}"),
        ]
        self._print("")
        self._print(f"[bold green]ready[/] [dim]in {took}[/]")
        self._print("")
        for name, text in rows:
            self._print(f"  [dim]{name:<8}[/]{escape(text)}")
        self._print("")
        if not Registry(self._plan.settings).names():
            self._print(f"[yellow]![/] {escape(NO_PROVIDER)}")
        if self._demo:
            # A process of its own: what it needs in memory goes when it is done, and Ctrl-C ends it with the stack.
            argv = [sys.executable, "-P", "-m", "mdtasks", "demo", "--home", str(self._home)]
            self._demo_process = subprocess.Popen(argv, stdin=subprocess.DEVNULL)

    def _end_demo(self) -> None:
        if self._demo_process is not None and self._demo_process.poll() is None:
            self._demo_process.terminate()

    def _wait_for_starting(self) -> None:
        """The spinner, on a terminal, names what is still starting."""
        if not self._terminal or not self._starting or self._has_been_ready:
            self._rest()
            return
        text = f"[dim]starting {', '.join(self._starting)}[/]"
        if self._status is None:
            self._status = self._console.status(text, spinner="dots")
            self._status.start()
        else:
            self._status.update(text)

    def _rest(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None

    def _print(self, text: str) -> None:
        stamp = "" if self._terminal or not text else f"[dim]{datetime.now(UTC):%Y-%m-%d %H:%M:%S}Z[/] "
        try:
            self._console.print(stamp + text, soft_wrap=True)
        except OSError:  # the terminal is gone; the stack is not
            self._terminal = False

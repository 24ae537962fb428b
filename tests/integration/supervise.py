"""Runs a supervisor over stand-ins, in a process of its own: ``supervise.py HOME BEHAVIOUR...``."""

import signal
import sys
from pathlib import Path

from mdtasks.settings import load_settings
from mdtasks.stack.home import Home
from mdtasks.stack.processes import Plan, Spec
from mdtasks.stack.spawn import Command
from mdtasks.stack.supervisor import Event, Supervisor

_STAND_IN = str(Path(__file__).with_name("stand_in.py"))
_STOP = ((signal.SIGTERM, 1.0), (signal.SIGKILL, 1.0))


def _table(plan: Plan) -> tuple[Spec, ...]:
    return tuple(map(_spec, sys.argv[2:]))


def _spec(name: str) -> Spec:
    """``spare:BEHAVIOUR``: one that the stack does not need to be ready."""
    spare, _, behaviour = name.rpartition(":")
    command = Command((sys.executable, _STAND_IN, behaviour))
    return Spec(behaviour, command, stop=_STOP, notifies=behaviour != "crashing", needed=not spare)


def _tell(event: Event) -> None:
    print(event.name, event.what, event.text, flush=True)


home = Home(Path(sys.argv[1]))
with home.held() as mine:
    assert mine
    plan = Plan(load_settings({}, home=home.path), 1, 2)
    Supervisor(plan, on_event=_tell, table=_table).run()

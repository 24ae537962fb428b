"""The table of what `mdtasks up` runs beside the servers: each a plain command that works by hand too.

By hand, in the folder where the stack runs (or with MDTASKS_HOME set)::

    celery -A mdtasks worker -Q T0.live,T0 -n t0@%h
    celery -A mdtasks beat
    mdtasks intake
    celery -A mdtasks flower
    uvicorn mdtasks.web.app:app
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from mdtasks.domain.jobs import Tier
from mdtasks.settings import Settings
from mdtasks.stack.spawn import Command

#: Signals with the seconds that each is given, gentlest first. All of a stack together: less than 15 s.
StopRule = tuple[tuple[signal.Signals, float], ...]

#: A worker finishes what it holds (warm), then lets go of it (cold: it is redelivered), then ends.
STOP_WORKER: Final[StopRule] = ((signal.SIGTERM, 10.0), (signal.SIGQUIT, 0.7), (signal.SIGKILL, 0.1))
#: It finishes the batch in hand; cut off it would leave that to the next one.
STOP_INTAKE: Final[StopRule] = ((signal.SIGTERM, 10.0), (signal.SIGKILL, 0.1))
STOP_PROCESS: Final[StopRule] = ((signal.SIGTERM, 1.3), (signal.SIGKILL, 0.1))
#: Clients of the live stream have little to say.
_SOCKETS: Final = ("--ws-max-size", "1000000")
_SERVER_PATIENCES_S: Final = (1.4, 0.5)


def stop_server(signals: Sequence[signal.Signals]) -> StopRule:
    """The rule of a server that is stopped with these signals, the last of which ends it at once."""
    return (*zip(signals[:-1], _SERVER_PATIENCES_S, strict=False), (signals[-1], 0.1))


@dataclass(frozen=True)
class Spec:
    """One process: how it is started, when it counts as ready, how it is stopped.

    ``ready_url``: ready when this answers 200. ``notifies``: ready when it says so (``observe.ready``). With both, when
    both; with neither, when started. Phase 0 is stopped first, then 1, ...
    """

    name: str
    command: Command
    stop: StopRule = STOP_PROCESS
    phase: int = 0
    ready_url: str = ""
    notifies: bool = False
    #: Whether the stack is ready only when this is: nothing leans on what is not needed.
    needed: bool = True


@dataclass(frozen=True)
class Plan:
    """What the table depends on."""

    settings: Settings
    web_port: int
    flower_port: int
    #: Variables for the processes beside those of the caller.
    environ: Mapping[str, str] = field(default_factory=dict)
    #: The default port, where another program has it and the web app had to move.
    taken_port: int | None = None
    #: Prometheus' program and port, where the stack is to run one.
    prometheus: tuple[Path, int] | None = None

    @property
    def home(self) -> Path:
        return self.settings.home

    @property
    def web_url(self) -> str:
        return f"http://127.0.0.1:{self.web_port}"

    @property
    def flower_url(self) -> str:
        return f"http://127.0.0.1:{self.flower_port}"

    @property
    def prometheus_url(self) -> str:
        """Where Prometheus is; empty when the stack runs none."""
        return f"http://127.0.0.1:{self.prometheus[1]}" if self.prometheus is not None else ""


def process_table(plan: Plan) -> tuple[Spec, ...]:
    """Every process of the stack, servers aside, in the order in which they are started."""
    concurrency = str(plan.settings.concurrency)
    tiers = (_worker(plan, tier.lower(), f"{tier}.live,{tier}", concurrency) for tier in map(str, Tier))
    web = ("uvicorn", "mdtasks.web.app:app", "--host", "127.0.0.1", "--port", str(plan.web_port))
    argv = ("celery", "-A", "mdtasks", "flower", "--address=127.0.0.1", f"--port={plan.flower_port}")
    flower = _python(plan, *argv, "--loglevel=WARNING")
    # What Flower counts is its own: the caller's folder of counts is none of its business.
    alone = {name: value for name, value in (flower.environ or {}).items() if name != "PROMETHEUS_MULTIPROC_DIR"}
    return (
        *tiers,
        _worker(plan, "control", "control,dlq", "1"),
        Spec("beat", _python(plan, "celery", "-A", "mdtasks", "beat", "--loglevel", "WARNING")),
        *_intake(plan),
        Spec(
            "web",
            _python(plan, *web, "--no-access-log", "--timeout-graceful-shutdown", "1", *_SOCKETS),
            phase=1,  # answers /metrics until the workers are done
            ready_url=f"{plan.web_url}/ready",
            notifies=True,
        ),
        Spec("flower", replace(flower, environ=alone), ready_url=f"{plan.flower_url}/healthcheck"),
        *_prometheus(plan),
    )


def _intake(plan: Plan) -> Iterator[Spec]:
    if plan.settings.use_rlc:
        # The coordinator's Redis may be away when the stack starts: nothing else waits for it.
        yield Spec("intake", _python(plan, "mdtasks", "intake"), stop=STOP_INTAKE, notifies=True, needed=False)


def _prometheus(plan: Plan) -> Iterator[Spec]:
    if plan.prometheus is not None:
        program, port = plan.prometheus
        command = _python(plan, "mdtasks.stack.prometheus", str(program), str(port), plan.web_url)
        yield Spec("prometheus", command, phase=1, ready_url=f"{plan.prometheus_url}/-/ready", needed=False)


def _worker(plan: Plan, name: str, queues: str, concurrency: str) -> Spec:
    # Gossip and mingle are talk between workers that only delays the start: nothing here leans on them.
    argv = ("celery", "-A", "mdtasks", "worker", "-Q", queues, "-n", f"{name}@%h", "--concurrency", concurrency)
    # Housekeeping runs every second: its log says only what is out of the ordinary.
    talk = ("--loglevel", "WARNING" if name == "control" else "INFO", "--without-gossip", "--without-mingle")
    return Spec(name, _python(plan, *argv, *talk), stop=STOP_WORKER, notifies=True)


def _python(plan: Plan, *argv: str) -> Command:
    # -P: a file in the user's folder that bears a library's name is not imported in its place.
    environ = {**os.environ, **plan.environ, "MDTASKS_HOME": str(plan.home)}
    return Command((sys.executable, "-P", "-m", *argv), environ=environ)

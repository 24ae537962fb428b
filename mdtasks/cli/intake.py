"""``mdtasks intake``: the process that takes an outside coordinator's jobs, which `up` runs where USE_RLC is on."""

from __future__ import annotations

import argparse
import logging
import signal
import time

from mdtasks.cli.frame import Commands, settings_of
from mdtasks.cli.inputs import explain
from mdtasks.domain.errors import ConfigurationError

_EXAMPLES = """
example:
  USE_RLC=true RLC_REDIS_URL=redis://coordinator:6379/0 mdtasks intake

Any number of them may run, on any machines; one that is killed loses nothing and doubles nothing.
"""


def add_parser(commands: Commands) -> None:
    """Add ``intake``."""
    take = commands.add("intake", intake, "Take jobs from an outside coordinator's Redis lists, until stopped")
    explain(take, _EXAMPLES)


def intake(args: argparse.Namespace) -> int:
    """Take jobs until SIGTERM or Ctrl-C, after which the batch in hand is finished. Raises ConfigurationError."""
    from mdtasks.cli.opened import opened_deps
    from mdtasks.flows.intake import run
    from mdtasks.observe.metrics import use_multiprocess_dir
    from mdtasks.observe.ready import tell_ready

    settings = settings_of(args)
    if not settings.use_rlc:
        raise ConfigurationError("USE_RLC is off: there is no coordinator to take jobs from", name="USE_RLC")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    use_multiprocess_dir(settings.metrics_dir)  # it may be the first of the stack's processes to count
    asked = _Asked()
    with opened_deps(args, settings) as deps:
        run(deps, asked.within, tell_ready)
    return 0


class _Asked:
    """Whether a signal asked this process to stop. A flag, and short naps: what a handler may do is little."""

    def __init__(self) -> None:
        self._stop = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    def _on_signal(self, _number: int, _frame: object) -> None:
        self._stop = True

    def within(self, seconds: float) -> bool:
        """Wait for so long at most, and say whether to stop."""
        until = time.monotonic() + seconds
        while not self._stop and (left_s := until - time.monotonic()) > 0:
            time.sleep(min(left_s, 0.1))
        return self._stop

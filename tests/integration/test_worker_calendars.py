"""A worker's tasks: each begins with the calendars of that moment and keeps them to its end."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from mdtasks.flows.deps import Deps
from mdtasks.flows.overrides import OverrideRequest, tell, undo
from mdtasks.worker import process
from tests.integration.cli_calls import Cli

NOON = datetime(2021, 3, 12, 17, tzinfo=UTC)


@pytest.fixture
def worker(cli: Cli) -> Iterator[None]:
    """This process as a worker's child on the test's own servers."""
    process.close_deps()
    yield
    process.close_deps()


def test_a_task_sees_what_was_told_before_it_began_and_not_what_is_told_meanwhile(worker: None, cli_deps: Deps) -> None:
    def next_task() -> Deps:
        found = process.deps()
        found.watch._next_s = 0.0  # the task after this one comes a second later
        return found

    asked = OverrideRequest.parse({"kind": "closed", "mic": "XNYS", "day": "2021-03-12", "reason": "storm"})
    running = next_task().calendars.get("XNYS")
    assert running.is_open(NOON)
    made = tell(asked, "me", cli_deps.database, cli_deps.calendars)
    assert not cli_deps.calendars.get("XNYS").is_open(NOON)
    assert running.is_open(NOON)
    assert not next_task().calendars.get("XNYS").is_open(NOON)
    undo(made.id, "it traded", "me", cli_deps.database, cli_deps.calendars)
    assert next_task().calendars.get("XNYS").is_open(NOON)
    assert process.deps() is process.deps()

"""Who is missed: a worker that is killed, and not one that is stopped; and what a task of beat leaves behind."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from mdtasks.domain.jobs import Interval, Tier
from mdtasks.flows import presence
from mdtasks.flows.deps import open_deps
from mdtasks.flows.monitor import last_run
from mdtasks.queue.app import make_app
from mdtasks.store import snapshots
from mdtasks.store.snapshots import Series
from tests.acceptance.harness import add_symbols, crew, own_servers, until


def test_the_monitor_runs_on_a_worker_and_a_killed_worker_is_remembered_while_a_stopped_one_is_not(
    tmp_path: Path,
) -> None:
    with own_servers(tmp_path) as servers, crew(servers, tmp_path / "crew") as workers:
        deps = open_deps(servers.settings(), application="tests")
        add_symbols(deps.database, ["A", "B"])
        control = workers.start("control", "control,dlq")
        other = workers.start("t0", "T0.live,T0")
        workers.ready(control, other)

        def seen() -> set[str]:
            return {node.partition("@")[0] for node in presence.workers_seen(deps.state, datetime.now(UTC))}

        until(lambda: seen() == {"control", "t0"}, "both workers left word")
        assert presence.last_tick(deps.state) is None
        make_app(servers.settings()).send_task("mdtasks.monitor", queue="control", expires=60)
        until(lambda: last_run(deps), "the monitor ran", told=control.said)
        assert presence.last_tick(deps.state) is not None
        with deps.database.transaction() as connection:
            asked = [Series("gap", Tier.T0, Interval.M1)]
            (found,) = snapshots.newest(connection, asked, since=datetime(2000, 1, 1, tzinfo=UTC))
        assert (found.expected, found.violations) == (2, 0)  # added a moment ago, they are not late yet
        other.kill()
        assert control.stop() == 0
        assert seen() == {"t0"}
        deps.close()

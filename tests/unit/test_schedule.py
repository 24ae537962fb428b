"""Beat's table: made from the settings, and of tasks that there are."""

from __future__ import annotations

from pathlib import Path

from mdtasks.queue.app import make_app
from mdtasks.settings import Settings
from mdtasks.worker.schedule import schedule


def settings(**changes: object) -> Settings:
    return Settings.model_validate({"home": Path("nowhere"), "redis_url": "redis://127.0.0.1:1/0", **changes})


def test_every_entry_names_a_task_that_is_registered_and_expires_with_its_tick() -> None:
    app = make_app(settings())
    app.loader.import_default_modules()
    for name, entry in schedule(settings()).items():
        assert entry["task"] in app.tasks, name
        assert entry["options"]["queue"] == "control"
        assert entry["options"]["expires"] >= entry["schedule"] > 0


def test_the_monitor_runs_as_often_as_the_settings_say_or_never() -> None:
    assert schedule(settings())["monitor"]["schedule"] == 30
    assert schedule(settings(slo_every_s=5))["monitor"]["schedule"] == 5
    assert "monitor" not in schedule(settings(slo_every_s=0))


def test_each_cadence_has_its_entry_and_one_of_zero_has_none() -> None:
    table = schedule(settings(quotes_cadence_t1=0))
    live = {name: entry["schedule"] for name, entry in table.items() if name.startswith("live_")}
    assert live == {"live_T0_bars_1m": 60, "live_T0_quotes_l1": 5, "live_T1_bars_1m": 300}
    assert table["live_T0_quotes_l1"]["args"] == ("T0", 5, "quotes_l1")


def test_with_an_outside_coordinator_nothing_live_is_asked_for_and_gaps_are_looked_for_still() -> None:
    table = schedule(settings(use_rlc=True))
    assert not [name for name in table if name.startswith("live_")]
    assert {"gaps_T0", "gaps_T1", "gaps_T2", "dispatch", "reconcile"} <= set(table)

"""Metrics: what processes count meets in one exposition, also when they are gone; gauges are what the reader says."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from mdtasks.observe import catalogue, metrics
from mdtasks.observe.metrics import Counter, Gauge, Histogram, Reading
from mdtasks.observe.scrape import exposition, fold_dead

COUNT_AND_END = """
import sys
from pathlib import Path
from mdtasks.observe import metrics
metrics.use_multiprocess_dir(Path(sys.argv[1]))
metrics.BARS_WRITTEN.labels(interval="1m", kind="inserted").inc(390)
metrics.WRITE_BATCH.observe(0.2)
"""


@pytest.fixture(autouse=True)
def _own_counts() -> Iterator[None]:
    """Each test starts with this process counting for itself; what was chosen before is chosen again."""
    before = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    metrics.use_multiprocess_dir(None)
    yield
    metrics.use_multiprocess_dir(Path(before) if before else None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A multiprocess dir."""
    return tmp_path / "metrics"


def samples(text: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


INSERTED = ("bars_written_total", (("interval", "1m"), ("kind", "inserted")))


def count_in_a_process_that_ends(folder: Path) -> None:
    subprocess.run([sys.executable, "-c", COUNT_AND_END, str(folder)], check=True)


def test_every_metric_is_declared_once_with_help() -> None:
    names = [declared.name for declared in metrics.DECLARED]
    assert len(names) == len(set(names))
    assert all(declared.help for declared in metrics.DECLARED)
    assert all(declared.name.endswith("_total") == isinstance(declared, Counter) for declared in metrics.DECLARED)


def test_the_page_of_metrics_is_what_the_declarations_say() -> None:
    """Write it again with `make docs`."""
    assert (Path(__file__).parents[2] / "docs" / "metrics.md").read_text() == catalogue.page()


def test_the_page_names_every_metric_and_explains_every_label() -> None:
    for declared in metrics.DECLARED:
        assert f"| `{declared.name}` |" in catalogue.page()
        assert set(declared.label_names) <= set(metrics.LABELS), declared.name


def test_names_and_labels_that_users_know_are_scraped_as_they_were() -> None:
    for declared in metrics.DECLARED:
        labels = dict.fromkeys(declared.label_names, "x")
        if isinstance(declared, Counter):
            (declared.labels(**labels) if labels else declared).inc()
        elif isinstance(declared, Histogram):
            (declared.labels(**labels) if labels else declared).observe(0.1)
    readings = [Reading(g, 1, dict.fromkeys(g.label_names, "x")) for g in metrics.DECLARED if isinstance(g, Gauge)]
    found = samples(exposition(lambda: readings))
    for declared in metrics.DECLARED:
        name = declared.name + ("_count" if isinstance(declared, Histogram) else "")
        assert (name, tuple(sorted(dict.fromkeys(declared.label_names, "x").items()))) in found


def test_counts_of_processes_that_ended_are_summed_and_their_files_folded_into_one(folder: Path) -> None:
    for _ in range(3):
        count_in_a_process_that_ends(folder)
    assert len(list(folder.glob("*.db"))) == 6
    for _ in range(2):  # a second scrape says the same
        found = samples(exposition(list, folder))
        assert found[INSERTED] == 1170
        assert found["write_batch_seconds_count", ()] == 3
        assert found["write_batch_seconds_bucket", (("le", "0.1"),)] == 0
        assert found["write_batch_seconds_bucket", (("le", "+Inf"),)] == 3
    assert {file.name for file in folder.glob("*.db")} == {"counter_dead.db", "histogram_dead.db"}


# Celery forks too, also beside threads, of which Python 3.12 warns.
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_counts_of_this_process_and_its_forks_meet_even_if_prometheus_was_imported_before(folder: Path) -> None:
    metrics.use_multiprocess_dir(folder)
    metrics.BARS_WRITTEN.labels(interval="1m", kind="inserted").inc()
    child = multiprocessing.get_context("fork").Process(
        target=lambda: metrics.BARS_WRITTEN.labels(interval="1m", kind="inserted").inc(10)
    )
    child.start()
    child.join()
    assert child.exitcode == 0
    assert samples(exposition(list, folder))[INSERTED] == 11
    assert {file.name for file in folder.glob("*.db")} == {"counter_dead.db", f"counter_{os.getpid()}.db"}
    metrics.BARS_WRITTEN.labels(interval="1m", kind="inserted").inc(100)
    assert samples(exposition(list, folder))[INSERTED] == 111


def test_counts_of_a_dead_process_are_kept_and_folding_again_adds_nothing(folder: Path) -> None:
    count_in_a_process_that_ends(folder)
    pid = int(next(folder.glob("counter_*.db")).stem.removeprefix("counter_"))
    for _ in range(2):
        fold_dead(folder, alive=lambda other: other != pid)
        assert samples(exposition(list, folder))[INSERTED] == 390


def test_a_file_that_a_killed_process_left_empty_does_not_break_the_scrape(folder: Path) -> None:
    count_in_a_process_that_ends(folder)
    (folder / "counter_999999999.db").touch()
    assert samples(exposition(list, folder))[INSERTED] == 390


def test_a_gauge_without_a_reading_is_absent_and_not_zero() -> None:
    text = exposition(lambda: [Reading(metrics.BACKFILL_QUEUE_DEPTH, 7, {"tier": "T1"})])
    assert samples(text)["backfill_queue_depth", (("tier", "T1"),)] == 7
    assert b"dlq_depth" not in text


def test_a_wrong_label_is_refused() -> None:
    with pytest.raises(ValueError, match="label"):
        metrics.BARS_WRITTEN.labels(tier="T0")

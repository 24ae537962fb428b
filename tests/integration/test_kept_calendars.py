"""Calendars kept on disk: the same answers without the library, and nothing believed that is broken or outdated."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from mdtasks.domain import library
from mdtasks.domain.bars import to_us
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.domain.library import Library
from mdtasks.domain.sessions import Calendar
from mdtasks.store.calendars import KeptCalendars, verified_calendars

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
WEEK = TimeWindow(start=datetime(2026, 11, 9, tzinfo=UTC), end=datetime(2026, 11, 16, tzinfo=UTC))
LONG_AGO = TimeWindow(start=datetime(2001, 9, 10, tzinfo=UTC), end=datetime(2001, 9, 18, tzinfo=UTC))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, in a process that has read no calendar yet."""
    monkeypatch.setattr(library, "_libraries", {})
    return tmp_path / "calendars"


def _calendar(mic: str, folder: Path) -> Calendar:
    return Calendar(mic, Library(mic, keeper=KeptCalendars(folder)))


def test_another_process_answers_from_kept_years_without_the_library(folder: Path) -> None:
    verified_calendars(folder, NOW)
    code = (
        "import sys; from pathlib import Path; from datetime import *; from mdtasks.store.calendars import *;"
        "now = datetime.fromisoformat(sys.argv[2]); calendars = verified_calendars(Path(sys.argv[1]), now);"
        "print(len(calendars.get('XNYS').sessions(TimeWindow(start=now - timedelta(days=7), end=now))),"
        " 'pandas' in sys.modules)"
    )
    command = [sys.executable, "-W", "error", "-c", code, str(folder), NOW.isoformat()]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["5", "False"]


def test_years_that_were_asked_for_later_are_kept_beside_the_first(folder: Path) -> None:
    for mic in ("XNYS", "XHKG"):
        first = _calendar(mic, folder)
        asked = [first.expected(window, Interval.M1) for window in (WEEK, LONG_AGO)]
        again = _calendar(mic, folder)
        for window, expected in zip((WEEK, LONG_AGO), asked, strict=True):
            np.testing.assert_array_equal(again.expected(window, Interval.M1), expected)
        kept = KeptCalendars(folder).load(mic)
        assert kept is not None
        assert kept.schedule.since_us <= to_us(LONG_AGO.start)


def test_a_process_takes_over_what_another_has_kept_meanwhile(folder: Path) -> None:
    early = _calendar("XNYS", folder)
    assert len(early.sessions(WEEK)) == 5
    _calendar("XNYS", folder).sessions(LONG_AGO)
    library = Library("XNYS", keeper=KeptCalendars(folder))
    assert len(Calendar("XNYS", library).sessions(LONG_AGO)) == 2
    assert library._factory is None
    assert len(early.sessions(LONG_AGO)) == 2


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 half an archive"])
def test_a_broken_file_is_made_again(folder: Path, content: bytes) -> None:
    folder.mkdir()
    (folder / "XNYS.npz").write_bytes(content)
    assert len(_calendar("XNYS", folder).sessions(WEEK)) == 5
    assert KeptCalendars(folder).load("XNYS") is not None


def test_years_of_another_version_are_not_believed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mdtasks.store.calendars._installed", lambda: "a library of another day")
    verified_calendars(folder, NOW)
    monkeypatch.undo()
    kept = KeptCalendars(folder)
    assert kept.load("XNYS") is None
    assert not kept.verified


def test_a_folder_that_cannot_be_written_to_is_no_error(folder: Path) -> None:
    folder.write_text("a file stands where the folder should be")
    assert len(_calendar("XNYS", folder).sessions(WEEK)) == 5
    kept = KeptCalendars(folder)
    kept.mark_verified()
    assert not kept.verified

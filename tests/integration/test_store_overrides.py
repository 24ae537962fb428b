"""Overrides at rest, and how processes come to know of them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

import pytest
from sqlalchemy import text

from mdtasks.connections import Database
from mdtasks.domain.bars import to_us
from mdtasks.domain.errors import ConflictError, NotFoundError
from mdtasks.domain.jobs import TimeWindow
from mdtasks.domain.overrides import Kind
from mdtasks.domain.sessions import Calendars
from mdtasks.flows.calendars import AWAY_S, EVERY_S, CalendarWatch, apply_overrides
from mdtasks.settings import Settings
from mdtasks.store import overrides, reference
from mdtasks.store.overrides import NewOverride
from mdtasks.store.reference import Instrument

OPEN, CLOSE = datetime(2021, 3, 12, 14, 30, tzinfo=UTC), datetime(2021, 3, 12, 21, tzinfo=UTC)
NOON = datetime(2021, 3, 12, 17, tzinfo=UTC)
DAY = NewOverride(Kind.CLOSED, TimeWindow(start=OPEN, end=CLOSE), "storm", mic="XNYS", session=date(2021, 3, 12))


def told(database: Database, new: NewOverride = DAY) -> int:
    with database.transaction() as connection:
        overrides.lock(connection)
        return overrides.add(connection, new, "me@here").id


def test_what_is_told_has_a_version_a_reason_and_an_audit_row(database: Database) -> None:
    override_id = told(database)
    with database.transaction() as connection:
        (held,) = overrides.matching(connection)
        standing = overrides.standing(connection)
        audit = connection.execute(text("SELECT actor, action, details FROM audit_log")).one()
        assert overrides.version(connection) == standing.version == held.version
    assert (held.id, held.kind, held.mic, held.session) == (override_id, "closed", "XNYS", date(2021, 3, 12))
    assert (held.start, held.end, held.reason, held.actor, held.undone_at) == (OPEN, CLOSE, "storm", "me@here", None)
    assert standing.shut["XNYS"].tolist() == [[to_us(OPEN), to_us(CLOSE)]]
    assert (audit.actor, audit.action) == ("me@here", "calendar.closed")
    assert (audit.details["override"], audit.details["reason"]) == (override_id, "storm")


def test_undone_it_stays_on_record_and_holds_no_longer(database: Database) -> None:
    override_id = told(database)
    with database.transaction() as connection:
        undone = overrides.undo(connection, override_id, "it traded", "you@there")
    assert (undone.undone_by, undone.undone_reason) == ("you@there", "it traded")
    assert undone.undone_version == undone.version + 1
    with database.transaction() as connection:
        standing = overrides.standing(connection)
        assert (standing.version, dict(standing.shut)) == (undone.undone_version, {})
        assert overrides.matching(connection) == []
        assert overrides.matching(connection, undone=True) == [undone]
        actions = connection.execute(text("SELECT action FROM audit_log ORDER BY id")).scalars().all()
    assert actions == ["calendar.closed", "calendar.undo"]
    with database.transaction() as connection, pytest.raises(ConflictError, match=r"was undone on .* by you@there"):
        overrides.undo(connection, override_id, "again", "you@there")
    for unknown in (override_id + 1, 0, 2**70):
        with database.transaction() as connection, pytest.raises(NotFoundError, match=f"no override {unknown}"):
            overrides.undo(connection, unknown, "again", "you@there")


def test_whoever_reads_a_version_has_all_before_it(database: Database) -> None:
    """Many tell at once while one reads: the versions that were seen must have come in order and none too late."""
    seen: list[tuple[int, int]] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            with database.transaction() as connection:
                standing = overrides.standing(connection)
            with database.transaction() as connection:
                rows = overrides.matching(connection)
            seen.append((standing.version, sum(row.version <= standing.version for row in rows)))

    reader = threading.Thread(target=read)
    writers = [threading.Thread(target=lambda: [told(database) for _ in range(8)]) for _ in range(4)]
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    reader.join()
    # Each version is one override here: a reader of version n finds n of them.
    assert len(seen) > 3
    assert all(version == known for version, known in seen)


# -- how a process keeps up ------------------------------------------------------------------------


class Clock:
    """Seconds that pass when the test says so."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def calendars() -> Calendars:
    return Calendars()


@pytest.fixture
def away(database_url: str) -> Iterator[Database]:
    """A store that does not answer."""
    opened = Database("postgresql://nobody@127.0.0.1:1/nothing", application="tests")
    yield opened
    opened.close()


def test_a_process_takes_over_a_new_version_once_a_second_at_most(
    database: Database, calendars: Calendars, settings: Settings
) -> None:
    clock = Clock()
    watch = CalendarWatch(database, calendars, settings, clock)
    assert watch.is_due()
    watch.refresh(NOON)
    override_id = told(database)
    assert not watch.is_due()
    watch.refresh(NOON)
    assert calendars.get("XNYS").is_open(NOON)
    clock.now_s += EVERY_S
    watch.refresh(NOON)
    assert not calendars.get("XNYS").is_open(NOON)
    with database.transaction() as connection:
        overrides.undo(connection, override_id, "it traded", "me")
    clock.now_s += EVERY_S
    watch.refresh(NOON)
    assert calendars.get("XNYS").is_open(NOON)


def test_a_store_that_is_away_changes_nothing_and_is_not_asked_at_once_again(
    database: Database, away: Database, calendars: Calendars, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    told(database)
    apply_overrides(database, calendars)
    clock = Clock()
    watch = CalendarWatch(away, calendars, settings, clock)
    for _ in range(3):
        watch.refresh(NOON)
        assert not watch.is_due()
        clock.now_s += AWAY_S
    assert not calendars.get("XNYS").is_open(NOON)
    assert caplog.text.count("calendars stay at version") == 1


def test_the_days_around_now_are_loaded_and_again_on_the_next_day(
    database: Database, calendars: Calendars, settings: Settings
) -> None:
    with database.transaction() as connection:
        members = [
            Instrument("A", "XNYS"),
            Instrument("B", "24/7"),
            Instrument("C", "XLON", delisted_on=date(2000, 1, 1)),
        ]
        reference.add_instruments(connection, members)
        assert reference.exchanges(connection, day=NOON.date()) == ["24/7", "XNYS"]
    clock = Clock()
    watch = CalendarWatch(database, calendars, settings, clock)

    def loaded(mic: str) -> set[int]:
        return set(calendars.get(mic)._blocks)

    watch.refresh(NOON)
    assert loaded("XNYS") == loaded("24/7") == {number for number in loaded("24/7") if number}
    assert not loaded("XLON")
    before = loaded("XNYS")
    clock.now_s += EVERY_S
    watch.refresh(NOON + timedelta(days=40))
    assert loaded("XNYS") > before


def test_an_exchange_whose_calendar_cannot_be_had_stops_no_other(
    database: Database, calendars: Calendars, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    with database.transaction() as connection:
        reference.add_instruments(connection, [Instrument("A", "NOWHERE"), Instrument("B", "XNYS")])
    CalendarWatch(database, calendars, settings, Clock()).refresh(NOON)
    assert calendars.get("XNYS")._blocks
    assert "the calendar of NOWHERE cannot be loaded" in caplog.text

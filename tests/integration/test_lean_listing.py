"""LEAN's coarse files as a listing: a folder made here, and real files where MDTASKS_TEST_LEAN_DIR names some."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from mdtasks.domain.errors import NoDataError
from mdtasks.domain.sessions import Calendars
from mdtasks.flows.deps import Deps, open_deps
from mdtasks.flows.universe import Asked, refresh
from mdtasks.flows.universe_listings import listing_of
from mdtasks.providers.lean import LeanProvider
from mdtasks.providers.listings import read
from mdtasks.settings import Settings
from mdtasks.store import reference
from mdtasks.store import universe as store
from tests.integration.universe_calls import activated, again, borne, tiers

#: A LEAN data folder with its coarse files, for the last test. (`conftest` takes MDTASKS_LEAN_DIR from every test.)
_GIVEN = os.environ.get("MDTASKS_TEST_LEAN_DIR", "")
NOW = datetime(2014, 4, 4, 12, tzinfo=UTC)

#: Three days around the split of Google's shares into classes: both lines are GOOG on the second of them.
DAYS = {
    "20140401": ["GOOCV G1,GOOG,567.16,1000,567160,True,1,0.5", "AAPL R7,AAPL,541.65,9000,4874850,True,0.9,0.0357143"],
    "20140402": [
        "GOOCV G1,GOOG,567,1000,567000,True,1,0.5",
        "GOOG T1,GOOG,567,2000,1134000,True,1,1",
        "AAPL R7,AAPL,542.55,9000,4882950,True,0.9,0.0357143",
        "THIN X1,THIN,1,1,1,False,1,1",
    ],
    "20140403": [
        "GOOCV G1,GOOGL,571.5,1000,571500,True,1,0.5",
        "GOOG T1,GOOG,569.74,3000,1709220,True,1,1",
        "AAPL R7,AAPL,538.79,9000,4849110,True,0.9,0.0357143",
    ],
}


def made(root: Path, days: dict[str, list[str]]) -> Path:
    place = root / "equity" / "usa" / "fundamental" / "coarse"
    place.mkdir(parents=True)
    for day, lines in days.items():
        (place / f"{day}.csv").write_text("\n".join(lines) + "\n")
    (place / "readme.csv").write_text("not a day")
    (place / "2014ab01.csv").write_text("not a day either")
    return root


@pytest.fixture
def deps(settings: Settings, tmp_path: Path) -> Iterator[Deps]:
    folder = made(tmp_path, DAYS)
    opened = open_deps(settings.model_copy(update={"lean_dir": folder}), application="tests")
    yield opened
    opened.close()


def test_the_last_days_before_today_are_listed_the_oldest_first(tmp_path: Path) -> None:
    provider = LeanProvider(made(tmp_path, DAYS), Calendars())
    assert [kept.as_of.day for kept in provider.listing(NOW, 2)] == [2, 3]
    assert [kept.as_of.day for kept in provider.listing(NOW.replace(day=3), 9)] == [1, 2]  # a day's file comes after it
    with pytest.raises(NoDataError, match="no coarse file of a day before 2014-04-01"):
        provider.listing(NOW.replace(day=1), 9)


def test_coarse_files_give_tiers_and_names(deps: Deps) -> None:
    version = refresh("lean", listing_of("lean", deps, NOW), Asked("me"), deps)
    assert (version.births, version.renames) == (4, 1)
    with deps.database.transaction() as connection:
        members = store.members(connection, version.version.version)
    # By sid, whatever the line was called that day; of what traded on one of the days only, that day.
    assert [(each.symbol, each.score) for each in members] == [
        ("AAPL", 4868970), ("GOOG", 1709220), ("GOOGL", 568553), ("THIN", 1),
    ]  # fmt: skip
    activated(deps, version)
    assert tiers(deps) == dict.fromkeys(("AAPL", "GOOG", "GOOGL", "THIN"), "T0")
    assert [row[1:] for row in borne(deps, "GOOGL")] == [("GOOG", "", "2014-04-03"), ("GOOGL", "2014-04-03", "")]
    assert again(deps, version.version.version_tag).same


@pytest.mark.full_size_only
@pytest.mark.skipif(not _GIVEN, reason="MDTASKS_TEST_LEAN_DIR names no LEAN data folder")
def test_real_coarse_files_give_full_tiers(settings: Settings) -> None:
    """The folder is read in place: its data may not be passed on."""
    opened = open_deps(settings.model_copy(update={"lean_dir": Path(_GIVEN)}), application="tests")
    try:
        kept = listing_of("lean", opened, datetime(2014, 4, 8, tzinfo=UTC))
        assert (kept[-1].as_of, len(kept)) == (date(2014, 4, 7), 11)
        rows = read("lean", kept[-1].body)
        # What it says itself of dollars is what we reckon: prices and volumes are read right.
        told = {line.split(",")[0]: int(line.split(",")[4]) for line in kept[-1].body.decode().splitlines()}
        assert all(told[str(row.own_id)] == row.dollars for row in rows)
        version = refresh("lean", kept, Asked("me"), opened)
        assert dict(version.tiers) == {"T0": 1200, "T1": 3000, "T2": version.version.members - 4200}
        activated(opened, version)
        with opened.database.transaction() as connection:
            members = store.members(connection, version.version.version, limit=3)
            google = reference.current(connection, ["GOOG", "GOOGL"])
        print(f"\n{version.version.members} members, {dict(version.tiers)}, {version.renames} renamed, {members}")
        assert members[0].symbol == "SPY"
        assert len({each.id for each in google.values()}) == 2
        assert again(opened, version.version.version_tag).same
    finally:
        opened.close()

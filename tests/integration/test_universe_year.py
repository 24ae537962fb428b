"""A year of listings gives the same versions on two machines, and each of them is made again from its bytes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from mdtasks.flows.deps import Deps, open_deps
from mdtasks.settings import Settings
from tests.integration.cli_calls import environment_of
from tests.integration.universe_calls import counted, tiers
from tests.integration.universe_year import replay

#: Of the other machine.
_PYTHON = os.environ.pop("MDTASKS_TEST_OTHER_PYTHON", sys.executable)
_TABLES = (
    "universe_activations, universe_members, universe_versions, listing_keys, listing_snapshots, symbols, instruments,"
    " audit_log"
)


@pytest.fixture
def deps(settings: Settings) -> Iterator[Deps]:
    opened = open_deps(settings, application="tests")
    yield opened
    opened.close()


def elsewhere(settings: Settings, what: str, size: tuple[int, int, int], seed: str) -> list[str]:
    """What another process says: other hashes, another locale, another time zone; another Python, where
    ``MDTASKS_TEST_OTHER_PYTHON`` names one that mdtasks is installed for.
    """
    environ = {
        **os.environ,
        **environment_of(settings),
        "PYTHONHASHSEED": seed,
        "LC_ALL": "POSIX",
        "TZ": "Asia/Kolkata",
    }
    words = [_PYTHON, "-m", "tests.integration.universe_year", *map(str, size), what]
    root = str(Path(__file__).parents[2])
    done = subprocess.run(words, env=environ, cwd=root, capture_output=True, text=True, check=False, timeout=1700)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()


@pytest.mark.chaos
def test_a_year_is_the_same_year_on_another_machine(deps: Deps, settings: Settings, full_size: bool) -> None:
    # Each version costs a second to make: of the year each tenth is made again, and all of them on the other machine.
    size = (10_000, 252, 10) if full_size else (400, 25, 1)
    began = time.monotonic()
    here = list(replay(deps, *size[:2]))
    replayed_s = time.monotonic() - began
    assert len(set(here)) == size[1]
    # Births, deaths and renamings leave one bearer a symbol, and everybody's history without holes or overlaps.
    overlaps = (
        "select count(*) from symbols a join symbols b on a.symbol = b.symbol and a.instrument_id < b.instrument_id"
        " where a.valid_from < b.valid_to and b.valid_from < a.valid_to"
    )
    assert counted(deps, overlaps) == 0
    assert counted(deps, "select count(*) from symbols where valid_from >= valid_to") == 0
    assert counted(deps, "select count(*) from audit_log where action = 'universe.rename'") > size[1]
    assert len(tiers(deps)) == size[0]
    kept = counted(deps, "select sum(length(body)) from listing_snapshots") / 1e6
    began = time.monotonic()
    assert elsewhere(settings, "recompute", size, "17") == here[:: size[2]]
    print(
        f"\n{size[1]} days of {size[0]} symbols: replayed in {replayed_s:.0f} s, made again in"
        f" {time.monotonic() - began:.0f} s, {kept:.0f} MB of listings kept"
    )
    with deps.database.transaction() as connection:
        connection.execute(text(f"truncate {_TABLES} restart identity cascade"))
    assert elsewhere(settings, "replay", size, "4711") == here

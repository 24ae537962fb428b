"""What beat does before the open: due once a session, made good after a failure, never a cut-off listing unasked."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mdtasks.domain.errors import NoDataError, TooManyLeaveError, UnknownProviderError, UnsupportedError
from mdtasks.domain.policy import Policy
from mdtasks.domain.sessions import Calendars
from mdtasks.flows import policies
from mdtasks.flows.deps import Deps, open_deps
from mdtasks.flows.following import Follower
from mdtasks.flows.policy_facts import desk_of
from mdtasks.flows.universe import activate
from mdtasks.flows.universe_daily import due_since, run_once
from mdtasks.flows.universe_listings import listing_of
from mdtasks.settings import Settings
from tests.integration.policy_calls import ME
from tests.integration.universe_calls import counted, done, tiers

#: Two hours before the open of XNYS on a Monday, 14:30 UTC.
DUE = datetime(2024, 1, 8, 12, 30, tzinfo=UTC)
CALENDARS = Calendars()


def policy(**told: object) -> Policy:
    return Policy.model_validate({"universe": {"source": "lean", **told}})


@pytest.mark.parametrize(
    ("now", "since"),
    [
        (DUE - timedelta(seconds=1), None),
        (DUE, DUE),
        (DUE + timedelta(hours=1, minutes=59), DUE),
        (DUE + timedelta(hours=2), None),  # it is open: the next one is tomorrow's
        (datetime(2024, 1, 7, 12, 30, tzinfo=UTC), None),  # a Sunday
        (datetime(2024, 1, 1, 13, tzinfo=UTC), None),  # New Year's Day
    ],
)
def test_a_listing_is_due_before_an_open_only(now: datetime, since: datetime | None) -> None:
    assert due_since(policy(), CALENDARS, now) == since


def test_the_policy_says_whose_listing_of_which_exchange_how_long_before() -> None:
    assert due_since(Policy(), CALENDARS, DUE) is None
    assert due_since(policy(before_open_s=600), CALENDARS, DUE) is None
    tokyo = policy(mic="XTKS", before_open_s=3600)
    assert due_since(tokyo, CALENDARS, datetime(2024, 1, 8, 23, 15, tzinfo=UTC)) == datetime(2024, 1, 8, 23, tzinfo=UTC)


def coarse(folder: Path, day: str, *rows: str) -> None:
    place = folder / "equity" / "usa" / "fundamental" / "coarse"
    place.mkdir(parents=True, exist_ok=True)
    lines = (
        f"{symbol} X{symbol},{symbol},{close},{volume},0,False,1,1" for symbol, close, volume in map(str.split, rows)
    )
    (place / f"{day}.csv").write_text("\n".join(lines))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    coarse(tmp_path, "20240104", "A 10 5", "B 20 5", "C 1 1")
    coarse(tmp_path, "20240105", "A 10 15", "B 20 5")
    return tmp_path


@pytest.fixture
def deps(settings: Settings, folder: Path) -> Iterator[Deps]:
    opened = open_deps(settings.model_copy(update={"lean_dir": folder}), application="tests")
    with_policy = under(opened, "universe: {source: lean, most_leave: 0.5}")
    # The store's clock is the machine's: what is fetched now is fetched after any DUE of 2024.
    yield with_policy
    opened.close()


def under(deps: Deps, text: str) -> Deps:
    policies.apply(desk_of(deps), text, ME, DUE)
    follower = Follower(deps)
    deps.policy.refresh(DUE, at_once=True)
    return follower.refresh(DUE)


def test_a_round_takes_the_listing_lets_it_hold_and_the_next_has_nothing_to_do(deps: Deps) -> None:
    assert run_once(deps, DUE - timedelta(seconds=1)) == {}
    did = run_once(deps, DUE)
    assert set(did) == {"made", "activated"}
    assert tiers(deps) == {"A": "T0", "B": "T0", "C": "T0"}  # C traded on one of the last days
    assert run_once(deps, DUE) == {}
    assert counted(deps, "select count(*) from universe_versions") == 1


def fetched(deps: Deps, at: datetime) -> None:
    """As if all that was done so far had been done then."""
    done(deps, "update listing_snapshots set fetched_at = :at", at=at)
    done(deps, "update universe_versions set created_at = :at", at=at)
    done(deps, "update universe_activations set activated_at = :at", at=at)


def test_each_session_has_its_round_and_one_without_news_makes_nothing(deps: Deps, folder: Path) -> None:
    run_once(deps, DUE)
    fetched(deps, DUE)
    assert set(run_once(deps, DUE + timedelta(days=1))) == {"made"}  # the same version, which holds
    assert counted(deps, "select count(*) from universe_versions") == 1
    fetched(deps, DUE)
    coarse(folder, "20240108", "A 1 1", "D 90 90")
    assert set(run_once(deps, DUE + timedelta(days=1))) == {"made", "activated"}
    assert set(tiers(deps)) == {"A", "B", "C", "D"}


def test_a_round_that_died_before_it_let_the_version_hold_is_made_good(deps: Deps) -> None:
    under_hand = under(deps, "universe: {source: lean, activate: false}")
    assert set(run_once(under_hand, DUE)) == {"made"}
    assert tiers(deps) == {}
    assert set(run_once(under(deps, "universe: {source: lean}"), DUE)) == {"activated"}
    assert len(tiers(deps)) == 3


def test_a_version_in_which_too_many_would_leave_waits_for_a_person(deps: Deps, folder: Path) -> None:
    run_once(deps, DUE)
    fetched(deps, DUE)
    strict = under(deps, "universe: {source: lean, most_leave: 0.5, days: 1}")
    coarse(folder, "20240108", "A 1 1")
    tomorrow = DUE + timedelta(days=1)
    did = run_once(strict, tomorrow)
    assert set(did) == {"made", "waits"}
    assert run_once(strict, tomorrow) == {"waits": did["made"]}
    with pytest.raises(TooManyLeaveError, match="2 of 3 members"):  # by hand it is no other rule
        activate(did["made"], "me", "", strict)
    assert len(tiers(deps)) == 3
    activate(did["made"], "me", "they did leave", strict, force=True)
    assert set(tiers(deps)) == {"A"}


def test_a_listing_that_cannot_be_had_changes_nothing_and_is_asked_for_again(deps: Deps, folder: Path) -> None:
    place = folder / "equity" / "usa" / "fundamental" / "coarse"
    place.rename(place.with_name("away"))
    with pytest.raises(NoDataError, match="no coarse file of a day before 2024-01-08"):
        run_once(deps, DUE)
    place.with_name("away").rename(place)
    assert set(run_once(deps, DUE)) == {"made", "activated"}


def test_who_has_no_listing_is_not_asked(deps: Deps) -> None:
    with pytest.raises(UnsupportedError, match="does not list its instruments"):
        listing_of("simulator", deps, DUE)
    with pytest.raises(UnknownProviderError):
        listing_of("alpaca", deps, DUE)
    with pytest.raises(Exception, match="does not list its instruments"):
        policies.apply(desk_of(deps), "universe: {source: simulator}", ME, DUE)
    with pytest.raises(Exception, match="is pinned to a tier too"):
        policies.apply(desk_of(deps), "universe: {pins: {A: T0}, bans: [A]}", ME, DUE)

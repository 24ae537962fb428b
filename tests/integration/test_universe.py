"""Universe versions: made of kept listings, activated as one, made again byte for byte."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from mdtasks.domain.bars import Bars, to_us
from mdtasks.domain.errors import (
    ConflictError,
    Down,
    InvalidRequestError,
    NotFoundError,
    TooManyGoDownError,
    UnknownSymbolError,
)
from mdtasks.domain.identities import UNKNOWN_EXCHANGE
from mdtasks.domain.jobs import Interval, Tier
from mdtasks.domain.listings import Kept
from mdtasks.flows import policies
from mdtasks.flows import universe as flow
from mdtasks.flows import universe_symbols as names
from mdtasks.flows.deps import Deps, open_deps
from mdtasks.flows.following import Follower
from mdtasks.flows.policy_facts import desk_of
from mdtasks.flows.universe import Asked
from mdtasks.settings import Settings
from mdtasks.store import reference
from mdtasks.store import universe as store
from mdtasks.store.bars import BarBatch, write_bars
from mdtasks.store.partitions import ensure_partitions
from mdtasks.store.reference import Instrument, add_instruments
from tests.integration.policy_calls import ME, NOW
from tests.integration.universe_calls import (
    DAY,
    activated,
    again,
    borne,
    counted,
    csv_of,
    done,
    held,
    taken,
    tiers,
    with_ids,
)

NEXT = DAY + timedelta(days=1)
A, B, C = "AAPL,XNAS,190.5,1000", "MSFT,XNAS,370,2000", "IBM,XNYS,160,10"


@pytest.fixture
def deps(settings: Settings) -> Iterator[Deps]:
    opened = open_deps(settings, application="tests")
    yield opened
    opened.close()


def under(deps: Deps, policy: str) -> Deps:
    """The process under another policy."""
    policies.apply(desk_of(deps), policy, ME, NOW)
    follower = Follower(deps)
    deps.policy.refresh(NOW, at_once=True)
    return follower.refresh(NOW)


SIZES = """
universe: {{margin: 0.5, {more}}}
tiers:
  T0: {{size: 2, max_queue: 100, cadence: {{bars_1m: 60, quotes_l1: 5, eod: 1}}}}
  T1: {{size: 1, max_queue: 100, cadence: {{bars_1m: 300, quotes_l1: 15, eod: 1}}}}
  T2: {{max_queue: 100, cadence: {{eod: 1}}}}
"""


# -- taking and activating -------------------------------------------------------------------------------


def test_a_version_follows_nobody_until_it_is_activated(deps: Deps) -> None:
    made = taken(deps, csv_of(A, B, "X,ZZZZ,1,1"))
    assert (made.changed, made.births, made.tiers) == (True, 2, {"T0": 2, "T1": 0, "T2": 0})
    assert made.skipped == {"an exchange that has no calendar here": 1}
    assert tiers(deps) == {}
    assert activated(deps, made) == {"came": 2}
    assert tiers(deps) == {"AAPL": "T0", "MSFT": "T0"}
    activation, version = flow.activate(made.version.version_tag, "me", "", deps)
    assert (activation, version.active) == (None, True)


def test_sizes_pins_and_bans_are_the_policys_and_who_is_in_a_tier_stays_within_the_margin(deps: Deps) -> None:
    deps = under(deps, SIZES.format(more="pins: {IBM: T0}, bans: [GME]"))
    rows = ["A,XNYS,1,50", "B,XNYS,1,40", "C,XNYS,1,30", "IBM,XNYS,1,1", "GME,XNYS,9,9999"]
    made = taken(deps, csv_of(*rows))
    assert made.version.policy_version == 1
    activated(deps, made)
    assert tiers(deps) == {"IBM": "T0", "A": "T0", "B": "T1", "C": "T2"}
    deps = under(deps, SIZES.format(more="pins: {GME: T1}"))
    held(deps, csv_of(*rows), NEXT)
    assert tiers(deps) == {"A": "T0", "GME": "T1", "B": "T2", "C": "T2", "IBM": "T2"}  # of 2 only 1 may come up


def test_the_same_bytes_make_the_same_version_also_once_it_holds(deps: Deps) -> None:
    first = taken(deps, csv_of(A, B))
    assert not taken(deps, csv_of(A, B)).changed
    activated(deps, first)
    same = taken(deps, csv_of(A, B))
    assert (same.changed, same.version.version_tag) == (False, first.version.version_tag)
    assert counted(deps, "select count(*) from universe_versions") == 1
    assert counted(deps, "select count(*) from listing_snapshots") == 2  # and whom its rows mean


def test_a_tag_is_one_versions_alone(deps: Deps) -> None:
    taken(deps, csv_of(A), tag="first")
    with pytest.raises(ConflictError, match="another version is called first"):
        taken(deps, csv_of(A, B), tag="first")
    with pytest.raises(ConflictError, match="is there already, as first"):
        taken(deps, csv_of(A), tag="second")
    for tag in ("-x", "a b", "x" * 65):
        with pytest.raises(InvalidRequestError, match="no name of a version"):
            taken(deps, csv_of(A), tag=tag)
    assert counted(deps, "select count(*) from universe_versions") == 1
    assert counted(deps, "select count(*) from instruments") == 1  # what was refused taught nothing


def test_a_listing_that_is_empty_wrong_or_of_an_older_day_changes_nothing(deps: Deps) -> None:
    taken(deps, csv_of(A), NEXT)
    for body, day, said in ((csv_of(), NEXT, "no rows"), (b"x", NEXT, "unknown column"), (csv_of(B), DAY, "is older")):
        with pytest.raises(InvalidRequestError, match=said):
            taken(deps, body, day)
    assert counted(deps, "select count(*) from instruments") == 1
    assert counted(deps, "select count(*) from universe_versions") == 1


def test_of_a_day_that_is_told_of_twice_the_last_telling_counts(deps: Deps) -> None:
    taken(deps, csv_of(A, B))
    corrected = taken(deps, csv_of(A))
    assert corrected.version.members == 1
    back = taken(deps, csv_of(A, B))
    assert (back.changed, back.version.members) == (False, 2)


def test_who_left_is_followed_no_more_and_comes_back_as_the_same(deps: Deps) -> None:
    held(deps, csv_of(A, B))
    assert held(deps, csv_of(A), NEXT) == {"left": 1}
    assert tiers(deps) == {"AAPL": "T0"}
    with deps.database.transaction() as connection:
        gone = reference.resolve(connection, ["MSFT"])["MSFT"]
        assert (gone.followed, gone.tier) == (False, Tier.T2)  # its bars are read under its name all the same
    assert held(deps, csv_of(A, B), NEXT + timedelta(days=1)) == {"came": 1}
    with deps.database.transaction() as connection:
        assert reference.resolve(connection, ["MSFT"])["MSFT"].id == gone.id


def test_what_a_person_added_is_recognized_and_what_no_listing_has_stays(deps: Deps) -> None:
    with deps.database.transaction() as connection:
        add_instruments(connection, [Instrument("AAPL", "XNYS", tier=Tier.T2), Instrument("BTC-USD", "24/7", "crypto")])
    assert taken(deps, csv_of(A, B)).births == 1
    assert held(deps, csv_of(A, B), NEXT) == {"came": 1, "up": 1}
    assert tiers(deps) == {"AAPL": "T0", "BTC-USD": "T1", "MSFT": "T0"}


def test_an_instrument_that_nobody_follows_is_followed_when_somebody_adds_it(deps: Deps) -> None:
    taken(deps, csv_of(A))
    with deps.database.transaction() as connection:
        counts = add_instruments(connection, [Instrument("AAPL", "XNYS", tier=Tier.T1)])
        assert (counts.added, counts.known) == (1, 0)
    assert tiers(deps) == {"AAPL": "T1"}
    assert counted(deps, "select count(*) from instruments") == 1


def test_an_activation_is_whole_or_not_at_all(deps: Deps, monkeypatch: pytest.MonkeyPatch) -> None:
    held(deps, csv_of(A, B))
    later = taken(deps, csv_of(A, C), NEXT)
    with monkeypatch.context() as patched:
        patched.setitem(store._SQL, "audit", text("select 1 / 0"))
        with pytest.raises(Exception, match="division by zero"):
            activated(deps, later)
    assert tiers(deps) == {"AAPL": "T0", "MSFT": "T0"}
    assert counted(deps, "select count(*) from universe_activations") == 1
    assert activated(deps, later) == {"came": 1, "left": 1}


def test_who_is_on_an_exchange_without_a_calendar_is_not_in_the_listing(deps: Deps) -> None:
    held(deps, with_ids("a,AAPL,XNYS,5,1", "b,MSFT,XNYS,7,1"))
    bearer = borne(deps, "AAPL")
    body = with_ids("a,AAPL,NOPE,5,1", "b,MSFT,XNYS,7,1")
    made = taken(deps, body, NEXT)
    assert (made.version.members, made.moves.gone[0].symbol) == (1, "AAPL")
    assert made.skipped == {UNKNOWN_EXCHANGE: 1}
    assert not taken(deps, body, NEXT).changed
    assert again(deps, made.version.version_tag).same
    activated(deps, made)
    assert held(deps, with_ids("a,AAPL,XNYS,5,1", "b,MSFT,XNYS,7,1"), NEXT + timedelta(days=1)) == {"came": 1}
    assert borne(deps, "AAPL") == bearer  # the same one
    # A row of an exchange that is known says where it trades, whatever another says.
    both = with_ids("a,AAPL,NOPE,5,1", "a,AAPL,XNYS,5,1", "b,MSFT,XNYS,7,1")
    assert taken(deps, both, NEXT + timedelta(days=2)).version.members == 2


# -- who goes down ---------------------------------------------------------------------------------------

TIERS = """
universe: {{margin: 0.05, {more}}}
tiers:
  T0: {{size: {t0}, max_queue: 100, cadence: {{bars_1m: 60, quotes_l1: 5, eod: 1}}}}
  T1: {{size: 60, max_queue: 100, cadence: {{bars_1m: 300, quotes_l1: 15, eod: 1}}}}
  T2: {{max_queue: 100, cadence: {{eod: 1}}}}
"""


def ranked(order: Sequence[int]) -> bytes:
    """A listing of as many companies, in this order of what they trade."""
    return csv_of(*(f"S{one},XNYS,1,{len(order) - place}" for place, one in enumerate(order)))


@pytest.fixture
def hundred(deps: Deps) -> Deps:
    """A process under a policy with a T0 of 40 and a T1 of 60, and the first version of 130 holds."""
    under_it = under(deps, TIERS.format(t0=40, more="days: 1"))
    made = taken(under_it, ranked(range(130)))
    assert made.refusal is None
    flow.activate(made.version.version_tag, "me", "", under_it)  # the first needs nobody's word
    return under_it


def test_more_of_a_tier_than_may_go_down_only_when_a_person_says_so(hundred: Deps) -> None:
    made = taken(hundred, ranked([*range(40, 60), *range(20, 40), *range(20), *range(100, 130), *range(60, 100)]), NEXT)
    tag = made.version.version_tag
    assert made.as_dict()["down"] == {"T0": 20, "T1": 30}
    assert (made.as_dict()["leaving"], made.as_dict()["too_many"]) == (0, True)
    with pytest.raises(TooManyGoDownError) as refused:
        flow.activate(tag, "me", "", hundred)
    told = "20 of 40 members of T0 and 30 of 60 members of T1 (S0, S1, S2, …) would go down a tier with"
    assert str(refused.value).startswith(f"{told} {tag}, more than universe.most_leave (0.1) lets")
    assert refused.value.as_dict()["down"] == {"T0": {"down": 20, "held": 40}, "T1": {"down": 30, "held": 60}}
    assert (tiers(hundred)["S0"], tiers(hundred)["S40"]) == ("T0", "T1")
    flow.activate(tag, "me", "they did", hundred, force=True)
    assert (tiers(hundred)["S0"], tiers(hundred)["S40"]) == ("T1", "T0")


def test_so_few_that_change_places_need_nobodys_word(hundred: Deps) -> None:
    made = taken(hundred, ranked([*range(40, 50), *range(40), *range(50, 130)]), NEXT)  # ten come up from T1
    assert made.as_dict()["down"] == {"T0": 10}
    assert made.refusal is None
    flow.activate(made.version.version_tag, "me", "", hundred)
    assert tiers(hundred)["S39"] == "T1"


def test_whom_a_smaller_size_puts_out_whoever_set_it_wanted(hundred: Deps) -> None:
    smaller = under(hundred, TIERS.format(t0=10, more="days: 1"))
    made = taken(smaller, ranked(range(130)), NEXT)
    assert made.as_dict()["down"] == {"T0": 30, "T1": 30}
    assert made.refusal is None
    flow.activate(made.version.version_tag, "me", "", smaller)
    assert tiers(smaller)["S10"] == "T1"


def test_a_smaller_size_lets_its_lowest_go_and_not_as_many_others(hundred: Deps) -> None:
    smaller = under(hundred, TIERS.format(t0=10, more="days: 1"))
    made = taken(smaller, ranked([*range(10, 20), *range(20, 40), *range(10), *range(40, 130)]), NEXT)
    assert made.as_dict()["down"] == {"T0": 30, "T1": 30}
    assert made.refusal is None  # the ten best of them: so few may always
    less = under(hundred, TIERS.format(t0=20, more="days: 1"))
    wrong = taken(less, ranked(range(129, -1, -1)), NEXT + timedelta(days=1))
    assert wrong.as_dict()["down"]["T0"] == 40
    with pytest.raises(TooManyGoDownError, match="20 of 20 best members of T0") as refused:
        flow.activate(wrong.version.version_tag, "me", "", less)
    assert refused.value.down["T0"] == Down(20, 20, 40)


# -- which held when -------------------------------------------------------------------------------------


def test_what_held_at_a_moment_is_known_for_ever(deps: Deps) -> None:
    first = taken(deps, csv_of(A, B))
    moments = []
    later = taken(deps, csv_of(A, C), NEXT)
    for made in (first, later, first):
        activated(deps, made, "why not")
        with deps.database.transaction() as connection:
            moments.append(store.activations(connection, 1)[0])
    with deps.database.transaction() as connection:
        before = store.active(connection, moments[0].activated_at - timedelta(microseconds=1))
        found = [store.active(connection, each.activated_at) for each in moments]
        listed = store.activations(connection)
    assert before is None
    tags = [first.version.version_tag, later.version.version_tag, first.version.version_tag]
    assert [each and each.version_tag for each in found] == tags
    assert [each.version_tag for each in listed] == tags[::-1]
    assert (listed[0].actor, listed[0].reason) == ("me@here", "why not")
    assert tiers(deps) == {"AAPL": "T0", "MSFT": "T0"}  # and who came in between is gone
    assert counted(deps, "select count(*) from audit_log where action = 'universe.activate'") == 3


# -- made again ------------------------------------------------------------------------------------------


def test_every_version_is_made_again_from_what_was_kept(deps: Deps) -> None:
    tags = []
    for number in range(4):
        made = taken(
            deps, csv_of(A, f"MSFT,XNAS,{370 + number},2000", *([C] if number % 2 else [])), DAY + timedelta(number)
        )
        tags.append(made.version.version_tag)
        activated(deps, made)
    under(deps, "universe: {days: 3, bans: [AAPL]}")  # what holds now has no say
    done(deps, "update instruments set tier = 'T2'")
    assert all(again(deps, tag).same for tag in tags)


def test_what_was_tampered_with_is_noticed(deps: Deps) -> None:
    tag = taken(deps, csv_of(A, B)).version.version_tag
    done(deps, "update universe_members set score = score + 1 where symbol = 'AAPL'")
    assert not again(deps, tag).same
    done(deps, "update listing_snapshots set body = (select body from listing_snapshots where source = 'keys')")
    with pytest.raises(NotFoundError, match="is not what it was"):
        again(deps, tag)


def test_a_listing_without_volumes_is_ranked_by_the_stores_own_bars(deps: Deps) -> None:
    body = csv_of("A,XNYS,,", "B,XNYS,,", "C,XNYS,,")
    taken(deps, body)
    done(deps, "insert into instruments (mic) values ('XNYS')")
    at = [to_us(datetime(2023, 12, number, tzinfo=UTC)) for number in (27, 28, 29)]
    at.append(to_us(datetime(2024, 1, 3, tzinfo=UTC)))  # of the day itself nothing is known yet
    ensure_partitions(deps.database, "bars", at[0], at[-1])
    with deps.database.transaction() as connection:
        for number, volume in ((2, 10.5), (3, 99.0)):
            ones = [2.0] * 4
            bars = Bars.of(at, ones, ones, ones, ones, [volume] * 3 + [10.0**9])
            write_bars(connection, Interval.D1, [BarBatch(number, bars, at[-1] + 1)], "simulator", 1)
    made = taken(deps, body, NEXT)
    with deps.database.transaction() as connection:
        found = store.members(connection, made.version.version)
    assert [(each.symbol, each.score) for each in found] == [("C", 198), ("B", 21), ("A", 0)]
    assert again(deps, made.version.version_tag).same
    done(deps, "delete from bars")
    assert again(deps, made.version.version_tag).same


# -- names -----------------------------------------------------------------------------------------------


def test_a_renamed_instrument_is_the_same_one_and_its_old_name_is_known(deps: Deps) -> None:
    held(deps, with_ids("1,QQQ,XNYS,50,100", "2,SPY,XNYS,60,100"))
    assert taken(deps, with_ids("1,QQQQ,XNYS,50,100", "2,SPY,XNYS,60,100"), NEXT).renames == 1
    assert tiers(deps) == {"QQQQ": "T0", "SPY": "T0"}
    assert borne(deps, "QQQ") == [(1, "QQQ", "", str(NEXT)), (1, "QQQQ", str(NEXT), "")]
    with deps.database.transaction() as connection:
        for day, symbol in ((DAY, "QQQ"), (NEXT, "QQQQ")):
            assert reference.resolve(connection, [symbol], on=day)[symbol].id == 1
        with pytest.raises(UnknownSymbolError, match=f"unknown symbol QQQQ on {DAY}"):
            reference.resolve(connection, ["QQQQ"], on=DAY)
    back = NEXT + timedelta(days=1)
    taken(deps, with_ids("1,QQQ,XNYS,50,100", "2,SPY,XNYS,60,100"), back)
    assert borne(deps, "QQQ")[-1] == (1, "QQQ", str(back), "")
    assert counted(deps, "select count(*) from audit_log where action = 'universe.rename'") == 2


def test_two_that_swap_their_symbols_and_a_class_that_takes_anothers(deps: Deps) -> None:
    held(deps, with_ids("1,GOOG,XNYS,500,9", "2,A,XNYS,1,1", "3,B,XNYS,1,1"))
    ids = {row[1]: row[0] for symbol in ("GOOG", "A", "B") for row in borne(deps, symbol)}
    both = taken(deps, with_ids("1,GOOG,XNYS,500,9", "4,GOOG,XNYS,500,9", "2,B,XNYS,1,1", "3,A,XNYS,1,1"), NEXT)
    assert (both.renames, both.births, dict(both.skipped)) == (2, 0, {"a symbol that two rows bear": 1})
    last = taken(
        deps, with_ids("1,GOOGL,XNYS,500,9", "4,GOOG,XNYS,500,9", "2,B,XNYS,1,1", "3,A,XNYS,1,1"), NEXT + timedelta(1)
    )
    assert (last.renames, last.births) == (1, 1)
    with deps.database.transaction() as connection:
        now = reference.current(connection, ["A", "B", "GOOG", "GOOGL"])
    assert {symbol: each.id for symbol, each in now.items() if symbol != "GOOG"} == {
        "A": ids["B"], "B": ids["A"], "GOOGL": ids["GOOG"],
    }  # fmt: skip
    assert now["GOOG"].id not in ids.values()


def test_a_ticker_that_two_companies_used_is_two_instruments(deps: Deps) -> None:
    columns = "symbol,mic,close,volume,listed_from,delisted_on"
    held(deps, csv_of("WM,XNYS,0.16,100,1983-03-11,", columns=columns))
    end, start = NEXT, NEXT + timedelta(days=30)
    held(deps, csv_of(f"WM,XNYS,0.16,100,,{end}", A + ",,", columns=columns), end)
    assert tiers(deps) == {"AAPL": "T0"}
    held(deps, csv_of(f"WM,XNYS,28.94,100,{start},", A + ",,", columns=columns), start)
    (washington, _, since, until), (waste, *rest) = borne(deps, "WM")
    assert (since, until, rest) == ("1983-03-11", str(end), ["WM", str(start), ""])
    assert washington != waste
    with deps.database.transaction() as connection:
        assert reference.resolve(connection, ["WM"], on=DAY)["WM"].id == washington
        assert reference.resolve(connection, ["WM"])["WM"].id == waste
        with pytest.raises(UnknownSymbolError):
            reference.resolve(connection, ["WM"], on=end + timedelta(days=3))  # nobody bore it then


def test_a_person_renames_delists_and_gives_a_ticker_to_another(deps: Deps) -> None:
    with deps.database.transaction() as connection:
        add_instruments(connection, [Instrument("FB", "XNYS"), Instrument("WM", "XNYS"), Instrument("T", "XNYS")])
    now = datetime(2024, 6, 1, tzinfo=UTC)
    with pytest.raises(ConflictError, match="WM is borne by instrument 2"):
        names.rename(("FB", "WM"), DAY, "me", deps.database, now)
    with pytest.raises(InvalidRequestError, match="still to come"):
        names.rename(("FB", "META"), now.date() + timedelta(days=1), "me", deps.database, now)
    with pytest.raises(InvalidRequestError, match="is not a symbol"):
        names.rename(("FB", "ME TA"), DAY, "me", deps.database, now)
    names.rename(("FB", "META"), NEXT, "me", deps.database, now)
    with pytest.raises(InvalidRequestError, match=f"META is borne since {NEXT} only"):
        names.rename(("META", "M"), NEXT, "me", deps.database, now)
    with pytest.raises(ConflictError, match=f"FB is borne by instrument 1 until {NEXT}"):
        names.rename(("T", "FB"), DAY, "me", deps.database, now)
    names.rename(("T", "FB"), NEXT, "me", deps.database, now)
    names.delist("WM", DAY, "ops", deps.database)
    names.rename(("META", "WM"), NEXT + timedelta(days=1), "me", deps.database, now)
    assert borne(deps, "WM")[-1] == (2, "WM", "", str(DAY))
    with deps.database.transaction() as connection:
        assert {s: i.id for s, i in reference.current(connection, ["FB", "META", "WM", "T"]).items()} == {
            "FB": 3,
            "WM": 1,
        }
        washington = Instrument("WM", "XNYS", listed_from=DAY)
        assert add_instruments(connection, [washington]).known == 1  # the bearer lives
    names.delist("WM", NEXT + timedelta(days=9), "ops", deps.database)
    with deps.database.transaction() as connection:
        assert add_instruments(connection, [Instrument("WM", "XNYS", listed_from=NEXT + timedelta(days=9))]).added == 1
    assert names.delist("FB", DAY + timedelta(days=99), "ops", deps.database).delisted_on == DAY + timedelta(days=99)
    assert names.delist("FB", None, "ops", deps.database).delisted_on is None


def test_many_days_at_once_are_learnt_in_their_order(deps: Deps) -> None:
    bodies = [
        Kept(DAY, with_ids("1,FB,XNYS,10,1")),
        Kept(NEXT, with_ids("1,META,XNYS,20,1", "2,FB,XNYS,5,1")),
    ]
    made = flow.refresh("csv", bodies, Asked("me"), deps)
    assert (made.births, made.renames) == (2, 1)
    with deps.database.transaction() as connection:
        found = {each.symbol: (each.instrument, each.score) for each in store.members(connection, made.version.version)}
    assert found == {"META": (1, 15), "FB": (2, 5)}
    assert again(deps, made.version.version_tag).same

"""What is known as of an instant: gaps, silence, what is final. As of now it is what is told now, and stays so."""

from __future__ import annotations

import hashlib
import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import httpx
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sqlalchemy import text

from mdtasks.connections import Database
from mdtasks.domain.bars import Bars, RejectedBar, to_us
from mdtasks.domain.jobs import Interval, Tier, TimeWindow
from mdtasks.domain.ledger import Run, settle
from mdtasks.domain.overrides import Kind
from mdtasks.domain.reading import BarRows, Fill, Hours, Reading
from mdtasks.domain.silence import Silence
from mdtasks.domain.windows import AskedWindow
from mdtasks.flows import universe_symbols as names
from mdtasks.flows.calendars import apply_overrides
from mdtasks.flows.deps import Deps
from mdtasks.flows.gaps import Explanation, Question, accept_gaps, explain_gaps, find_gaps
from mdtasks.flows.reading import Shelf, opened
from mdtasks.flows.scan import scan
from mdtasks.store import gaps as store_gaps
from mdtasks.store import overrides, reference, retention
from mdtasks.store.bars import BarBatch, write_bars
from mdtasks.store.coverage import hold_writers
from mdtasks.store.gaps import Scope
from mdtasks.store.overrides import NewOverride
from mdtasks.store.partitions import ensure_partitions
from mdtasks.store.silences import accept
from tests.integration.cli_calls import Cli, work
from tests.integration.test_diff import clock

NOON = datetime(2026, 11, 2, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
MINUTES = 6
ALL = AskedWindow(NOON, NOON + MINUTES * MINUTE)
_numbers = itertools.count(1)


def window(first: int, last: int) -> TimeWindow:
    return TimeWindow(start=NOON + first * MINUTE, end=NOON + last * MINUTE)


@dataclass
class World:
    """One instrument that always trades, under the symbol that it bears now, and what may happen to it."""

    deps: Deps
    symbol: str
    id: int

    @property
    def asked(self) -> Question:
        return Question([self.symbol], Interval.M1, ALL)

    def write(self, bars: dict[int, tuple[float, bool]], covered: list[TimeWindow], **more: Any) -> None:
        """``bars``: minute -> price, and whether it is final; it is so up to the last that is said to be."""
        final_before = to_us(NOON + (max((m for m, (_, final) in bars.items() if final), default=-1) + 1) * MINUTE)
        minutes = sorted(bars)
        prices = [bars[minute][0] for minute in minutes]
        answer = Bars.of([to_us(NOON + minute * MINUTE) for minute in minutes], *([prices] * 5))
        provider = more.pop("provider", "files")
        batch = BarBatch(self.id, answer, final_before, covered, **more)
        with self.deps.database.transaction() as connection:
            write_bars(connection, Interval.M1, [batch], provider, next(_numbers))

    def accept(self, taken: TimeWindow, who: str) -> None:
        with self.deps.database.transaction() as connection:
            hold_writers(connection, Interval.M1, [self.id])
            accept(connection, self.id, Interval.M1, taken, (who, "a test"))

    def halt(self, halted: TimeWindow) -> None:
        """Tell of a halt, or take the oldest one back where there are two."""
        with self.deps.database.transaction() as connection:
            overrides.lock(connection)
            told = overrides.matching(connection, instrument_id=self.id)
            if len(told) > 1:
                overrides.undo(connection, min(each.id for each in told), "a test", "ann")
            else:
                overrides.add(connection, NewOverride(Kind.HALT, halted, "a test", instrument_id=self.id), "ann")
        apply_overrides(self.deps.database, self.deps.calendars)

    def rename(self) -> None:
        old, self.symbol = self.symbol, f"X{next(_numbers)}"
        on = date(2001, 1, 1) + timedelta(days=next(_numbers))  # always later than the one before
        names.rename((old, self.symbol), on, "ann", self.deps.database, datetime.now(UTC))

    def move(self, tier: Tier) -> None:
        with self.deps.database.transaction() as connection:
            reference.set_tier(connection, [self.symbol], tier, "ann")

    def delist(self, day: date | None) -> None:
        names.delist(self.symbol, day, "ann", self.deps.database)

    def look(self) -> None:
        """Keep the ledger, as the scan does."""
        (found,) = find_gaps(self.asked, self.deps, datetime.now(UTC))
        runs = [Run((to_us(gap.window.start), to_us(gap.window.end)), gap.missing) for gap in found.gaps]
        with self.deps.database.transaction() as connection:
            store_gaps.lock(connection)
            tier = reference.resolve(connection, [self.symbol])[self.symbol].tier
            open_ = store_gaps.standing(connection, Scope(tier, Interval.M1, [self.id]))
            settled = settle(open_.get((self.id, "24/7"), ()), runs)
            store_gaps.record(connection, Interval.M1, {self.id: settled}, "scan")

    def explained(self, as_of: datetime | None = None) -> Explanation:
        now = datetime.now(UTC)
        return explain_gaps(self.symbol, replace(self.asked, as_of=as_of), self.deps, now)

    def read(self, as_of: datetime | None = None, *, hours: Hours = Hours.ALL) -> BarRows | None:
        reading = Reading((self.symbol,), Interval.M1, ALL, as_of, hours, Fill.NO_TRADE)
        shelf = Shelf(self.deps.database, self.deps.calendars)
        with opened(reading, shelf, datetime.now(UTC)) as found:
            tag, _ = found.tag()
            batches = list(found.batches())
            assert found.tag()[0] == tag
        return BarRows.concat(batches) if batches else None


@pytest.fixture
def made(deps: Deps) -> Callable[[], World]:
    ensure_partitions(deps.database, "bars", to_us(NOON), to_us(NOON))

    def make() -> World:
        symbol = f"X{next(_numbers)}"
        with deps.database.transaction() as connection:
            reference.add_instruments(connection, [reference.Instrument(symbol, "24/7")])
            return World(deps, symbol, reference.resolve(connection, [symbol])[symbol].id)

    return make


def told(found: Explanation) -> bytes:
    """All of an explanation but who works on it, which is told of now alone."""
    document = found.as_dict()
    about = {name: each for name, each in document.items() if name != "as_of"}
    kept = ("id", "start", "end", "missing", "found_at", "found_by", "closed_at", "outcome")
    about["ledger"] = [{name: entry[name] for name in kept} for entry in document["ledger"]]  # type: ignore[attr-defined]
    return orjson.dumps([about, found.series.verdicts().tolist()])


def digest(rows: BarRows | None) -> str:
    if rows is None:
        return ""
    found = hashlib.sha256(repr(rows.provider.tolist()).encode())
    columns: list[NDArray[Any]] = [rows.bars.ts_us, *rows.bars.columns, rows.status, rows.known_at_us]
    for column in columns:
        found.update(column.tobytes())
    return found.hexdigest()


_minute = st.integers(0, MINUTES - 1)
_window = st.tuples(_minute, st.integers(1, 6)).map(lambda pair: window(pair[0], min(sum(pair), MINUTES)))
_windows = st.lists(_window, max_size=2)
_bars = st.dictionaries(_minute, st.tuples(st.sampled_from([100.0, 100.1]), st.booleans()), max_size=6)
_silences = st.lists(st.builds(Silence, _window, st.booleans()), max_size=2)
_rejected = st.lists(
    _minute.map(lambda m: RejectedBar(to_us(NOON + m * MINUTE), "high below low", 1.0, 0.5, 2.0, 1.0, 1.0)), max_size=1
)
_write = st.fixed_dictionaries(
    {
        "bars": _bars,
        "covered": _windows,
        "retracted": _windows,
        "silences": _silences,
        "rejected": _rejected,
        "provider": st.sampled_from(["files", "simulator", "derived"]),
    }
)
#: What happens, and with what.
_event: st.SearchStrategy[tuple[str, dict[str, Any]]] = st.one_of(
    _write.map(lambda words: ("write", words)),
    _write.map(lambda words: ("write", words)),
    st.fixed_dictionaries({"taken": _window, "who": st.sampled_from(["ann", "bob"])}).map(lambda w: ("accept", w)),
    _window.map(lambda halted: ("halt", {"halted": halted})),
    st.just(("look", {})),
    st.just(("rename", {})),
    st.sampled_from(list(Tier)).map(lambda tier: ("move", {"tier": tier})),
    st.sampled_from([NOON.date(), NOON.date() + timedelta(days=1), None]).map(lambda day: ("delist", {"day": day})),
)


@given(history=st.lists(_event, min_size=1, max_size=8))
@settings(max_examples=16, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_of_any_history_as_of_now_is_what_is_told_now_and_as_of_then_is_the_same_bytes_for_ever(
    made: Callable[[], World], history: list[tuple[str, dict[str, Any]]]
) -> None:
    world = made()
    known: list[tuple[datetime, str, bytes, str, str]] = []
    for name, words in history:
        getattr(world, name)(**words)
        now = clock(world.deps.database)
        then, regular = world.explained(now), digest(world.read(now, hours=Hours.REGULAR))
        assert told(then) == told(world.explained())
        assert digest(world.read(now)) == digest(world.read())
        assert regular == digest(world.read(hours=Hours.REGULAR))
        known.append((now, world.symbol, told(then), digest(world.read(now)), regular))
    for as_of, symbol, gaps, rows, regular in known:
        world.symbol = symbol  # as it was called then
        assert told(world.explained(as_of)) == gaps
        assert digest(world.read(as_of)) == rows
        assert digest(world.read(as_of, hours=Hours.REGULAR)) == regular


FINAL = dict.fromkeys(range(MINUTES), (100.0, True))


def test_a_bar_is_final_as_of_the_moment_at_which_it_became_so(made: Callable[[], World], client: httpx.Client) -> None:
    world = made()
    world.write({0: (100.0, True), 1: (100.0, False)}, [window(0, 1)])
    before = clock(world.deps.database)
    path = f"/bars/{world.symbol}?start=2026-11-02T12:00Z&end=2026-11-02T12:06Z&as_of={before.isoformat()[:-6]}Z"
    first = client.get(path)
    world.write({1: (100.0, True)}, [window(1, 2)])
    after = clock(world.deps.database)
    statuses = [
        [row["status"] for row in client.get(path.replace(before.isoformat()[:-6], at.isoformat()[:-6])).json()["bars"]]
        for at in (before, after)
    ]
    assert statuses == [["final", "provisional"], ["final", "final"]]
    again = client.get(path)
    assert (again.content, again.headers["ETag"]) == (first.content, first.headers["ETag"])
    window_ = {"start": "2026-11-02T12:00Z", "end": "2026-11-02T12:06Z"}
    asked = {"as_of_from": before.isoformat(), "as_of_to": after.isoformat(), **window_}
    bars = client.get(f"/bars/{world.symbol}/diff", params=asked).json()["bars"]
    counts = {name: bars[name] for name in ("inserted", "revised", "promoted", "removed", "unchanged")}
    assert counts == {"inserted": 0, "revised": 0, "promoted": 1, "removed": 0, "unchanged": 1}
    assert ([row["ts"] for row in bars["rows"]["promoted"]], bars["by"]) == (["2026-11-02T12:01:00Z"], [])
    why = client.get(f"/bars/{world.symbol}/why", params={"ts": "2026-11-02T12:01Z"}).json()
    assert before.isoformat() < why["bar"]["final_at"].replace("Z", "+00:00") < after.isoformat()


def test_silence_that_is_believed_doubted_and_filled_by_a_late_bar_is_told_as_it_was(
    made: Callable[[], World],
) -> None:
    world = made()
    times = [clock(world.deps.database)]

    def then(**words: Any) -> None:
        world.write(**words)
        times.append(clock(world.deps.database))

    then(bars={}, covered=[window(0, 3)], silences=[Silence(window(0, 3), True)])
    then(bars={}, covered=[], retracted=[window(0, 3)], silences=[Silence(window(0, 5), False)])
    then(bars={}, covered=[window(0, 5)], silences=[Silence(window(0, 5), True)], provider="simulator")
    then(bars={2: (100.0, True)}, covered=[window(0, 5)])
    found = [world.explained(as_of) for as_of in times]
    counts = [(each.completeness.missing, each.completeness.no_trade, each.completeness.present) for each in found]
    assert counts == [(6, 0, 0), (3, 3, 0), (6, 0, 0), (1, 5, 0), (1, 4, 1)]
    voices = [[(each.provider, each.believed) for each in told_of.heard] for told_of in found]
    assert voices == [
        [],
        [("files", True)],
        [("files", False)],
        [("files", False), ("simulator", True)],
        [("files", False), ("simulator", True)],
    ]


def test_a_gap_of_the_ledger_is_as_large_and_as_open_as_it_was(made: Callable[[], World]) -> None:
    world = made()
    world.write({}, [window(0, 2), window(4, 6)])
    world.look()
    found = clock(world.deps.database)
    world.write({}, [], retracted=[window(4, 5)])
    world.look()
    grown = clock(world.deps.database)
    world.write(FINAL, [window(0, 6)])
    world.look()
    ledgers = [world.explained(as_of).ledger for as_of in (found, grown, clock(world.deps.database))]
    ends = [[(each.end - NOON, each.missing, each.outcome) for each in ledger] for ledger in ledgers]
    assert ends == [[(4 * MINUTE, 2, None)], [(5 * MINUTE, 3, None)], [(5 * MINUTE, 3, "repaired")]]
    assert {each.job for ledger in ledgers for each in ledger} == {None}


def test_who_asks_as_of_a_moment_waits_for_what_is_being_written_then(made: Callable[[], World]) -> None:
    world = made()
    database = world.deps.database
    batch = BarBatch(world.id, Bars.of([to_us(NOON)], *([[100.0]] * 5)), 2**62, [window(0, 1)])
    found: list[Explanation] = []
    with database.transaction() as connection:
        write_bars(connection, Interval.M1, [batch], "files", 1)
        as_of = clock(database)
        asking = threading.Thread(target=lambda: found.append(world.explained(as_of)))
        asking.start()
        while not _waits(database):
            assert asking.is_alive()
    asking.join()
    assert (found[0].completeness.present, found[0].completeness.missing) == (1, MINUTES - 1)


def _waits(database: Database) -> bool:
    with database.transaction() as connection:
        held = text("SELECT exists (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)")
        return bool(connection.execute(held).scalar_one())


def test_what_is_expected_goes_by_the_policy_the_universe_and_the_halts_of_then(cli: Cli, cli_deps: Deps) -> None:
    cli("universe", "add", "BTC-USD", "--mic", "24/7")
    before = clock(cli_deps.database)
    old = ("--start", "2026-10-15", "--end", "2026-10-16")
    halted = ("--start", "2026-10-15T12:00Z", "--end", "2026-10-15T13:00Z", "--reason", "a test")
    assert cli("calendar", "halt", "BTC-USD", *halted).code == 0
    told_ = clock(cli_deps.database)
    assert cli("policy", "apply", "-", "--reason", "disk", stdin="retention: {bars_1m_days: 30}").code == 0
    cli("universe", "add", "ETH-USD", "--mic", "24/7")

    def counts(*words: str) -> list[tuple[str, int, int]]:
        return [(e["symbol"], e["expected"], e["halted"]) for e in cli("gaps", *words, *old, "--json").json]

    assert counts() == [("BTC-USD", 0, 0), ("ETH-USD", 0, 0)]
    assert counts("--as-of", before.isoformat()) == [("BTC-USD", 1440, 0)]
    assert counts("--as-of", told_.isoformat()) == [("BTC-USD", 1440, 60)]
    assert counts("BTC-USD", "--as-of", clock(cli_deps.database).isoformat()) == [("BTC-USD", 0, 0)]


def test_what_cannot_be_told_of_the_past_is_refused_by_name(cli: Cli, cli_deps: Deps) -> None:
    cli("universe", "add", "BTC-USD", "--mic", "24/7")
    hour = ("--start", "2026-11-02T12:00Z", "--end", "2026-11-02T13:00Z")
    wrongs = {
        ("--as-of", "2126-01-01"): "is still to come",
        ("--as-of", "2026-11-02T12:00Z"): "unknown symbol BTC-USD as of 2026-11-02",
        ("--as-of", "noon"): "not a time",
    }
    for words, said in wrongs.items():
        refused = cli("gaps", "BTC-USD", *hour, *words)
        assert (refused.code, said in refused.err) == (2, True), refused.err
    as_of = clock(cli_deps.database)
    for subject, said in (("coverage", "it is on record since"), ("revisions", "are gone")):
        assert cli("gaps", "BTC-USD", *hour, "--as-of", as_of.isoformat()).code == 0
        retention.Round(cli_deps.database, 1).begin(subject, clock(cli_deps.database), 1)
        for command in (("gaps", "BTC-USD"), ("bars", "BTC-USD", "--fill", "no_trade")):
            refused = cli(*command, *hour, "--as-of", as_of.isoformat())
            assert (refused.code, said in refused.err) == (2, True), refused.err
        as_of = clock(cli_deps.database)


def test_a_person_s_word_and_a_job_s_answer_are_not_known_before(cli: Cli, cli_deps: Deps) -> None:
    cli("universe", "add", "BTC-USD", "--mic", "24/7")
    day = ("--start", "2026-11-02", "--end", "2026-11-03")
    nothing = clock(cli_deps.database)
    scan(Scope(Tier.T1, Interval.M1), cli_deps, datetime(2026, 11, 3, 1, tzinfo=UTC))
    asked = clock(cli_deps.database)
    work(cli_deps)
    filled = clock(cli_deps.database)
    hole = Question(["BTC-USD"], Interval.M1, AskedWindow(NOON - timedelta(days=30), NOON - timedelta(days=29)))
    accept_gaps("BTC-USD", hole, ("ann", "halted for news"), cli_deps, datetime.now(UTC))
    accepted = clock(cli_deps.database)
    later = ("--start", "2026-10-03T12:00Z", "--end", "2026-10-04T12:00Z")

    def counts(words: tuple[str, ...], as_of: datetime) -> tuple[int, int, int]:
        (found,) = cli("gaps", "BTC-USD", *words, "--as-of", as_of.isoformat(), "--json").json
        return found["present"], found["no_trade"], found["missing"]

    assert [counts(day, at) for at in (nothing, asked, filled)] == [(0, 0, 1440), (0, 0, 1440), (1440, 0, 0)]
    assert [counts(later, at) for at in (filled, accepted)] == [(0, 0, 1440), (0, 1440, 0)]
    page = cli("gaps", "BTC-USD", *day, "--explain", "--as-of", asked.isoformat()).out
    assert ("then" in page, "open" in page, "job" in page) == (True, True, True)
